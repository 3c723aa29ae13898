"""pip-tools: pip-compile with hashes, pip-sync, and pip installing what was compiled."""

from __future__ import annotations

import re

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import LOCAL, WAYS, Place
from tests.clients.shop import INSTALLED, RESOLVED
from tests.support.clients import Scratch

#: Digests by project, of all files of the version that is chosen.
FILES = {"shop-app": 1, "shop-lib": 2, "shop-speed": 1, "dotted-name": 1}


async def compiled(place: Place, client: str = "pip-tools") -> dict[str, list[str]]:
    """Digests by project in ``requirements.txt`` below *place*, which *client* made of ``requirements.in``."""
    (place.folder / "requirements.in").write_text("shop-app\n", "utf-8")
    command = ("pip-compile", "--generate-hashes", "--no-emit-options", "requirements.in")
    await place.run(client, *command, variables=place.variables("pip-tools"))
    text = (place.folder / "requirements.txt").read_text("utf-8")
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+) \\\n((?:    --hash=sha256:\w+(?: \\)?\n)+)", text, re.MULTILINE)
    assert {name: version for name, version, _ in found} == RESOLVED, text
    return {name: re.findall(r"sha256:(\w+)", hashes) for name, _, hashes in found}


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_pip_compile_and_pip_sync(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    assert {name: len(digests) for name, digests in (await compiled(place)).items()} == FILES
    await place.start_over()
    # it uses the pip that it finds there, and removes all else
    scratch = Scratch(place.folder, with_pip=True)
    await place.run("pip-tools", "pip-sync", "--python-executable", scratch.python, "requirements.txt")
    assert {name: version for name, version in scratch.installed.items() if name in INSTALLED} == INSTALLED


@pytest.mark.parametrize("index", [None, "pypi"])
@pytest.mark.parametrize("client", ["pip-tools", "pip-tools-7.4"])
@pytest_twisted.ensureDeferred
async def test_pip_compile_takes_hashes_from_the_legacy_json(make_place: MakePlace, client: str, index: str | None) -> None:
    """Else it would download every file of every version that it chooses, those of other platforms and sdists among them."""
    place = await make_place(LOCAL, index)
    assert {name: len(digests) for name, digests in (await compiled(place, client)).items()} == FILES
    assert place.upstream.count("/simple/shop-lib/") == 1
    assert place.upstream.count("*/shop_lib-2.1.tar.gz") == 0, "downloaded for its hash alone"
