"""Data directories of earlier versions are brought into the present format; no version takes one that it does not know.

``data/format-0.tar.xz`` was written by the last version before the ledger: three files of two projects, two with metadata, one
of them pinned.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest
import pytest_twisted
from twisted.logger import LogEvent

from proxy.errors import ConfigError
from proxy.host import datadir
from proxy.mechanism.offload import Inline
from proxy.storage.records import DiskRecords
from tests.inprocess import Start
from tests.support import process
from tests.support.fake_upstream import FakeUpstream
from tests.support.migrating import contents, extracted, format_0
from tests.support.operator import Operator
from tests.support.wheels import data_of, wheel
from tests.test_stores import now

ARCHIVE = Path(__file__).parent / "data" / "format-0.tar.xz"
SIX, SEVEN = wheel("six"), wheel("seven")
SDIST, SDIST_DATA = "six-0.9.tar.gz", data_of(3000, 1)
ENTRIES = {
    f"pypi/six/{SIX.filename}": SIX.sha256,
    f"pypi/six/{SDIST}": hashlib.sha256(SDIST_DATA).hexdigest(),
    f"pypi/seven/{SEVEN.filename}": SEVEN.sha256,
    f"pypi/six/sha256-{SIX.sha256}/{SIX.filename}.metadata": hashlib.sha256(SIX.metadata).hexdigest(),
    f"pypi/seven/sha256-{SEVEN.sha256}/{SEVEN.filename}.metadata": hashlib.sha256(SEVEN.metadata).hexdigest(),
}
PINNED = sorted(f"{SEVEN.filename} {digest}" for name, digest in ENTRIES.items() if name.startswith("pypi/seven/"))
#: What is there afterwards, beside what every start makes.
AFTERWARDS = {"backup-format-0", "files", "instance", "ledger", "ledger-copy", "lock", "records"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return extracted(ARCHIVE, tmp_path / "data")


def test_what_an_earlier_version_knew_is_in_the_ledger(old: Path, logged: list[LogEvent]) -> None:
    name = (old / "instance").read_text()
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}
    assert (old / "instance").read_text() == f"{name}format 1\n"
    assert AFTERWARDS <= set(os.listdir(old)) <= {*AFTERWARDS, "partial", "lists"}
    (told,) = [event for event in logged if "format 1" in event["log_format"]]
    assert (told["entries"], told["projects"], told["backup"]) == (5, 2, str(old / "backup-format-0"))
    records = DiskRecords(old / "records", Inline())
    assert [key for key in now(records.keys("")) if not key.startswith(("page1/", "document1/", "projects1/", "missing"))] == []
    now(records.close())
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}


def test_the_backup_is_what_the_earlier_version_goes_on_with(old: Path) -> None:
    datadir.claim(old).release()
    backup = DiskRecords(old / "backup-format-0" / "pins", Inline())
    assert now(backup.keys("")) == ["kept", "pins/pypi/seven", "pins/pypi/six"]
    assert SIX.sha256.encode() in now(backup.get("pins/pypi/six"))
    now(backup.close())


@pytest.mark.parametrize("lost", ["records", "pins"])
def test_one_of_the_two_old_databases_is_enough(old: Path, lost: str) -> None:
    (old / lost / "cache.db").write_bytes(b"no database" * 1000)
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}


def entry(digit: str, size: object = 1) -> dict[str, object]:
    return {"sha256": digit * 64, "size": size, "stated": {}, "url": "http://x/", "committed_at": 1.0}


def test_an_entry_that_makes_no_sense_costs_itself_and_its_bytes_are_in_the_backup(
    tmp_path: Path, logged: list[LogEvent]
) -> None:
    six = msgspec.msgpack.encode({"a.whl": entry("a"), "b.whl": entry("b", "3")})
    kept = msgspec.msgpack.encode([{"index": "pypi", "project": "six", "filename": "a.whl", "sha256": "a" * 64}, 7])
    values = {"pins/pypi/six": six, "pins/pypi/seven": b"nonsense", "kept": kept}
    old = format_0(tmp_path / "data", values)
    datadir.claim(old).release()
    assert contents(old) == {"entries": {"pypi/six/a.whl": "a" * 64}, "pinned": [f"a.whl {'a' * 64}"]}
    assert backup(old) == values
    told = {event["key"]: event["names"] for event in logged if "names" in event}
    assert told == {"pins/pypi/six": "b.whl", "pins/pypi/seven": "all", "kept": "number 1"}


def test_what_makes_no_sense_in_one_database_is_taken_from_the_other_one(tmp_path: Path) -> None:
    values = [
        {"a.whl": entry("a"), "b.whl": entry("b", "3")},
        {"a.whl": entry("a", "3"), "b.whl": entry("b"), "c.whl": entry("c")},
    ]
    first, second = ({"pins/pypi/six": msgspec.msgpack.encode(each)} for each in values)
    old = format_0(tmp_path / "data", first)
    shutil.rmtree(old / "pins")
    shutil.copytree(format_0(tmp_path / "other", second) / "pins", old / "pins")
    datadir.claim(old).release()
    assert contents(old)["entries"] == {"pypi/six/a.whl": "a" * 64, "pypi/six/b.whl": "b" * 64}
    assert backup(old) == first | {"unreadable/pins/pypi/six": second["pins/pypi/six"]}


def test_there_is_a_backup_if_nothing_can_be_read(tmp_path: Path) -> None:
    old = format_0(tmp_path / "data", {"pins/pypi/six": b"nonsense"})
    datadir.claim(old).release()
    assert contents(old) == {"entries": {}, "pinned": []}
    assert backup(old) == {"pins/pypi/six": b"nonsense"}


def backup(place: Path) -> dict[str, bytes]:
    records = DiskRecords(place / "backup-format-0" / "pins", Inline())
    found = {key: now(records.get(key)) for key in now(records.keys(""))}
    now(records.close())
    return found


def test_what_the_earlier_version_did_after_a_conversion_that_was_cut_short_counts(tmp_path: Path) -> None:
    def values(digit: str) -> dict[str, bytes]:
        return {"pins/pypi/six": msgspec.msgpack.encode({"a.whl": entry(digit)})}

    old = format_0(tmp_path / "data", values("a"))
    datadir.claim(old).release()
    format_0(old, values("b"))  # it goes on, with a ledger that is not its own
    datadir.claim(old).release()
    assert contents(old)["entries"] == {"pypi/six/a.whl": "b" * 64}
    format_0(old, {})
    datadir.claim(old).release()
    assert contents(old)["entries"] == {}


def test_a_ledger_without_a_marker_is_kept(old: Path) -> None:
    """As in a copy of the directory that is to be a proxy of its own, even if something is left of the earlier format."""
    datadir.claim(old).release()
    shutil.copytree(old / "backup-format-0" / "pins", old / "pins")
    records = DiskRecords(old / "pins", Inline())
    now(records.set("pins/pypi/six", msgspec.msgpack.encode({SIX.filename: entry("b")})))
    now(records.close())
    (old / "instance").unlink()
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}


@pytest_twisted.ensureDeferred
async def test_killed_at_any_point_nothing_is_lost(tmp_path: Path) -> None:
    points = 8
    command = [sys.executable, "-m", "tests.support.migrating", str(ARCHIVE), str(tmp_path), str(points)]
    ended = await process.run(command, process.environment(tmp_path), process.ROOT)
    assert ended.status == 0, ended.output
    reports = [json.loads(line) for line in ended.output.splitlines() if line.startswith("{")]
    assert len(reports) == points
    for report in reports:
        assert report["status"] == -9
        assert report["entries"] == ENTRIES
        assert report["pinned"] == PINNED
        assert set(report["left"]) >= AFTERWARDS
        assert "pins" not in report["left"]


@pytest_twisted.ensureDeferred
async def test_the_service_goes_on_where_the_earlier_version_ended(upstream: FakeUpstream, run: Start, old: Path) -> None:
    """With the bytes that it had, although upstream has others by now, and what was pinned."""
    upstream.add_file("six", SIX.filename, data_of(1000, 9))
    datadir.claim(old).release()
    proxy = await run(upstream)
    assert [file["hashes"]["sha256"] for file in (await proxy.page("six"))["files"]] == [SIX.sha256]
    assert (await proxy.get(await proxy.link("six", SIX.filename))).body == SIX.data
    assert (await proxy.get(await proxy.link("six", SIX.filename) + ".metadata")).body == SIX.metadata
    assert {each.filename for each in await proxy.service.caches.pinned.files()} == {SEVEN.filename}
    assert (await proxy.get("/-/ready")).body == b"ready\n"


def test_a_version_before_the_ledger_cannot_lock_the_directory(old: Path) -> None:
    """It opens ``lock`` like this, and ends with an error when that fails with EISDIR."""
    for place in (old, old.parent / "new"):
        claim = datadir.claim(place)
        with pytest.raises(IsADirectoryError):
            os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        claim.release()
        assert "Returning to an earlier version" in (place / "lock" / "README").read_text()


@pytest_twisted.ensureDeferred
async def test_a_newer_format_is_refused_and_left_alone(old: Path) -> None:
    (old / "instance").write_text("abc\nformat 2\n")
    before = sorted(old.rglob("*"))
    with pytest.raises(ConfigError, match=r"a newer version of pypiproxy wrote it \(format 2; this version knows 1\)"):
        datadir.claim(old)
    ended = await Operator(old.parent, old).run("ls")
    assert ended.status == 1
    assert "a newer version of pypiproxy wrote it" in ended.output
    assert sorted(old.rglob("*")) == before


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("marked", [True, False], ids=["marked", "without its marker"])
async def test_commands_that_only_read_say_that_the_directory_is_old_and_change_nothing(old: Path, marked: bool) -> None:
    if not marked:
        (old / "instance").unlink()
    (old.parent / "requirements.txt").write_text("six\n")
    operator, before = Operator(old.parent, old), snapshot(old)
    export = ("-o", str(old.parent / "bundle"))
    for command in (
        ("ls",),
        ("pins",),
        ("stats",),
        ("verify",),
        ("purge", "six", "--dry-run"),
        ("purge", "--unused-for", "1d", "--dry-run"),
        ("export", "--all", *export),
        ("export", "-r", "requirements.txt", *export),
    ):
        ended = await operator.run(*command)
        assert ended.status == 1
        assert f"{old}: it has the format of an earlier version of pypiproxy" in ended.output
        assert "start the proxy on it, or run a command that writes (import, pin, purge," in ended.output
        assert snapshot(old) == before
    assert (await operator.run("upstreams")).status == 1
    assert snapshot(old) == before


@pytest_twisted.ensureDeferred
async def test_a_command_that_writes_converts_the_directory(old: Path) -> None:
    assert (await Operator(old.parent, old).run("unpin", "seven")).status == 0
    assert contents(old) == {"entries": ENTRIES, "pinned": []}


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """All that is in *folder*: when it was written, and its bytes."""
    return {each: (each.stat().st_mtime_ns, each.read_bytes() if each.is_file() else b"") for each in folder.rglob("*")}


def test_a_directory_that_cannot_be_brought_up_is_left_as_it_was(old: Path) -> None:
    (old / "ledger").symlink_to(old / "nowhere" / "x")
    with pytest.raises(ConfigError, match="nothing in it was changed"):
        datadir.claim(old)
    assert (old / "lock").is_file()
    assert (old / "pins").is_dir()
    (old / "ledger").unlink()
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}


@pytest.mark.parametrize("blocked", ["ledger", "ledger-copy", "backup-format-0"])
def test_after_a_failure_nothing_is_left_that_takes_room(old: Path, blocked: str) -> None:
    (old / blocked).symlink_to(old / "nowhere" / "x")
    before = set(os.listdir(old))
    with pytest.raises(ConfigError, match="nothing in it was changed"):
        datadir.claim(old)
    assert set(os.listdir(old)) == before
    (old / blocked).unlink()
    datadir.claim(old).release()
    assert contents(old) == {"entries": ENTRIES, "pinned": PINNED}
