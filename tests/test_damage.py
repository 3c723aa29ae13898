"""No wrong byte: what is damaged on the disk, in partial files and by upstream, over HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from proxy.commands import asking
from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.digests import sha256_of
from tests.support.fake_upstream import FakeUpstream, Fault, Gate, Request
from tests.support.wheels import data_of, sdist, wheel

#: Answered from memory; checked before it is sent; sent while it is checked.
SIZES = {"small": 11_053, "medium": 300_718, "large": 17_000_000}
SIGN_IN = b"<!DOCTYPE html>\n<html><body>Your session has ended.</body></html>\n"


class Disk:
    """The files below a data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stored(self, data: bytes) -> Path:
        return self.folder / "files" / sha256_of(data)[:2] / sha256_of(data)

    def partial(self, data: bytes) -> Path:
        return self.folder / "partial" / f"sha256-{sha256_of(data)}"

    def kept(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self.folder.glob("files/*/*")}

    def left(self) -> list[str]:
        return sorted(each.name for each in (self.folder / "partial").iterdir())

    def quarantined(self) -> list[str]:
        return sorted(each.name for each in self.folder.glob("quarantine/*"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "data")


async def events(proxy: Running) -> str:
    return (await proxy.get("/-/metrics")).body.decode()


# -- stored files ------------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change a byte in the middle, as another process would: the time of change says so."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, (1_000_000_000, 1_000_000_000))


def flip_and_keep_times(path: Path) -> None:
    """Change a byte in the middle, and set the times that can be set to what they were."""
    facts = path.stat()
    flip(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_zeros(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.write_bytes(bytes(size))


@pytest.mark.parametrize("damage", [flip, flip_and_keep_times, cut, empty, lengthen, replace_by_a_folder, replace_by_zeros])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest_twisted.ensureDeferred
async def test_a_stored_file_that_was_damaged_is_set_aside_and_fetched_again(
    upstream: FakeUpstream,
    run: Start,
    disk: Disk,
    size: str,
    restarted: bool,
    damage: Callable[[Path], None],
    logged: list[LogEvent],
) -> None:
    data = data_of(SIZES[size])
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    assert (await proxy.get(path)).body == data
    if restarted:
        await proxy.stop()
        proxy = await run(upstream)
    damage(disk.stored(data))
    reply = await proxy.get(path)
    if size == "large" and damage in (flip, flip_and_keep_times, replace_by_zeros):
        assert not reply.complete, "the damage is found while it is sent, and its end is not"
        reply = await proxy.get(path)
    assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
    assert disk.kept() == {sha256_of(data): data}
    assert disk.quarantined() == [sha256_of(data)]
    assert upstream.count("/packages/*") == 2
    assert 'event="damaged file set aside"} 1.0' in await events(proxy)
    assert [event for event in logged if "is damaged" in str(event.get("log_format"))]


@pytest_twisted.ensureDeferred
async def test_what_is_in_memory_is_right_whatever_becomes_of_the_file(upstream: FakeUpstream, run: Start, disk: Disk) -> None:
    data = data_of(SIZES["small"])
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await proxy.get(path)
    flip(disk.stored(data))
    client = await wire.connect(proxy.port)
    for _ in range(4):
        client.ask(path)
        assert (await client.reply()).body == data
    await client.close()
    purged = await deferToThread(asking.ask, disk.folder, "purge", {"project": "big"}, lambda said: None)
    assert [each["filename"] for each in purged["removed"]] == ["big-1.0.tar.gz"]
    assert disk.kept() == {}
    await upstream.down()
    assert (await proxy.get(path)).status == 503, "nothing is left of it in memory"


@pytest_twisted.ensureDeferred
async def test_damaged_metadata_is_fetched_again(upstream: FakeUpstream, run: Start, disk: Disk) -> None:
    made = wheel("six", size=5_000)
    upstream.add_file("six", made.filename, made.data, metadata=made.metadata)
    proxy = await run(upstream)
    path = await proxy.link("six", made.filename) + ".metadata"
    assert (await proxy.get(path)).body == made.metadata
    empty(disk.stored(made.metadata))
    assert (await proxy.get(path)).body == made.metadata
    assert disk.kept() == {sha256_of(made.metadata): made.metadata}


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_that_cannot_be_set_aside_is_replaced(upstream: FakeUpstream, run: Start, disk: Disk) -> None:
    data = data_of(SIZES["medium"])
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await proxy.get(path)
    cut(disk.stored(data))
    (disk.folder / "quarantine").write_text("in the way")
    assert (await proxy.get(path)).body == data
    assert disk.kept() == {sha256_of(data): data}


@pytest.mark.parametrize("header", ["bytes=0-99", "bytes=8000000-8999999", "bytes=-100", "bytes=16999000-"])
@pytest_twisted.ensureDeferred
async def test_no_range_of_a_large_file_is_complete_before_the_file_was_checked(
    upstream: FakeUpstream, run: Start, disk: Disk, header: str
) -> None:
    data = data_of(SIZES["large"])
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await proxy.get(path)
    whole = await proxy.get(path, Range=header)
    assert (whole.status, whole.complete) == (206, True)
    flip(disk.stored(data))
    assert not (await proxy.get(path, Range=header)).complete
    again = await proxy.get(path, Range=header)
    assert (again.status, again.complete, again.body == whole.body) == (206, True, True)


def cut_short(path: Path) -> None:
    os.truncate(path, 1_000)


def write_into(path: Path) -> None:
    """Change a byte near the end in place: the file keeps its inode and its size."""
    with path.open("r+b") as file:
        file.seek(-5_000, os.SEEK_END)
        file.write(b"?")


@pytest.mark.parametrize("damage", [cut_short, write_into])
@pytest.mark.parametrize("header", [None, "bytes=100-"])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_damaged_while_it_is_sent_is_not_completed(
    upstream: FakeUpstream,
    run: Start,
    disk: Disk,
    logged: list[LogEvent],
    damage: Callable[[Path], None],
    header: str | None,
) -> None:
    data = data_of(SIZES["large"])
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await proxy.get(path)
    client = await wire.ask(proxy.port, path, **({} if header is None else {"Range": header}))
    await client.got_body(100_000)
    client.transport.pauseProducing()
    damage(disk.stored(data))
    client.transport.resumeProducing()
    await client.ended
    assert not wire.parse(bytes(client.received)).complete
    reply = await proxy.get(path)
    assert reply.body == data or not reply.complete
    assert (await proxy.get(path)).body == data
    assert not [event for event in logged if str(event.get("log_format")).startswith("bug:")]


# -- what earlier runs left ----------------------------------------------------------------------------------------------------


def too_long(data: bytes) -> bytes:
    return data + data_of(len(data), 7)


def wrong_at_full_length(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def of_another_file(data: bytes) -> bytes:
    return data_of(len(data) // 2, 9)


def half_damaged(data: bytes) -> bytes:
    return b"x" + data[1 : len(data) // 2]


@pytest.mark.parametrize("leave", [too_long, wrong_at_full_length, of_another_file, half_damaged])
@pytest.mark.parametrize("stated", ["size", "no size"])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_gone_on_with_is_fetched_from_its_first_byte(
    upstream: FakeUpstream,
    run: Start,
    disk: Disk,
    leave: Callable[[bytes], bytes],
    stated: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = data_of(200_000)
    keys: dict[str, Any] = {} if stated == "size" else {"size": None}
    upstream.add_file("big", "big-1.0.tar.gz", data, **keys)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    disk.partial(data).write_bytes(leave(data))
    truncate = os.ftruncate

    def slow(descriptor: int, size: int) -> None:
        time.sleep(0.05)  # in a worker thread, as a busy disk would
        truncate(descriptor, size)

    monkeypatch.setattr("proxy.storage.local.os.ftruncate", slow)
    reply = await proxy.get(path)
    assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
    assert (disk.kept(), disk.left()) == ({sha256_of(data): data}, [])


@pytest_twisted.ensureDeferred
async def test_what_was_damaged_after_an_interruption_is_cut_off_where_it_is_still_right(
    upstream: FakeUpstream, run: Start, disk: Disk
) -> None:
    data = data_of(6_000_000)
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    upstream.script("/packages/*", Fault(reset_after=5_000_000), times=1)
    upstream.script("/packages/*", Fault(status=503), times=10)
    assert not (await proxy.get(path)).complete
    left = bytearray(disk.partial(data).read_bytes())
    assert len(left) == 5_000_000
    left[4_500_000] ^= 1
    disk.partial(data).write_bytes(left)
    await proxy.stop()
    upstream.heal()
    proxy = await run(upstream)
    reply = await proxy.get(path)
    assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
    last = upstream.asked[-1].headers["range"]
    assert 1_000_000 < int(last.removeprefix("bytes=").removesuffix("-")) <= 4_500_000
    assert disk.left() == []


@pytest.mark.parametrize("stated", ["size", "no size"])
@pytest_twisted.ensureDeferred
async def test_one_answer_that_is_too_long_does_not_poison_a_file(
    upstream: FakeUpstream, run: Start, disk: Disk, stated: str
) -> None:
    data = data_of(11_053)
    keys: dict[str, Any] = {} if stated == "size" else {"size": None}
    upstream.add_file("big", "big-1.0.tar.gz", data, **keys)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    upstream.script("/packages/*", Fault(body=data_of(30_033, 3)), times=1)
    first = await proxy.get(path)
    assert first.status == 503 or not first.complete
    reply = await proxy.get(path)
    assert (reply.status, reply.body == data) == (200, True)
    assert disk.left() == []


@pytest.mark.parametrize(
    "refusal",
    [
        Fault(status=416),
        Fault(status=416, headers={"Content-Range": "bytes */1"}),
        Fault(status=206, body=b"other", headers={"Content-Range": "bytes 0-4/5"}),
        Fault(status=206, body=b"x" * 10, headers={"Content-Range": "bytes 500000-500009/500010"}),
        Fault(status=206, body=b"x" * 10),
        Fault(status=204),
    ],
    ids=["416", "416 of another size", "another range", "another size", "no Content-Range", "204"],
)
@pytest_twisted.ensureDeferred
async def test_an_upstream_that_cannot_go_on_is_asked_for_all_of_it(
    upstream: FakeUpstream, run: Start, disk: Disk, refusal: Fault
) -> None:
    data = data_of(1_000_000)
    upstream.add_file("big", "big-1.0.tar.gz", data, size=None)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    breaks = Gate()
    upstream.script("GET /packages/*", Fault(hold=breaks, hold_after=500_000, reset_after=500_000), times=1)
    upstream.script("GET /packages/*", Fault(status=503), times=10)
    client = await proxy.connect(path)
    await client.got_body(500_000)
    breaks.release()
    assert not (await client.reply()).complete
    await client.close()
    upstream.heal()
    assert disk.partial(data).stat().st_size == 500_000

    def goes_on(request: Request) -> bool:
        return request.headers.get("range") == "bytes=500000-"

    upstream.script(goes_on, refusal)
    await proxy.stop()
    proxy = await run(upstream)
    reply = await proxy.get(path)
    assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
    assert disk.left() == []


@pytest.mark.parametrize("hashes", [None, {}], ids=["digest", "no digest"])
@pytest_twisted.ensureDeferred
async def test_a_partial_file_that_others_write_to_while_it_arrives_is_not_kept(
    upstream: FakeUpstream, run: Start, disk: Disk, hashes: Any
) -> None:
    keys = {} if hashes is None else {"hashes": hashes}
    made = wheel("big", size=3_000_000)
    upstream.add_file("big", made.filename, made.data, **keys)
    proxy = await run(upstream)
    path = await proxy.link("big", made.filename)
    gate = upstream.hold("/packages/*", after=2_000_000, times=1)
    client = await proxy.connect(path)
    await client.got_body(1_900_000)
    (partial,) = [each for each in (disk.folder / "partial").iterdir() if not each.name.endswith(".marks")]
    with partial.open("r+b") as file:
        file.seek(1_000)
        file.write(b"?")
    late = await proxy.connect(path)
    await late.got_body(1_900_000)
    gate.release()
    for each in (client, late):
        await each.ended
        assert not wire.parse(bytes(each.received)).complete
    reply = await proxy.get(path)
    assert (reply.status, reply.body == made.data) == (200, True)
    assert disk.kept() == {made.sha256: made.data}


# -- what no digest vouches for ------------------------------------------------------------------------------------------------

WHEEL = wheel("old", size=300_000)
SDIST = sdist("old")


@pytest.mark.parametrize("made", [WHEEL, SDIST], ids=["wheel", "sdist"])
@pytest.mark.parametrize("stated", ["size", "no size"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda data: Fault(body=data[: len(data) * 2 // 3]),
        lambda data: Fault(body=data[: len(data) * 2 // 3], chunked=True),
        lambda data: Fault(body=data[: len(data) * 2 // 3], no_content_length=True),
        lambda data: Fault(body=SIGN_IN, headers={"Content-Type": "text/html"}),
        lambda data: Fault(body=b"", status=200),
        lambda data: Fault(body=data + data),
    ],
    ids=["short", "short in chunks", "short without a length", "sign-in page", "empty", "twice"],
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_the_file_is_never_kept_and_never_looks_complete(
    upstream: FakeUpstream, run: Start, disk: Disk, made: Any, stated: str, wrong: Callable[[bytes], Fault]
) -> None:
    keys: dict[str, Any] = {} if stated == "size" else {"size": None}
    upstream.add_file("old", made.filename, made.data, hashes={}, **keys)
    proxy = await run(upstream)
    path = await proxy.link("old", made.filename)
    fault = wrong(made.data)
    twice_is_a_zip_too = fault.body == made.data + made.data and stated == "no size" and made is not WHEEL
    upstream.script("GET /packages/*", fault, times=1)
    reply = await proxy.get(path)
    if not twice_is_a_zip_too:
        assert reply.status == 503 or not reply.complete
        assert reply.status == 503 or len(made.data) > 4096
        assert (disk.kept(), disk.left()) == ({}, [])
        again = await proxy.get(path)
        assert (again.status, again.body == made.data) == (200, True)
        assert list(disk.kept()) == [made.sha256]


@pytest_twisted.ensureDeferred
async def test_of_an_unknown_kind_that_ends_with_its_connection_nothing_is_kept(
    upstream: FakeUpstream, run: Start, disk: Disk
) -> None:
    data = data_of(20_000)
    upstream.add_file("old", "old-1.0.dmg", data, hashes={}, size=None)
    upstream.script("GET /packages/*", Fault(no_content_length=True), times=1)
    proxy = await run(upstream)
    path = await proxy.link("old", "old-1.0.dmg")
    reply = await proxy.get(path)
    assert (reply.status, reply.body == data) == (200, True), "its client gets what there is, as it would without a proxy"
    assert disk.kept() == {}
    assert (await proxy.get(path)).body == data
    assert disk.kept() == {sha256_of(data): data}, "the second answer has a length"


@pytest.mark.parametrize("size", [100, 4096])
@pytest.mark.parametrize("body", [b"", SIGN_IN])
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_held_back_whole_is_verified_before_its_head_goes_out(
    upstream: FakeUpstream, run: Start, disk: Disk, size: int, body: bytes
) -> None:
    data = data_of(size)
    upstream.add_file("tiny", "tiny-1.0.tar.gz", data, size=None)
    proxy = await run(upstream)
    path = await proxy.link("tiny", "tiny-1.0.tar.gz")
    upstream.script("/packages/*", Fault(body=body, status=200), times=1)
    reply = await proxy.get(path)
    assert reply.status == 503
    assert "etag" not in reply.headers
    assert (await proxy.get(path)).body == data
    assert list(disk.kept()) == [sha256_of(data)]


@pytest.mark.parametrize("body", [SIGN_IN, b"", b"Metadata-Version: 2.1\nName: other\n", b"{}"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_metadata_of_the_project_is_not_kept_as_such(
    upstream: FakeUpstream, run: Start, disk: Disk, body: bytes
) -> None:
    made = wheel("six", size=5_000)
    upstream.add_file("six", made.filename, made.data, metadata=made.metadata, core_metadata=True)
    proxy = await run(upstream)
    path = await proxy.link("six", made.filename) + ".metadata"
    upstream.script("*.metadata", Fault(body=body, status=200), times=1)
    reply = await proxy.get(path)
    assert reply.status == 503 or reply.body == made.metadata
    assert (await proxy.get(path)).body == made.metadata


# -- parts -------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_part_that_nothing_vouches_for_is_kept_by_nobody(upstream: FakeUpstream, run: Start) -> None:
    data = data_of(3_000_000)
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    part = await proxy.get(path, Range="bytes=1000-1999")
    assert (part.status, part.body == data[1000:2000]) == (206, True)
    assert (part.headers["cache-control"], part.headers.get("etag")) == ("no-store", None)

    gate = upstream.hold("/packages/*", after=2_000_000)
    first = await proxy.connect(path)
    await first.got_body(1_500_000)
    for header in ("bytes=1000-1999", "bytes=0-1400000"):
        arriving = await proxy.connect(path, Range=header)
        reply = await arriving.reply()
        assert (reply.status, reply.headers["cache-control"], reply.headers.get("etag")) == (206, "no-store", None)
    gate.release()
    await first.reply()

    verified = await proxy.get(path, Range="bytes=1000-1999")
    assert "immutable" in verified.headers["cache-control"]
    assert verified.headers["etag"] == f'"sha256-{sha256_of(data)}"'


@pytest_twisted.ensureDeferred
async def test_head_describes_the_whole_file_whatever_range_it_names(upstream: FakeUpstream, run: Start) -> None:
    data = data_of(100_000)
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    for _ in range(2):
        head = await proxy.head(path, Range="bytes=0-9")
        assert (head.status, head.headers["content-length"]) == (200, "100000")
        await proxy.get(path)
