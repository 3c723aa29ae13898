"""What operators ask for: lists, sums, purges, refreshes and pins, through the running proxy and without one."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner
from diskcache import Cache
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from proxy import __version__
from proxy.cli import main
from proxy.commands import asking
from proxy.host import datadir
from proxy.settings import IndexSettings, PageLimits
from proxy.storage.table import Table
from tests.inprocess import Running, Start, upstream_settings
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.support.wheels import data_of, wheel

OLD, NEW = "six-1.0-py3-none-any.whl", "six-2.0-py3-none-any.whl"
DATA = {OLD: data_of(1_000, 1), NEW: data_of(2_000, 2), "attrs-1.0.tar.gz": data_of(3_000, 3)}


def sha256(filename: str) -> str:
    return hashlib.sha256(DATA[filename]).hexdigest()


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    for filename, data in DATA.items():
        upstream.add_file(filename.partition("-")[0], filename, data)
    return upstream


class Asked:
    """A running proxy that has served all files of :data:`DATA`, and how to ask it."""

    def __init__(self, proxy: Running, data_dir: Path) -> None:
        self.proxy = proxy
        self.data_dir = data_dir

    async def __call__(self, operation: str, **arguments: Any) -> Any:
        return await deferToThread(asking.ask, self.data_dir, operation, arguments, lambda said: None)

    def on_disk(self) -> set[str]:
        return {path.name for path in self.data_dir.glob("files/*/*")}


@pytest.fixture
def asked(stocked: FakeUpstream, run: Start, tmp_path: Path) -> Asked:
    async def begin() -> Asked:
        proxy = await run(stocked)
        for filename in DATA:
            path = await proxy.link(filename.partition("-")[0], filename)
            assert (await proxy.get(path)).body == DATA[filename]
        return Asked(proxy, tmp_path / "data")

    made: Asked = pytest_twisted.blockon(Deferred.fromCoroutine(begin()))
    return made


@pytest_twisted.ensureDeferred
async def test_projects_and_files_are_listed(asked: Asked) -> None:
    listed = await asked("ls")
    used = [each.pop("last_used") for each in listed]
    assert listed == [
        {"index": "pypi", "project": "attrs", "files": 1, "bytes": 3_000, "missing": 0, "unreadable": 0},
        {"index": "pypi", "project": "six", "files": 2, "bytes": 3_000, "missing": 0, "unreadable": 0},
    ]
    assert used == [max(each["last_used"] for each in await asked("ls", project=name)) for name in ("attrs", "six")]
    old, new = await asked("ls", project="Six")
    assert (old["filename"], old["version"], old["size"], old["sha256"]) == (OLD, "1.0", 1_000, sha256(OLD))
    assert (new["filename"], new["stored"], new["pinned"]) == (NEW, True, False)
    assert old["last_used"] >= old["committed_at"] - 1
    with pytest.raises(asking.OperationFailed, match=r"^nothing of flask is stored here$"):
        await asked("ls", project="flask")
    with pytest.raises(asking.OperationFailed, match="there is no index named 'corp' here; there is pypi"):
        await asked("ls", index="corp")


@pytest_twisted.ensureDeferred
async def test_files_that_may_not_be_read_are_neither_stored_nor_missing(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_read(monkeypatch, {asked.data_dir / "files" / sha256(OLD)[:2] / sha256(OLD)}, set())
    refuse_to_read(monkeypatch, set(), {asked.data_dir / "files" / sha256("attrs-1.0.tar.gz")[:2]})

    async def printed(*command: str) -> list[str]:
        arguments = [*command, "--data-dir", str(asked.data_dir)]
        result = await deferToThread(CliRunner().invoke, main, arguments)
        lines: list[str] = result.output.splitlines()
        return lines

    (old, new) = await asked("ls", project="six")
    assert (old["stored"], old["unreadable"], new["stored"], new["unreadable"]) == (False, "Permission denied", True, None)
    heading, attrs, six, totals = await printed("ls")
    assert totals == "2 projects, 1 file, 2.0 kB"
    assert heading.split("missing")[1].strip() == "cannot be read"
    assert (attrs.split()[2:], six.split()[2:]) == (["0", "0", "B", "0", "1"], ["1", "2.0", "kB", "0", "1"])
    assert (await printed("ls", "six"))[1].endswith("cannot be read (Permission denied)")
    assert (await asked("stats"))["missing"] == 0
    assert "cannot be read        2 files (Permission denied)" in await printed("stats")
    *problems, sums = await printed("verify")
    assert {problem.split()[0] for problem in problems} == {"unreadable"}
    assert {problem.rpartition("): ")[2] for problem in problems} == {
        "cannot be read (Permission denied); check its owner and mode"
    }
    assert sums == "1 file read, 2.0 kB: 0 damaged, 0 missing, 0 orphaned, 2 that cannot be read; 0 repaired"
    *problems, sums = await printed("verify", "--repair")
    assert [
        problem for problem in problems if "not repaired" in problem and "cannot be read (Permission denied) or repl" in problem
    ]
    assert sums.endswith("2 that cannot be read; 0 repaired")


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, files: set[Path], folders: set[Path]) -> None:
    """Have *files*, and all that is in *folders*, be those of a user who lets nobody read them, for root may read all."""
    opened, scanned = os.open, os.scandir

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and (Path(path) in files or {Path(path), Path(path).parent} & folders):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def open_(path: Any, *arguments: Any, **more: Any) -> int:
        refuse(path)
        return opened(path, *arguments, **more)

    def scandir(path: Any) -> Any:
        refuse(path)
        return scanned(path)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "scandir", scandir)


@pytest_twisted.ensureDeferred
async def test_a_name_without_its_bytes_is_missing_and_bytes_without_a_name_are_unnamed(asked: Asked) -> None:
    folder = asked.data_dir / "files" / sha256(OLD)[:2]
    (folder / sha256(OLD)).unlink()
    nobodys = hashlib.sha256(b"nobody's").hexdigest()
    (asked.data_dir / "files" / nobodys[:2]).mkdir(exist_ok=True)
    (asked.data_dir / "files" / nobodys[:2] / nobodys).write_bytes(b"nobody's")
    sums = await asked("stats")
    assert (sums["missing"], sums["unnamed"]) == (1, {"files": 1, "bytes": 8})
    assert [each["stored"] for each in await asked("ls", project="six")] == [False, True]
    assert (await asked("ls"))[1]["missing"] == 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("operation", ["ls", "purge", "refresh", "pin", "unpin"])
async def test_what_is_no_name_of_a_project_is_refused(
    upstream: FakeUpstream, run: Start, tmp_path: Path, operation: str
) -> None:
    asked = Asked(await run(upstream), tmp_path / "data")
    with pytest.raises(asking.OperationFailed, match=r"'\.\./six' is no name of a project"):
        await asked(operation, project="../six")
    assert upstream.asked == []


@pytest_twisted.ensureDeferred
async def test_everything_is_summed_up(asked: Asked) -> None:
    await asked.proxy.page("six")
    sums = await asked("stats", top=1)
    assert (sums["files"], sums["bytes"], sums["projects"], sums["pages"]) == (3, 6_000, 2, 2)
    assert sums["oldest"] <= sums["newest"]
    assert [each["project"] for each in sums["largest"]] == ["attrs"]
    assert sums["free"] > 0
    assert sums["answered"]["pypi"]["files"]["miss"] == 3
    assert sums["answered"]["pypi"]["simple"]["hit"] >= 1


@pytest_twisted.ensureDeferred
async def test_hits_are_counted_by_index_also_those_of_the_hot_table(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    indexes = tuple(IndexSettings(name=name, upstreams=("up",), default=name == "a") for name in ("a", "b"))
    proxy = await run(upstream_settings(stocked.url, "up"), indexes=indexes)
    for path in ("/simple/six/", "/index/b/simple/six/", "/index/b/simple/six/", "/index/b/simple/six/", "/nothing", "/"):
        await proxy.get(path)
    answered = (await Asked(proxy, tmp_path / "data")("stats"))["answered"]
    assert answered == {"a": {"simple": {"miss": 1}}, "b": {"simple": {"miss": 1, "hit": 2}}}


@pytest_twisted.ensureDeferred
async def test_bytes_that_clients_were_sent_from_the_cache_are_counted(asked: Asked) -> None:
    path = await asked.proxy.link("six", NEW)
    before = (await asked("stats"))["saved"]
    for _ in range(3):
        await asked.proxy.get(path)
    sums = await asked("stats")
    assert sums["saved"] - before == 3 * len(DATA[NEW])
    assert sums["running_since"] <= sums["newest"]


# -- purge -----------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("which", ["1.0", OLD])
async def test_one_version_goes_and_the_rest_stays(asked: Asked, which: str) -> None:
    gone = await asked("purge", project="SIX", which=which)
    assert [each["filename"] for each in gone["removed"]] == [OLD]
    assert (gone["files"], gone["bytes"], gone["pages"]) == (1, 1_000, [])
    assert asked.on_disk() == {sha256(NEW), sha256("attrs-1.0.tar.gz")}
    assert [each["filename"] for each in await asked("ls", project="six")] == [NEW]
    with pytest.raises(asking.OperationFailed, match=f"no {which} of six is kept here"):
        await asked("purge", project="six", which=which)
    path = await asked.proxy.link("six", OLD)
    assert "fwd=miss" in (await asked.proxy.get(path)).headers["cache-status"]


@pytest_twisted.ensureDeferred
async def test_a_project_goes_with_its_page(asked: Asked, stocked: FakeUpstream) -> None:
    gone = await asked("purge", project="six")
    assert (gone["files"], gone["pages"]) == (2, [{"index": "pypi", "project": "six"}])
    assert asked.on_disk() == {sha256("attrs-1.0.tar.gz")}
    assert [each["project"] for each in await asked("ls")] == ["attrs"]
    before = stocked.count("/simple/six/")
    await asked.proxy.page("six")
    assert stocked.count("/simple/six/") == before + 1


@pytest_twisted.ensureDeferred
async def test_a_pinned_file_keeps_its_page_and_is_served_while_upstream_is_down(asked: Asked, stocked: FakeUpstream) -> None:
    await asked("pin", project="six", which="2.0")
    gone = await asked("purge", project="six")
    assert (gone["pages"], gone["pages_kept"]) == ([], [{"index": "pypi", "project": "six"}])
    assert [each["filename"] for each in gone["removed"]] == [OLD]
    await stocked.down()
    assert (await asked.proxy.get(await asked.proxy.link("six", NEW))).body == DATA[NEW]
    with pytest.raises(asking.OperationFailed, match=r"^no 1\.0 of six is kept here$"):
        await asked("purge", project="six", which="1.0")
    gone = await asked("purge", project="six", page_only=True)
    assert (gone["pages"], gone["pages_kept"]) == ([{"index": "pypi", "project": "six"}], [])


@pytest_twisted.ensureDeferred
async def test_a_dry_run_tells_what_a_purge_removes_and_removes_nothing(asked: Asked, stocked: FakeUpstream) -> None:
    await asked("pin", project="six", which="2.0")
    for arguments in (
        {"project": "six"},
        {"project": "six", "which": "1.0"},
        {"project": "attrs"},
        {"project": "attrs", "page_only": True},
    ):
        before, listed = asked.on_disk(), await asked("ls")
        foretold = await asked("purge", dry=True, **arguments)
        assert (asked.on_disk(), await asked("ls")) == (before, listed)
        assert "hit" in (await asked.proxy.get(f"/simple/{arguments['project']}/")).headers["cache-status"]
        gone = await asked("purge", **arguments)
        assert foretold == {**gone, "dry": True}
        assert gone["dry"] is False
        # What went is fetched again for the next round.
        for filename in (OLD, "attrs-1.0.tar.gz"):
            await asked.proxy.get(await asked.proxy.link(filename.partition("-")[0], filename))
    with pytest.raises(asking.OperationFailed, match="no thing of nobody is kept here"):
        await asked("purge", project="nobody", dry=True)


@pytest_twisted.ensureDeferred
async def test_a_dry_run_tells_which_files_were_not_used_for_long(asked: Asked) -> None:
    now = asked.proxy.service.administration.working.reactor.seconds()
    await asked.proxy.service.caches.usage.write()
    unnamed = asked.data_dir / "files" / "ab" / ("ab" * 32)
    unnamed.parent.mkdir(exist_ok=True)
    unnamed.write_bytes(b"no name")
    for path in (asked.data_dir / "files" / sha256(OLD)[:2] / sha256(OLD), unnamed):
        os.utime(path, (now - 10_000, now - 10_000))
    before = asked.on_disk()
    foretold = await asked("purge_unused", seconds=5_000, dry=True)
    assert asked.on_disk() == before
    assert ([each["filename"] for each in foretold["removed"]], foretold["files"], foretold["bytes"]) == ([OLD], 2, 1_007)
    assert foretold == {**await asked("purge_unused", seconds=5_000), "dry": True}


@pytest_twisted.ensureDeferred
async def test_what_stands_beside_a_page_goes_with_it(asked: Asked, stocked: FakeUpstream) -> None:
    for project in ("six", "attrs"):
        assert (await asked.proxy.get(f"/pypi/{project}/json")).status == 200
    assert stocked.count("/pypi/*") == 2
    await asked("purge", project="six", page_only=True)
    for project in ("six", "attrs"):
        assert (await asked.proxy.get(f"/pypi/{project}/json")).status == 200
    assert [each.path for each in stocked.asked if each.path.startswith("/pypi/")].count("/pypi/six/json") == 2
    assert stocked.count("/pypi/*") == 3


@pytest_twisted.ensureDeferred
async def test_a_small_file_that_went_is_not_answered_from_memory(asked: Asked) -> None:
    path = await asked.proxy.link("six", OLD)
    for _ in range(3):
        assert "hit" in (await asked.proxy.get(path)).headers["cache-status"]
    await asked("purge", project="six", which=OLD)
    assert "fwd=miss" in (await asked.proxy.get(path)).headers["cache-status"]


@pytest_twisted.ensureDeferred
async def test_a_page_goes_alone(asked: Asked, stocked: FakeUpstream) -> None:
    gone = await asked("purge", project="six", page_only=True)
    assert (gone["removed"], gone["pages"]) == ([], [{"index": "pypi", "project": "six"}])
    assert len(asked.on_disk()) == 3
    with pytest.raises(asking.OperationFailed, match="no page of six is kept here"):
        await asked("purge", project="six", page_only=True)
    before = stocked.count("/simple/six/")
    assert "fwd=miss" in (await asked.proxy.get("/simple/six/")).headers["cache-status"]
    assert stocked.count("/simple/six/") == before + 1


@pytest_twisted.ensureDeferred
async def test_after_a_purge_the_bytes_that_upstream_has_now_are_accepted(asked: Asked, stocked: FakeUpstream) -> None:
    """What the log tells operators to do when a file changed upstream."""
    changed = data_of(1_500, 9)
    stocked.add_file("six", OLD, changed)
    await asked("refresh", project="six")
    pinned = await asked.proxy.link("six", OLD)
    assert sha256(OLD) in pinned
    assert (await asked.proxy.get(pinned)).body == DATA[OLD]
    await asked("purge", project="six", which=OLD)
    link = await asked.proxy.link("six", OLD)
    assert hashlib.sha256(changed).hexdigest() in link
    assert (await asked.proxy.get(link)).body == changed
    assert (await asked.proxy.get(pinned)).status in (404, 409)


@pytest_twisted.ensureDeferred
async def test_bytes_stay_as_long_as_another_name_stands_for_them(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    indexes = tuple(IndexSettings(name=name, upstreams=("up",), default=name == "a") for name in ("a", "b"))
    proxy = await run(upstream_settings(stocked.url, "up"), indexes=indexes)
    asked = Asked(proxy, tmp_path / "data")
    path = await proxy.link("six", OLD)
    for each in (path, f"/index/b{path}"):
        assert (await proxy.get(each)).status == 200
    gone = await asked("purge", project="six", index="a")
    assert ([each["index"] for each in gone["removed"]], gone["files"]) == (["a"], 0)
    assert asked.on_disk() == {sha256(OLD)}
    gone = await asked("purge", project="six")
    assert ([each["index"] for each in gone["removed"]], gone["files"]) == (["b"], 1)
    assert asked.on_disk() == set()


@pytest_twisted.ensureDeferred
async def test_an_index_that_was_removed_stays_known_until_it_is_forgotten(
    stocked: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    both = tuple(IndexSettings(name=name, upstreams=("up",), default=name == "a") for name in ("a", "b"))
    proxy = await run(upstream_settings(stocked.url, "up"), indexes=both)
    asked = Asked(proxy, tmp_path / "data")
    six, attrs = await proxy.link("six", OLD), await proxy.link("attrs", "attrs-1.0.tar.gz")
    new = await proxy.link("six", NEW)
    for path in (six, *(f"/index/b{each}" for each in (six, attrs, new))):
        assert (await proxy.get(path)).status == 200
    await asked("pin", project="attrs", index="b")
    await asked("pin", project="six", index="b", future=True)
    with pytest.raises(asking.OperationFailed, match="the index b is configured"):
        await asked("purge_index", index="b")
    await proxy.stop()

    asked = Asked(await run(upstream_settings(stocked.url, "up"), indexes=both[:1]), tmp_path / "data")
    assert [(each["index"], each["project"]) for each in await asked("ls")] == [("a", "six"), ("b", "attrs"), ("b", "six")]
    assert {each["index"] for each in await asked("pins")} == {"b"}
    # The bytes are there, whatever index has fetched them.
    before = stocked.count("/files/*")
    assert (await asked.proxy.get(attrs)).status == 200
    assert stocked.count("/files/*") == before
    foretold = await asked("purge_index", index="b", dry=True)
    assert len(await asked("ls")) == 4
    gone = await asked("purge_index", index="b")
    assert foretold == {**gone, "dry": True}
    assert [each["filename"] for each in gone["removed"]] == ["attrs-1.0.tar.gz", OLD, NEW]
    assert (gone["files"], gone["bytes"]) == (1, 2_000)
    assert [each["project"] for each in gone["pages"]] == ["attrs", "six"]
    assert asked.on_disk() == {sha256(OLD), sha256("attrs-1.0.tar.gz")}
    assert await asked("pins") == []
    assert [(each["index"], each["project"]) for each in await asked("ls")] == [("a", "attrs"), ("a", "six")]
    with pytest.raises(asking.OperationFailed, match="nothing is known of an index named 'b'"):
        await asked("purge_index", index="b")
    assert "hit" in (await asked.proxy.get(six)).headers["cache-status"]


@pytest_twisted.ensureDeferred
async def test_a_file_of_which_only_the_metadata_is_stored_is_not_pinned(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    there, absent = wheel("lib", "1.0"), wheel("lib", "2.0")
    for each in (there, absent):
        upstream.add_file("lib", each.filename, each.data, metadata=each.metadata)
    asked = Asked(await run(upstream), tmp_path / "data")
    path = await asked.proxy.link("lib", absent.filename)
    assert (await asked.proxy.get(f"{path}.metadata")).body == absent.metadata
    with pytest.raises(asking.OperationFailed, match="nothing of lib is stored yet"):
        await asked("pin", project="lib")
    path = await asked.proxy.link("lib", there.filename)
    for body, end in ((there.data, ""), (there.metadata, ".metadata")):
        assert (await asked.proxy.get(path + end)).body == body
    assert [each["filename"] for each in await asked("pin", project="lib")] == [there.filename]
    (pinned,) = await asked("pins")
    assert pinned["size"] == len(there.data) + len(there.metadata)
    (asked.data_dir / "files" / there.sha256[:2] / there.sha256).unlink()
    (pinned,) = await asked("pins")
    assert (pinned["filename"], pinned["size"]) == (there.filename, None)


@pytest_twisted.ensureDeferred
async def test_what_is_pinned_stays(asked: Asked) -> None:
    assert await asked("pin", project="six", which="1.0") == [{"index": "pypi", "project": "six", "filename": OLD}]
    gone = await asked("purge", project="six")
    assert [each["filename"] for each in gone["removed"]] == [NEW]
    assert [each["filename"] for each in gone["pinned"]] == [OLD]
    assert sha256(OLD) in asked.on_disk()
    (row,) = await asked("ls", project="six")
    assert (row["filename"], row["pinned"]) == (OLD, True)
    assert [each["filename"] for each in await asked("pins")] == [OLD]
    await asked("unpin", project="six")
    assert await asked("pins") == []
    assert (await asked("purge", project="six"))["files"] == 1


@pytest_twisted.ensureDeferred
async def test_what_was_not_used_for_long_goes(asked: Asked) -> None:
    now = asked.proxy.service.administration.working.reactor.seconds()
    await asked("pin", project="attrs")
    await asked.proxy.service.caches.usage.write()
    for filename in (OLD, "attrs-1.0.tar.gz"):
        digest = sha256(filename)
        os.utime(asked.data_dir / "files" / digest[:2] / digest, (now - 10_000, now - 10_000))
    gone = await asked("purge_unused", seconds=5_000)
    assert ([each["filename"] for each in gone["removed"]], gone["files"], gone["bytes"]) == ([OLD], 1, 1_000)
    assert [each["filename"] for each in gone["pinned"]] == ["attrs-1.0.tar.gz"]
    assert asked.on_disk() == {sha256(NEW), sha256("attrs-1.0.tar.gz")}
    assert (await asked("purge_unused", seconds=5_000))["files"] == 0


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_removed_is_reported_and_the_others_go(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = asked.data_dir / "files" / sha256(OLD)[:2] / sha256(OLD)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path == stuck:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    gone = await asked("purge", project="six")
    assert {each["filename"] for each in gone["removed"]} == {OLD, NEW}
    assert gone["files"] == 1
    (left,) = gone["left"]
    assert (left["sha256"], left["size"]) == (sha256(OLD), 1_000)
    assert left["error"].startswith(f"{stuck} cannot be removed: Permission denied")
    assert asked.on_disk() == {sha256(OLD), sha256("attrs-1.0.tar.gz")}
    gone = await asked("purge_unused", seconds=-1)
    assert (gone["files"], [each["sha256"] for each in gone["left"]]) == (1, [sha256(OLD)])
    with pytest.raises(asking.OperationFailed, match=r"^no thing of six is kept here$"):
        await asked("purge", project="six")


@pytest_twisted.ensureDeferred
async def test_what_is_no_file_any_more_does_not_stop_a_purge(asked: Asked) -> None:
    directory, beneath_a_file = (asked.data_dir / "files" / sha256(name)[:2] for name in (OLD, NEW))
    (directory / sha256(OLD)).unlink()
    (directory / sha256(OLD)).mkdir()
    shutil.rmtree(beneath_a_file)
    beneath_a_file.write_bytes(b"")
    gone = await asked("purge", project="six")
    assert ({each["filename"] for each in gone["removed"]}, gone["left"]) == ({OLD, NEW}, [])
    assert not (directory / sha256(OLD)).exists()


@pytest_twisted.ensureDeferred
async def test_a_purge_makes_its_own_room_on_a_full_disk(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither database takes a change before bytes are gone."""
    stored = [asked.data_dir / "files" / sha256(name)[:2] / sha256(name) for name in (OLD, NEW)]

    def when_there_is_room(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            if all(each.exists() for each in stored):
                raise sqlite3.OperationalError("database or disk is full")
            return real(*arguments, **options)

        return change

    monkeypatch.setattr(Table, "apply_each", when_there_is_room(Table.apply_each))
    monkeypatch.setattr(Cache, "delete", when_there_is_room(Cache.delete))
    gone = await asked("purge", project="six")
    assert {each["filename"] for each in gone["removed"]} == {OLD, NEW}
    assert (gone["files"], gone["left"]) == (2, [])
    assert not any(each.exists() for each in stored)
    assert [each["project"] for each in await asked("ls")] == ["attrs"]


@pytest.mark.parametrize("which", [None, "1.0"])
@pytest_twisted.ensureDeferred
async def test_that_a_wheel_has_no_metadata_is_forgotten_with_it(
    upstream: FakeUpstream, run: Start, tmp_path: Path, which: str | None
) -> None:
    good = wheel("lib")
    odd = io.BytesIO()
    with zipfile.ZipFile(odd, "w") as archive:
        archive.writestr("lib.py", b"pass")
    upstream.add_file("lib", good.filename, odd.getvalue(), hashes={})
    proxy = await run(upstream)
    asked = Asked(proxy, tmp_path / "data")
    path = f"{await proxy.link('lib', good.filename)}.metadata"
    assert (await proxy.get(path)).status == 404
    upstream.add_file("lib", good.filename, good.data, hashes={})
    await asked("refresh", project="lib")
    assert (await proxy.get(path)).status == 404
    gone = await asked("purge", project="lib", which=which)
    assert f"{good.filename}.metadata" in [each["filename"] for each in gone["removed"]]
    reply = await proxy.get(path)
    assert (reply.status, reply.body) == (200, good.metadata)


# -- refresh ---------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_page_is_asked_for_again_and_the_change_is_told(asked: Asked, stocked: FakeUpstream) -> None:
    assert [each["outcome"] for each in await asked("refresh", project="six")] == ["unchanged"]
    stocked.add_file("six", "six-3.0.tar.gz", b"three")
    assert [each["outcome"] for each in await asked("refresh", project="Six")] == ["changed"]
    assert len((await asked.proxy.page("six"))["files"]) == 3
    await stocked.down()
    (failed,) = await asked("refresh", project="six")
    assert failed["outcome"] == "failed"
    assert failed["error"].startswith("cannot fetch the page of six: up0: ")
    assert len((await asked.proxy.page("six"))["files"]) == 3


@pytest_twisted.ensureDeferred
async def test_of_several_indexes_only_those_that_keep_the_page_ask_for_it(
    stocked: FakeUpstream, make_upstream: Callable[..., FakeUpstream], run: Start, tmp_path: Path
) -> None:
    public = make_upstream()
    settings = (upstream_settings(stocked.url, "corp"), upstream_settings(public.url, "public"))
    limits = PageLimits(soft_deadline=0.1)
    indexes = tuple(IndexSettings(name=name, upstreams=(name,), limits=limits) for name in ("corp", "public"))
    proxy = await run(*settings, indexes=indexes)
    asked = Asked(proxy, tmp_path / "data")
    with pytest.raises(asking.OperationFailed, match="no index keeps a page of six: name the index to fetch it from"):
        await asked("refresh", project="six")
    assert [each["outcome"] for each in await asked("refresh", project="six", index="corp")] == ["new"]
    assert [each["index"] for each in await asked("refresh", project="six")] == ["corp"]
    assert public.asked == []


# -- as processes, with a proxy and without ----------------------------------------------------------------------------------


async def fetch(proxy: ProxyProcess, filename: str) -> None:
    project = filename.partition("-")[0]
    page = (await wire.fetch(proxy.port, f"/simple/{project}/", Accept="application/vnd.pypi.simple.v1+json")).json
    (url,) = [each["url"] for each in page["files"] if each["filename"] == filename]
    reply = await wire.fetch(proxy.port, "/" + url.removeprefix("../../"))
    assert reply.body == DATA[filename]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("running", [True, False], ids=["running", "not running"])
async def test_commands_say_the_same_whether_the_proxy_runs_or_not(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path, running: bool
) -> None:
    config = f'[upstream.up]\nurl = "{stocked.url}"\n[[index]]\nname = "pypi"\nupstreams = ["up"]\n'
    proxy = await make_proxy(config=f'[server]\nmax_size = "1MB"\n{config}').started()
    for filename in DATA:
        await fetch(proxy, filename)
    if not running:
        await proxy.stop()
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))

    assert [each["project"] for each in await operator.lines("ls")] == ["attrs", "six"]
    heading, *rows = (await operator.run("ls")).output.splitlines()
    assert heading.split() == ["index", "project", "files", "bytes", "missing"]
    assert rows == [
        "pypi   attrs        1  3.0 kB        0",
        "pypi   six          2  3.0 kB        0",
        "2 projects, 3 files, 6.0 kB",
    ]
    assert (await operator.run("ls", "--quiet", "s*")).output.splitlines() == [rows[1]]
    assert [each["filename"] for each in await operator.lines("ls", "six", "--sort", "size")] == [NEW, OLD]
    used = [each["last_used"] for each in await operator.lines("ls", "--sort", "used")]
    assert used == sorted(used, reverse=True)
    ended = await operator.run("ls", "acme-*")
    assert (ended.status, ended.output.startswith("no stored project has a name that matches 'acme-*'")) == (1, True)
    rows = (await operator.run("ls", "six")).output.splitlines()
    assert rows[1].split()[:5] == ["pypi", OLD, "1.0", "1.0", "kB"]
    assert rows[1].endswith(" stored")
    assert rows[-1] == "2 files, 3.0 kB"

    sums = await operator.json("stats")
    assert (sums["files"], sums["answered"] is None) == (3, not running)
    told = (await operator.run("stats")).output
    pairs = dict(re.split(r"  +", line, maxsplit=1) for line in told.partition("\n\n")[0].splitlines())
    assert (pairs["directory"], pairs["version"]) == (str(proxy.data_dir), __version__)
    assert pairs["stored files"] == "3, 6.0 kB (1 % of max_size, 1.0 MB)"
    assert (pairs["missing files"], pairs["orphaned files"]) == ("0", "0, 0 B")
    assert ("bytes saved" in pairs) is running
    assert sums["running_since"] is None or sums["running_since"] < sums["newest"]
    assert ("the proxy does not run" in told) is not running
    assert ("0.0 % of 3\n" in told) is running

    assert (await operator.run("refresh", "six")).output == "pypi: six: unchanged\n"
    assert (await operator.run("purge", "attrs", "--dry-run")).output == (
        "would remove pypi: attrs-1.0.tar.gz\nwould remove pypi: the page of attrs\n"
        "1 file would be removed from the disk, 3.0 kB\n"
        "the first-seen digests of 1 name would be forgotten: whatever upstream offers under them next is accepted\n"
        "nothing was removed (--dry-run)\n"
    )
    assert (await operator.run("pin", "six", "2.0")).output == f"{NEW} (pypi)\n1 file pinned\n"
    assert NEW in (await operator.run("pins")).output
    ended = await operator.run("purge", "six")
    assert ended.status == 1
    assert ended.output == (
        f"removed pypi: {OLD}\n1 file removed from the disk, 1.0 kB\n"
        "the first-seen digests of 1 name are forgotten: whatever upstream offers under them next is accepted\n"
        f"pinned and left: {NEW}; pypiproxy unpin six lets them go\n"
        "kept pypi: the page of six: without it its pinned files cannot be installed while upstream is down\n"
    )
    ended = await operator.run("purge", "six", "--page")
    assert (ended.status, ended.output) == (0, "removed pypi: the page of six\n")
    assert (await operator.run("unpin", "six")).output == f"{NEW} (pypi)\n1 file unpinned\n"
    assert (await operator.json("purge", "six", NEW))["files"] == 1
    assert (await operator.run("purge", "--unused-for", "90d")).output == "0 files removed from the disk, 0 B\n"
    assert (await operator.json("purge", "--unused-for", "0s"))["files"] == 1
    assert list(proxy.data_dir.glob("files/*/*")) == []
    ended = await operator.run("refresh", "nonsense")
    assert (ended.status, ended.output) == (1, "pypi: nonsense: missing: upstream has no such project\n")
    await stocked.down()
    ended = await operator.run("refresh", "attrs")
    assert ended.status == 1
    assert "cannot fetch the page of attrs: up: connection refused" in ended.output
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_directory_that_another_process_works_on_is_left_alone(data_dir: Path, tmp_path: Path) -> None:
    claim = datadir.claim(data_dir)
    try:
        ended = await Operator(tmp_path, data_dir).run("ls")
    finally:
        claim.release()
    assert ended.status == 1
    assert ended.output == (
        f"{data_dir}: process {os.getpid()} works on it and answers no commands: "
        "a proxy that starts or stops, or another command; try again when it is done\n"
    )


@pytest_twisted.ensureDeferred
async def test_a_command_alone_makes_no_socket_and_keeps_proxies_away_only_as_long_as_it_runs(
    data_dir: Path, tmp_path: Path
) -> None:
    ended = await Operator(tmp_path, data_dir).run("ls")
    assert (ended.status, ended.output.splitlines()) == (
        0,
        ["index  project  files  bytes  missing", "0 projects, 0 files, 0 B"],
    )
    assert not (data_dir / "admin.sock").exists()
    datadir.claim(data_dir).release()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected either a PROJECT or --unused-for DURATION"),
        (["six", "--unused-for", "90d"], "expected either a PROJECT or --unused-for DURATION"),
        (["--unused-for", "soon"], "'soon' is no duration; expected one such as 90d, 12h or 1h30m"),
        (["--unused-for", "1d", "--page"], "--page is about the page of a whole PROJECT"),
        (["six", "1.0", "--page"], "--page is about the page of a whole PROJECT"),
        (["--unused-for", "1d", "--index", "pypi"], "--index says nothing there"),
        (["--all"], "name it with --index, alone"),
        (["six", "--all", "--index", "pypi"], "name it with --index, alone"),
    ],
)
def test_purge_wants_to_know_exactly_what(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["purge", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
