"""hatch: environments that it makes with pip and with uv, and their lock files."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import WAYS, Place
from tests.clients.shop import INSTALLED
from tests.clients.tools import tool
from tests.support.clients import installed

PROJECT = """
[project]
name = "project"
version = "1"

[tool.hatch.envs.default]
skip-install = true
path = ".venv"
dependencies = ["shop-app"]
installer = "{installer}"
"""


async def hatch(place: Place, project: Path, *arguments: str) -> str:
    """``hatch`` *arguments*, with the uv that is here instead of one it would fetch."""
    ours = {"HATCH_ENV_TYPE_VIRTUAL_UV_PATH": str(tool("uv") / "uv"), "UV_NO_CACHE": "1", "PIP_NO_CACHE_DIR": "1"}
    variables = {**place.variables("hatch"), **ours}
    return await place.run("hatch", "hatch", "--no-interactive", *arguments, within=project, variables=variables)


async def create(place: Place, project: Path) -> dict[str, str]:
    """What is in the default environment, made anew."""
    await hatch(place, project, "env", "remove", "default")
    await hatch(place, project, "env", "create")
    return {name: version for name, version in installed(project / ".venv").items() if name in INSTALLED}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest_twisted.ensureDeferred
async def test_hatch_makes_an_environment(make_place: MakePlace, installer: str, way: str) -> None:
    place = await make_place(way)
    project = place.project("pyproject.toml", PROJECT.format(installer=installer))
    assert await create(place, project) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_hatch_installs_from_its_lock_file(make_place: MakePlace) -> None:
    """A pylock.toml with the proxy's file URLs."""
    place = await make_place()
    project = place.project("pyproject.toml", PROJECT.format(installer="uv") + "locked = true\n")
    await hatch(place, project, "lock")
    lock = (project / "pylock.toml").read_text("utf-8")
    assert place.link("shop-app") in lock
    await place.start_over()
    assert await create(place, project) == INSTALLED
    await place.proxy.restart()
    assert await create(place, project) == INSTALLED
    assert (project / "pylock.toml").read_text("utf-8") == lock
