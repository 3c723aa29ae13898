"""``kill -9`` and full disks in mid-upload, on real processes: what is there is whole, and nothing else is left."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from proxy.core.uploads import Uploaded
from tests.hosting import hosted, listed, standing, upload
from tests.inprocess import Start
from tests.support.process import ROOT, Running, can_mount, environment
from tests.support.uploading import INDEX, numbered
from tests.support.wheels import seeded, wheel
from tests.support.wire import reactor

SIZE = 400_000
ROUNDS = 6


def command(data: Path, first: int, last: int, size: int) -> list[str]:
    return [sys.executable, "-m", "tests.support.uploading", str(data), str(first), str(last), str(size)]


def spawned(place: Path, arguments: list[str], disk: tuple[str, int] | None = None) -> Running:
    return Running().spawn(arguments, environment(place, PYTHONPATH=str(ROOT)), place, disk=disk)


async def swept(folder: Path) -> None:
    """Wait until *folder* is empty, which a thread sees to when a service starts."""
    overdue = reactor.seconds() + 60.0
    while left := os.listdir(folder):
        assert reactor.seconds() < overdue, left
        await deferLater(reactor, 0.01)


def said(output: str, word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in output.splitlines() if line.startswith(f"{word} ")]


@pytest_twisted.ensureDeferred
async def test_killed_in_an_upload_what_is_there_is_whole_and_nothing_else_is_left(tmp_path: Path, serve: Start) -> None:
    rng = seeded("kill an upload")
    folder = tmp_path / "data" / "hosted" / INDEX
    done: set[int] = set()
    for number in range(ROUNDS):
        process = spawned(tmp_path, command(tmp_path / "data", number * 10, number * 10 + 9, SIZE))
        moment = rng.choice(["begun", "writing", "accepting", "accepting", "new"])
        count = rng.randrange(1, 4)
        await process.until(lambda moment=moment, count=count: len(said(process.output, moment)) >= count, 60.0)  # type: ignore[misc]  # noqa: B023
        process.signal(signal.SIGKILL)
        await process.end()
        assert "Traceback" not in process.output
        done |= {int(each) for each in said(process.output, "new")}

        proxy = await serve(indexes=(hosted(INDEX),))
        pages = {name: each for project in ("big0", "big1", "big2") for name, each in (await listed(proxy, project)).items()}
        there = standing(folder)
        assert {path.partition("/")[2]: digest for path, digest in there.items()} == {
            name: each["hashes"]["sha256"] for name, each in pages.items()
        }
        assert {numbered(each, SIZE).filename for each in done} <= pages.keys()
        for path in folder.rglob("*.whl"):
            noted = json.loads(path.with_name(f"{path.name}.json").read_text())
            assert (noted["sha256"], noted["uploader"]) == (hashlib.sha256(path.read_bytes()).hexdigest(), "ci")
        await swept(tmp_path / "data" / "partial")
        # A name that was not added may have other bytes now; one that was may not.
        for each in range(number * 10, number * 10 + 10):
            rival = wheel(f"big{each % 3}", f"{each}.0", size=10, seed=1)
            if rival.filename not in pages and each not in done:
                assert await upload(proxy.service.receiving[INDEX], rival) is Uploaded.NEW
                break
        await proxy.stop()
    assert done


@pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_an_upload_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    process = spawned(tmp_path, command(data, 0, 9, 700_000), disk=(str(data), 6_000_000))
    ended = await process.end()
    assert ended.status == 0, ended.output
    added, failed = said(ended.output, "new"), said(ended.output, "failed")
    assert len(added) >= 2
    assert failed
    assert all("StorageFailed" in each and "No space left on device" in each for each in failed), failed
    names = {numbered(int(each), 700_000).filename for each in added}
    assert set(said(ended.output, "page")) == names
    left = said(ended.output, "left")
    assert sorted(Path(each).name for each in left if each.startswith("hosted/")) == sorted(
        [*names, *(f"{name}.json" for name in names)]
    )
    assert [each for each in left if each.startswith("partial/")] == []
    assert "Traceback" not in ended.output
