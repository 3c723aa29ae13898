"""pdm: a project with a lock, also one with file URLs in it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import OTHER, WAYS, Place
from tests.clients.shop import INSTALLED, METADATA, RESOLVED
from tests.support.clients import installed

PROJECT = f"""{METADATA}
[tool.pdm]
distribution = false

"""


async def pdm(place: Place, project: Path, *arguments: str, variables: Mapping[str, str] | None = None, status: int = 0) -> str:
    """``pdm`` *arguments*, with an environment made by the standard library in the project."""
    used = place.variables("pdm") if variables is None else variables
    ours = {"PDM_CHECK_UPDATE": "false", "PDM_VENV_BACKEND": "venv", "PDM_USE_VENV": "true"}
    return await place.run("pdm", "pdm", *arguments, within=project, variables={**used, **ours}, status=status)


async def install(place: Place, project: Path) -> dict[str, str]:
    """What is in the project's environment, made anew, after ``pdm sync`` without pdm's cache."""
    await pdm(place, project, "cache", "clear")
    await pdm(place, project, "venv", "create", "--force")
    await pdm(place, project, "sync")
    return installed(project / ".venv")


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_pdm_installs(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    project = place.project("pyproject.toml", PROJECT)
    await pdm(place, project, "lock")
    assert await install(place, project) == INSTALLED


@pytest.mark.parametrize("where", ["config.toml", "pyproject.toml"])
@pytest_twisted.ensureDeferred
async def test_pdm_reads_its_files(make_place: MakePlace, where: str) -> None:
    place = await make_place(OTHER, "pypi")
    file = place.text("pdm", where)
    project = place.project("pyproject.toml", PROJECT + (file if where == "pyproject.toml" else ""))
    if where == "config.toml":
        (place.home / ".config" / "pdm").mkdir(parents=True)
        (place.home / ".config" / "pdm" / where).write_text(file, "utf-8")
    await pdm(place, project, "install", variables={})
    assert installed(project / ".venv") == INSTALLED


@pytest_twisted.ensureDeferred
async def test_pdm_refuses_plain_http_from_another_host_unless_it_is_trusted(make_place: MakePlace) -> None:
    """Which is why client-config says so."""
    place = await make_place(OTHER)
    project = place.project("pyproject.toml", PROJECT)
    variables = place.variables("pdm")
    del variables["PDM_PYPI_VERIFY_SSL"]
    await pdm(place, project, "lock", variables=variables, status=1)
    assert "GET /simple/" not in place.proxy.log


@pytest.mark.parametrize("strategy", ["no_static_urls", "static_urls"])
@pytest_twisted.ensureDeferred
async def test_pdm_installs_from_its_lock_file(make_place: MakePlace, strategy: str) -> None:
    """It records the proxy's file URLs when it is told to, and versions without their local part."""
    place = await make_place()
    project = place.project("pyproject.toml", PROJECT)
    await pdm(place, project, "lock", "--strategy", strategy)
    lock = (project / "pdm.lock").read_text("utf-8")
    assert {each["name"]: each["version"] for each in tomllib.loads(lock)["package"]} == {
        name: version.partition("+")[0] for name, version in RESOLVED.items()
    }
    assert (place.link("shop-app") in lock) == (strategy == "static_urls")
    await place.start_over()
    assert await install(place, project) == INSTALLED
    await place.proxy.restart()
    assert await install(place, project) == INSTALLED
