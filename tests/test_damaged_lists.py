"""The list of all projects and its renderings on a disk that damages them: made again, never served as they are."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
import pytest_twisted

from proxy.mechanism.offload import Inline, completed
from proxy.storage.inmemory import Allowance, MovingFile
from proxy.storage.lists import IN_MEMORY, ListFiles
from tests.inprocess import JSON, Start
from tests.support.fake_upstream import FakeUpstream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _flip_unseen(file: Path) -> None:
    facts = file.stat()
    _flip(file)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _replace_with_a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _replace_with_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte": _flip,
    "a byte, without a trace": _flip_unseen,
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-5]),
    "emptied": lambda file: file.write_bytes(b""),
    "lengthened": lambda file: file.write_bytes(file.read_bytes() + b"]"),
    "removed": Path.unlink,
    "a directory": _replace_with_a_directory,
    "a pipe": _replace_with_a_pipe,
}


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest_twisted.ensureDeferred
async def test_a_damaged_list_is_made_again(
    upstream: FakeUpstream, run: Start, tmp_path: Path, damage: Callable[[Path], object], restart: bool
) -> None:
    for name in ("six", "attrs", "flask"):
        upstream.add_file(name, f"{name}-1.0.tar.gz", b"x")
    proxy = await run(upstream)
    before = await proxy.get("/simple/", Accept=JSON)
    assert len(before.json["projects"]) == 3
    if restart:
        await proxy.stop()
    files = [each for each in (tmp_path / "data" / "lists" / "pypi").iterdir() if each.suffix != ".sum"]
    assert len(files) == 2
    for each in files:
        damage(each)
    if restart:
        proxy = await run(upstream)
    for _ in range(3):
        reply = await proxy.get("/simple/", Accept=JSON)
        if reply.status == 200:
            break
        assert reply.status == 503
    assert (reply.status, reply.json["projects"]) == (200, before.json["projects"])


@pytest_twisted.ensureDeferred
async def test_lists_of_a_version_that_wrote_no_digests_are_served_on(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream)
    before = await proxy.get("/simple/", Accept=JSON)
    await proxy.stop()
    _leave_as_an_earlier_version_did(_lists(tmp_path))
    await upstream.down()
    for _ in range(2):
        proxy = await run(upstream)
        assert (await proxy.get("/simple/", Accept=JSON)).body == before.body
        await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_without_a_digest_is_replaced_once_upstream_answers(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    for name in ("six", "attrs"):
        upstream.add_file(name, f"{name}-1.0.tar.gz", b"x")
    proxy = await run(upstream)
    before = await proxy.get("/simple/", Accept=JSON)
    await proxy.stop()
    _leave_as_an_earlier_version_did(_lists(tmp_path))
    for each in _lists(tmp_path).iterdir():
        each.write_bytes(each.read_bytes().replace(b"six", b"sex"))
    proxy = await run(upstream, clock=lambda: time.time() + 60)
    assert (await proxy.get("/simple/", Accept=JSON)).body == before.body


@pytest.mark.parametrize("line", [b'{"name":"attrs', b'{"nome":"attrs"}\n', b'{"name":"at\xfftrs"}\n', b"\n"])
@pytest_twisted.ensureDeferred
async def test_a_list_without_a_digest_that_does_not_read_to_its_end_is_not_served(
    upstream: FakeUpstream, run: Start, tmp_path: Path, line: bytes
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream)
    await proxy.get("/simple/", Accept=JSON)
    await proxy.stop()
    _leave_as_an_earlier_version_did(_lists(tmp_path))
    for each in _lists(tmp_path).iterdir():
        each.write_bytes(each.read_bytes() + line)
    await upstream.down()
    proxy = await run(upstream)
    assert (await proxy.get("/simple/", Accept=JSON)).status == 503


@pytest.mark.parametrize(
    "damage", [Path.unlink, _replace_with_a_directory, _replace_with_a_pipe], ids=["none", "directory", "pipe"]
)
@pytest_twisted.ensureDeferred
async def test_a_list_whose_digest_cannot_be_read_is_made_again(
    upstream: FakeUpstream, run: Start, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    for name in ("six", "attrs", "flask"):
        upstream.add_file(name, f"{name}-1.0.tar.gz", b"x")
    proxy = await run(upstream)
    before = await proxy.get("/simple/", Accept=JSON)
    await proxy.stop()
    for each in list(_lists(tmp_path).iterdir()):
        if each.suffix == ".sum":
            damage(each)
        else:
            # A whole list, were it not another one.
            each.write_bytes(each.read_bytes().replace(b"flask", b"flusk"))
    proxy = await run(upstream)
    for _ in range(3):
        reply = await proxy.get("/simple/", Accept=JSON)
        if reply.status == 200:
            break
        assert reply.status == 503
    assert (reply.status, reply.json["projects"]) == (200, before.json["projects"])


def _lists(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lists" / "pypi"


def _leave_as_an_earlier_version_did(lists: Path) -> None:
    """Lines under the name that they had, and no digests."""
    for each in list(lists.iterdir()):
        if each.suffix == ".projects":
            each.rename(each.with_suffix(".lines"))
        else:
            each.unlink()


# -- a disk that takes nothing ---------------------------------------------------------------------------------------------


class Disk:
    """A place for files of which it can be told that it takes nothing."""

    def __init__(self, folder: Path) -> None:
        self.takes = True
        self.lists = ListFiles(folder, Inline(), self._prepare)

    def _prepare(self, folder: Path) -> None:
        if not self.takes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        completed(self.lists.write(name, lambda file: file.write(data)))

    def read(self, name: str) -> bytes | None:
        """The file as two readers at once see it."""
        with ExitStack() as opened:
            first, second = (completed(self.lists.open(name)) for _ in range(2))
            for each in (first, second):
                if each is not None:
                    opened.callback(each.close)
            if first is None or second is None:
                return None
            os.lseek(first.fileno(), 2, os.SEEK_SET)
            data = os.read(second.fileno(), second.size)
            assert os.pread(first.fileno(), first.size, 0) == data
            return data


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "lists")
    yield made
    made.lists.close()


def test_what_the_disk_does_not_take_is_in_memory_until_it_does(disk: Disk, tmp_path: Path) -> None:
    disk.takes = False
    disk.write("a", b"first")
    assert (disk.read("a"), (tmp_path / "lists").exists()) == (b"first", False)
    disk.takes = True
    disk.write("a", b"second")
    assert (disk.read("a"), (tmp_path / "lists" / "a").read_bytes()) == (b"second", b"second")
    disk.takes = False
    disk.write("b", b"third")
    completed(disk.lists.keep_only("a"))
    assert (disk.read("a"), disk.read("b")) == (b"second", None)


def test_memory_takes_so_much_and_no_more(disk: Disk) -> None:
    disk.takes = False
    half = bytes(IN_MEMORY // 2)
    disk.write("a", half)
    disk.write("b", half)
    with pytest.raises(OSError, match="No space left on device"):
        disk.write("c", b"x")
    assert disk.read("c") is None
    completed(disk.lists.remove("a"))
    disk.write("c", b"x")
    assert disk.read("c") == b"x"


def test_a_damaged_file_does_not_hide_what_is_in_memory(disk: Disk, tmp_path: Path) -> None:
    disk.write("a", b"first")
    disk.takes = False
    (tmp_path / "lists" / "a").write_bytes(b"fierst")
    assert disk.read("a") is None
    disk.write("a", b"second")
    assert disk.read("a") == b"second"


def test_threads_share_what_is_in_memory(disk: Disk) -> None:
    disk.takes = False
    names = [f"{number}" for number in range(3)]
    failures: list[BaseException] = []

    def use(turn: int) -> None:
        try:
            for number in range(300):
                name = names[(number + turn) % len(names)]
                disk.write(name, name.encode() * 1000)
                assert disk.read(name) in (None, name.encode() * 1000)
                completed(disk.lists.remove(names[(number * 7) % len(names)]))
        except BaseException as error:  # noqa: BLE001  # all of them are looked at below
            failures.append(error)

    threads = [threading.Thread(target=use, args=(turn,)) for turn in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    completed(disk.lists.remove(""))
    disk.write("whole", bytes(IN_MEMORY))  # nothing is still counted


class Slow(io.BytesIO):
    """A file that is closed while it is written to."""

    closing: threading.Thread
    closed_early = False

    def write(self, data: ReadableBuffer, /) -> int:
        self.closing.start()
        self.closing.join(0.05)
        self.closed_early = not self.closing.is_alive()
        return super().write(data)


def test_a_temporary_file_is_not_closed_under_the_thread_that_writes_it() -> None:
    slow = Slow()
    file = MovingFile(lambda: slow, Allowance(0))
    slow.closing = threading.Thread(target=file.close)
    assert file.write(b"data") == 4
    slow.closing.join()
    assert (slow.closed_early, slow.closed) == (False, True)


def test_a_temporary_file_takes_its_memory_from_what_is_allowed() -> None:
    def full() -> BinaryIO:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    allowance = Allowance(10)
    one = MovingFile(full, allowance)
    assert one.write(b"12345678") == 8
    with closing(MovingFile(full, allowance)) as other, pytest.raises(OSError, match="No space left"):
        other.write(b"123")
    one.close()
    with closing(MovingFile(full, allowance)) as other:
        assert other.write(b"1234567890") == 10
