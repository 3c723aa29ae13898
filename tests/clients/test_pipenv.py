"""pipenv: a Pipfile and its lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytest_twisted

from proxy.config.readers import public_url
from tests.clients.conftest import MakePlace
from tests.clients.place import OTHER, WAYS, Place
from tests.clients.shop import INSTALLED, RESOLVED
from tests.support.clients import installed
from tests.support.content import normalize

WANTED = """
[packages]
shop-app = "*"
"""


async def pipenv(place: Place, project: Path, *arguments: str) -> str:
    """``pipenv`` *arguments*, without pip's cache.  A Pipfile that names the proxy says it all, but for authorities."""
    told = place.variables("pipenv")
    if place.address.index in (project / "Pipfile").read_text("utf-8"):
        told = {name: value for name, value in told.items() if value == place.address.ca_file}
    ours = {
        "PIPENV_VENV_IN_PROJECT": "1",
        "PIPENV_YES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIPENV_CACHE_DIR": str(place.home / "cache"),
    }
    return await place.run("pipenv", "pipenv", *arguments, within=project, variables={**told, **ours})


async def sync(place: Place, project: Path) -> dict[str, str]:
    """What is in the project's environment, made anew, after ``pipenv sync``."""
    if (project / ".venv").exists():
        await pipenv(place, project, "--rm")
    await pipenv(place, project, "sync")
    return {name: version for name, version in installed(project / ".venv").items() if name in INSTALLED}


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_pipenv_installs(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    project = place.project("Pipfile", place.text("pipenv", "Pipfile") + WANTED)
    await pipenv(place, project, "lock")
    assert await sync(place, project) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_pipenv_takes_the_proxy_for_the_public_index(make_place: MakePlace) -> None:
    """A Pipfile names the public index unless it is told otherwise; the lock file goes on naming it."""
    place = await make_place(OTHER, "pypi")
    project = place.project("Pipfile", f'[[source]]\nname = "pypi"\nurl = "{public_url()}"\nverify_ssl = true\n{WANTED}')
    await pipenv(place, project, "lock")
    assert place.address.base not in (project / "Pipfile.lock").read_text("utf-8")
    assert await sync(place, project) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_pipenv_installs_from_its_lock_file(make_place: MakePlace) -> None:
    """It records the index's URL and every file's hash, for which it asks ``/simple//name/``."""
    place = await make_place()
    project = place.project("Pipfile", place.text("pipenv", "Pipfile") + WANTED)
    await pipenv(place, project, "lock")
    lock = json.loads((project / "Pipfile.lock").read_text("utf-8"))
    assert {normalize(name): each["version"].removeprefix("==") for name, each in lock["default"].items()} == RESOLVED
    assert len(lock["default"]["shop-lib"]["hashes"]) == 2, "of the wheel and of the sdist"
    assert lock["_meta"]["sources"][0]["url"] == place.address.index
    await place.start_over()
    assert await sync(place, project) == INSTALLED
    await place.proxy.restart()
    assert await sync(place, project) == INSTALLED
