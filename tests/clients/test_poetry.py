"""poetry: a project with a lock."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import LOCAL, OTHER, TLS, Place
from tests.clients.shop import INSTALLED, METADATA, RESOLVED
from tests.support.clients import installed

PROJECT = f"""{METADATA}
[tool.poetry]
package-mode = false

"""


async def install(place: Place, project: Path) -> dict[str, str]:
    """What is in the project's environment, made anew, after ``poetry sync`` without poetry's caches."""
    await place.run(
        "poetry", "poetry", "cache", "clear", "--all", "--no-interaction", ".", within=project, variables=_ours(place)
    )
    await place.run("poetry", "poetry", "env", "remove", "--all", within=project, variables=_ours(place))
    await place.run("poetry", "poetry", "sync", "--no-cache", within=project, variables=_ours(place))
    return {name: version for name, version in installed(project / ".venv").items() if name != "pip"}


def _ours(place: Place) -> dict[str, str]:
    return {**place.variables("poetry"), "POETRY_VIRTUALENVS_IN_PROJECT": "true"}


@pytest.mark.parametrize("way", [OTHER, TLS])
@pytest_twisted.ensureDeferred
async def test_poetry_installs(make_place: MakePlace, way: str) -> None:
    place = await make_place(way, "pypi")
    project = place.project("pyproject.toml", PROJECT + place.text("poetry", "pyproject.toml"))
    await place.run("poetry", "poetry", "lock", within=project, variables=_ours(place))
    assert await install(place, project) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_poetry_installs_from_its_lock_file(make_place: MakePlace) -> None:
    """It records the index's URL and the files' hashes."""
    place = await make_place(LOCAL)
    project = place.project("pyproject.toml", PROJECT + place.text("poetry", "pyproject.toml"))
    await place.run("poetry", "poetry", "lock", within=project, variables=_ours(place))
    locked = tomllib.loads((project / "poetry.lock").read_text("utf-8"))["package"]
    assert {each["name"]: each["version"] for each in locked} == RESOLVED
    assert {each["source"]["url"] for each in locked} == {place.address.index.rstrip("/")}
    await place.start_over()
    assert await install(place, project) == INSTALLED
    await place.proxy.restart()
    assert await install(place, project) == INSTALLED
