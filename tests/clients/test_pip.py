"""pip, the newest and the one that Debian 12 ships."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import OTHER, WAYS, Place
from tests.clients.shop import INSTALLED, RESOLVED
from tests.support.clients import Scratch

PIPS = ("pip", "pip-23.0")


async def install(
    place: Place, pip: str, *arguments: str | Path, variables: Mapping[str, str] | None = None, status: int = 0
) -> tuple[dict[str, str], str]:
    """What is in a new environment after ``pip install`` *arguments*, and what pip said."""
    scratch = Scratch(place.folder)
    used = place.variables("pip") if variables is None else variables
    command = ("pip", "--python", scratch.python, "install", "--no-compile", *arguments)
    output = await place.run(pip, *command, variables=used, status=status)
    return scratch.installed, output


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pip", PIPS)
@pytest_twisted.ensureDeferred
async def test_pip_installs(make_place: MakePlace, pip: str, way: str) -> None:
    """Extras, an sdist, a local version; neither what was yanked nor what is for another Python."""
    place = await make_place(way)
    assert (await install(place, pip, "shop-app"))[0] == INSTALLED
    assert (await install(place, pip, "shop-lib==2.2"))[0] == {"shop_lib": "2.2"}, "yanked, and named"
    assert "Requires-Python" in (await install(place, pip, "shop-lib==3.0", status=1))[1]


@pytest.mark.parametrize("pip", PIPS)
@pytest_twisted.ensureDeferred
async def test_pip_reads_its_configuration_file(make_place: MakePlace, pip: str) -> None:
    place = await make_place(OTHER, "pypi")
    file = place.folder / "pip.conf"
    file.write_text(place.text("pip", "pip.conf"))
    assert (await install(place, pip, "shop-app", variables={"PIP_CONFIG_FILE": str(file)}))[0] == INSTALLED


@pytest.mark.parametrize("pip", PIPS)
@pytest_twisted.ensureDeferred
async def test_pip_refuses_plain_http_from_another_host_unless_it_is_trusted(make_place: MakePlace, pip: str) -> None:
    """Which is why client-config names it."""
    place = await make_place(OTHER)
    variables = place.variables("pip")
    del variables["PIP_TRUSTED_HOST"]
    assert "not a trusted or secure host" in (await install(place, pip, "shop-app", variables=variables, status=1))[1]


@pytest_twisted.ensureDeferred
async def test_pip_installs_from_its_lock_file(make_place: MakePlace) -> None:
    """It records the proxy's file URLs, which go on working."""
    place = await make_place()
    lock = place.folder / "pylock.toml"
    await place.run("pip", "pip", "lock", "--output", lock, "shop-app")
    packages = tomllib.loads(lock.read_text())["packages"]
    assert {each["name"]: each["version"] for each in packages} == RESOLVED
    assert place.link("shop-app") in lock.read_text()
    await place.start_over()
    assert (await install(place, "pip", "--requirement", lock))[0] == INSTALLED
    await place.proxy.restart()
    assert (await install(place, "pip", "--requirement", lock))[0] == INSTALLED


@pytest.mark.parametrize("pip", PIPS)
@pytest_twisted.ensureDeferred
async def test_pip_checks_hashes(make_place: MakePlace, pip: str) -> None:
    place = await make_place()
    files = {name: entry for project in place.upstream.content.projects.values() for name, entry in project.files.items()}
    wanted = {"shop-app==1.0": "shop_app-1.0-py3-none-any.whl", "dotted-name==0.3": "dotted_name-0.3.tar.gz"}
    lines = [f"{each} --hash=sha256:{files[name]['hashes']['sha256']}" for each, name in wanted.items()]
    requirements = place.folder / "requirements.txt"
    requirements.write_text("\n".join(lines))
    arguments = ("--no-deps", "--require-hashes", "--requirement", requirements)
    assert (await install(place, pip, *arguments))[0] == {"shop_app": "1.0", "dotted_name": "0.3"}
