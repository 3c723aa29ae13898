"""uv: its pip, its projects with their lock, and what it exports."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import OTHER, WAYS, Place
from tests.clients.shop import INSTALLED, METADATA, RESOLVED
from tests.support.clients import Scratch, installed

PROJECT = f"""{METADATA}
[tool.uv]
package = false
"""


async def install(place: Place, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is in a new environment after ``uv pip install`` *arguments*, without uv's cache."""
    scratch = Scratch(place.folder)
    command = ("uv", "pip", "install", "--no-cache", "--python", scratch.python, *arguments)
    await place.run("uv", *command, variables=variables)
    return scratch.installed


async def sync(place: Place, project: Path) -> dict[str, str]:
    """What is in the project's environment, made anew, after ``uv sync`` from the lock file and without uv's cache."""
    await place.run("uv", "uv", "venv", "--clear", "--quiet", within=project)
    await place.run("uv", "uv", "sync", "--locked", "--no-cache", within=project)
    return installed(project / ".venv")


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_uv_installs(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    assert await install(place, "shop-app") == INSTALLED
    assert await install(place, "shop-lib==2.2") == {"shop_lib": "2.2"}, "yanked, and named"


@pytest_twisted.ensureDeferred
async def test_uv_reads_its_configuration_file(make_place: MakePlace) -> None:
    place = await make_place(OTHER, "pypi")
    file = place.folder / "uv.toml"
    file.write_text(place.text("uv", "uv.toml"))
    assert await install(place, "shop-app", variables={"UV_CONFIG_FILE": str(file)}) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_uv_reads_the_index_in_a_project(make_place: MakePlace) -> None:
    place = await make_place(OTHER)
    project = place.project("pyproject.toml", PROJECT + place.text("uv", "pyproject.toml"))
    await place.run("uv", "uv", "sync", within=project, variables={})
    assert installed(project / ".venv") == INSTALLED


@pytest_twisted.ensureDeferred
async def test_uv_syncs_from_its_lock_file(make_place: MakePlace) -> None:
    """It records the proxy's file URLs, sizes and times."""
    place = await make_place()
    project = place.project("pyproject.toml", PROJECT)
    await place.run("uv", "uv", "lock", within=project)
    lock = (project / "uv.lock").read_text("utf-8")
    locked = {each["name"]: each for each in tomllib.loads(lock)["package"]}
    assert {name: each["version"] for name, each in locked.items()} == {"project": "1", **RESOLVED}
    assert place.link("shop-app") in lock
    assert locked["shop-lib"]["wheels"][0]["size"] > 300_000
    assert locked["shop-lib"]["wheels"][0]["upload-time"].startswith("2024-01-02T03:04:05.678")
    await place.start_over()
    assert await sync(place, project) == INSTALLED
    await place.proxy.restart()
    assert await sync(place, project) == INSTALLED
    await place.run("uv", "uv", "lock", "--check", "--refresh", within=project)


@pytest_twisted.ensureDeferred
async def test_uv_installs_from_the_lock_file_it_exports(make_place: MakePlace) -> None:
    place = await make_place()
    project = place.project("pyproject.toml", PROJECT)
    lock = place.folder / "pylock.toml"
    await place.run("uv", "uv", "export", "--format", "pylock.toml", "--output-file", lock, within=project)
    assert {each["name"]: each["version"] for each in tomllib.loads(lock.read_text())["packages"]} == RESOLVED
    await place.start_over()
    assert await install(place, "--requirement", lock) == INSTALLED
    await place.proxy.restart()
    assert await install(place, "--requirement", lock) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_uv_compiles_without_downloading_wheels(make_place: MakePlace) -> None:
    """The metadata are enough; the sdist has to be built."""
    place = await make_place()
    (place.folder / "requirements.in").write_text("shop-app\n")
    compiled = place.folder / "requirements.txt"
    command = ("uv", "pip", "compile", "--generate-hashes", "--output-file", compiled, place.folder / "requirements.in")
    await place.run("uv", *command)
    assert compiled.read_text().count("--hash=sha256:") == 5, "one for each file of the four versions"
    assert place.upstream.count("*.whl") == 0
    assert await install(place, "--require-hashes", "--requirement", compiled) == INSTALLED


@pytest_twisted.ensureDeferred
async def test_uv_leaves_out_what_is_younger(make_place: MakePlace) -> None:
    """The pages say when files were uploaded."""
    place = await make_place()
    assert await install(place, "--exclude-newer", "2025-01-01", "shop-app") == INSTALLED
    command = ("uv", "pip", "install", "--python", Scratch(place.folder).python, "--exclude-newer", "2023-01-01", "shop-app")
    assert "shop-app" in await place.run("uv", *command, status=1)
