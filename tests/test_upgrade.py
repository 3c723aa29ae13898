"""A running service is upgraded from the previous landed version, and returns to it by the backup that the upgrade made."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import pytest_twisted

from tests.support import wire
from tests.support.archives import extract
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ROOT, ProxyProcess, Python
from tests.support.wheels import data_of

#: The commit that landed before this version's data format.
PREVIOUS = "029c194"
SIX = "six-1.0-py3-none-any.whl"
JSON = "application/vnd.pypi.simple.v1+json"


@pytest.fixture
def earlier(tmp_path: Path) -> Python:
    """The previous version, in a directory of its own."""
    archived = subprocess.run(["git", "archive", PREVIOUS, "proxy", "twisted"], cwd=ROOT, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"this is no repository with the history of {PREVIOUS}: {archived.stderr.decode().strip()}")
    place = tmp_path / "earlier"
    with tarfile.open(fileobj=BytesIO(archived.stdout)) as archive:
        extract(archive, place)
    return Python(sys.executable, str(place))


def documented() -> str:
    """The commands that return to the earlier version."""
    page = (ROOT / "docs" / "upgrade.md").read_text("utf-8")
    section = page.partition("### Returning to an earlier version")[2].partition("\n## ")[0]
    [commands] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return str(commands)


async def served(proxy: ProxyProcess, path: str) -> bytes:
    """The page of *six* in JSON, which has to be there, and the bytes at *path*."""
    page = await wire.fetch(proxy.port, "/simple/six/", Accept=JSON)
    assert page.status == 200, page
    assert [each["filename"] for each in page.json["files"]] == [SIX]
    return (await wire.fetch(proxy.port, path)).body


@pytest_twisted.ensureDeferred
async def test_a_service_is_upgraded_and_returns_to_the_previous_version(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], earlier: Python, tmp_path: Path
) -> None:
    data = data_of(200_000, 1)
    upstream.add_file("six", SIX, data)
    old = make_proxy(upstream.url, place=tmp_path, python=earlier)
    await old.started()
    page = await wire.fetch(old.port, "/simple/six/", Accept=JSON)
    path = "/simple/six/" + page.json["files"][0]["url"]
    path = path.replace("/simple/six/../../", "/")
    assert await served(old, path) == data
    pinned = await Operator(tmp_path, old.data_dir, python=earlier).run("pin", "six")
    assert pinned.status == 0, pinned
    await old.stop()
    # From here on everything comes from the data directory.
    await upstream.down()
    new = make_proxy(upstream.url, place=tmp_path)
    new.place.mkdir()
    old.data_dir.rename(new.data_dir)
    await new.started()
    assert "the data directory was brought into format 1" in new.log
    assert await served(new, path) == data
    await new.stop()
    new.data_dir.rename(old.data_dir)
    subprocess.run(["sh", "-e", "-c", documented()], cwd=old.data_dir, check=True)
    await old.started()
    assert await served(old, path) == data
    assert SIX in (await Operator(tmp_path, old.data_dir, python=earlier).run("pins")).output
    await old.stop()
