"""One compliance suite for every source of bytes that the web floor sends from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from proxy.cache.files import FileCache
from proxy.interfaces import IBytesSource
from proxy.mechanism.offload import Inline
from proxy.mechanism.spool.reader import SpoolReader
from proxy.model import Digest, FileFacts, Wanted, body_digest
from proxy.storage.checked import FileBeingChecked
from proxy.storage.local import LocalFiles
from proxy.storage.memory import MemoryFiles
from proxy.storage.whole import anonymous
from tests.support.wheels import data_of
from tests.test_stores import now
from tests.twins import ScriptedUpstreams

SMALL, LARGE = data_of(5_000), data_of(200_000)
KINDS = ("in memory", "memory store", "local store", "being checked", "arrived")

Open = Callable[[bytes], IBytesSource]


def _put(store: Any, data: bytes) -> IBytesSource:
    partial = now(store.begin("sha256-x", resume=False))
    partial.write(data)
    partial.commit(body_digest(data))
    partial.close()
    source: IBytesSource = now(store.open(body_digest(data)))
    return source


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a source of one kind with some bytes; each is closed in the end."""
    upstreams, sources = ScriptedUpstreams(), list[IBytesSource]()
    cache = FileCache(MemoryFiles(), Inline())

    def arrived(data: bytes) -> IBytesSource:
        wanted = Wanted("pypi", "big", "big-1.0.zip", "https://up.example/", "pypi", Digest("sha256", body_digest(data)))
        results: list[IBytesSource] = []
        asked = Deferred.fromCoroutine(cache.download(wanted, upstreams, _noted))
        asked.addCallback(results.append)
        upstreams.deliver(data)
        return results[0]

    def being_checked(data: bytes) -> IBytesSource:
        """As after a restart, when a file that is not small is sent while it is checked."""
        _put(LocalFiles(tmp_path, Inline()), data).close()
        for place in ("local", "checked"):
            monkeypatch.setattr(f"proxy.storage.{place}.AT_ONCE", 0)
        source: IBytesSource = now(LocalFiles(tmp_path, Inline()).open(body_digest(data)))
        assert isinstance(source, FileBeingChecked) is (data is LARGE)
        return source

    make: dict[str, Open] = {
        "in memory": lambda data: anonymous(data, body_digest(data)),
        "memory store": lambda data: _put(MemoryFiles(), data),
        "local store": lambda data: _put(LocalFiles(tmp_path, Inline()), data),
        "being checked": being_checked,
        "arrived": arrived,
    }

    def opened(data: bytes) -> IBytesSource:
        sources.append(make[request.param](data))
        return sources[-1]

    yield opened
    for each in sources:
        each.close()
    cache.close()


async def _noted(wanted: Wanted, sha256: str, size: int) -> None:
    """Nobody keeps a book here."""


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_whole_source_gives_all_its_bytes_and_says_that_no_more_come(opened: Open, data: bytes) -> None:
    source = opened(data)
    verifyObject(IBytesSource, source)
    assert (source.size, source.sha256) == (len(data), body_digest(data))
    assert source.extent() == len(data)
    assert os.pread(source.fileno(), len(data) + 1, 0) == data
    assert source.from_memory(len(data), 10) == b""
    source.advanced(len(data))
    source.confirm()
    assert source.ended() is True


def test_what_opening_has_read_is_given_once(opened: Open) -> None:
    source = opened(SMALL)
    assert source.take_read() in (SMALL, None)
    assert source.take_read() is None


def test_of_a_part_that_is_asked_for_all_bytes_can_be_had(opened: Open) -> None:
    source = opened(LARGE)
    source.confine(1_000, 3_000)
    assert source.extent() >= 3_000
    assert os.pread(source.fileno(), 2_000, 1_000) == LARGE[1_000:3_000]


def test_two_readers_of_one_source_do_not_disturb_each_other(opened: Open) -> None:
    first, second = opened(SMALL), opened(SMALL)
    first.close()
    assert os.pread(second.fileno(), len(SMALL), 0) == SMALL


def test_closing_gives_the_descriptor_back_and_may_be_repeated(opened: Open) -> None:
    source = opened(LARGE)
    before = len(os.listdir("/proc/self/fd"))
    source.close()
    source.close()
    assert len(os.listdir("/proc/self/fd")) < before


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_another_source_has_the_same_bytes_and_outlives_the_first(opened: Open, data: bytes) -> None:
    source = opened(data)
    other = source.another()
    if isinstance(source, FileBeingChecked | SpoolReader):
        assert other is None  # nobody knows yet whether it is right; a download that is over has no new readers
        return
    assert other is not None
    verifyObject(IBytesSource, other)
    source.close()
    assert source.another() is None
    assert (other.size, other.sha256, other.extent(), other.ended()) == (len(data), body_digest(data), len(data), True)
    assert os.pread(other.fileno(), len(data) + 1, 0) == data
    other.confirm()
    other.close()


@pytest.mark.parametrize("happens", ["nothing", "removed", "set aside", "replaced", "written to"])
def test_a_stored_file_that_is_not_what_it_was_is_given_to_nobody_else(tmp_path: Path, happens: str) -> None:
    store, sha256 = LocalFiles(tmp_path, Inline()), body_digest(LARGE)
    source = _put(store, LARGE)
    path = store.path(sha256)
    match happens:
        case "removed":
            now(store.delete(sha256))
        case "set aside":
            now(store.set_aside(sha256))
        case "replaced":
            copy = tmp_path / "copy"
            copy.write_bytes(LARGE)
            copy.rename(path)
        case "written to":
            with path.open("r+b") as file:
                file.write(b"other")
    other = source.another()
    assert (other is not None) is (happens == "nothing")
    for each in (source, other):
        if each is not None:
            each.close()


def test_an_arriving_file_has_another_reader_once_there_is_something_of_it_to_send_and_until_it_ends() -> None:
    upstreams, cache = ScriptedUpstreams(), FileCache(MemoryFiles(), Inline())
    wanted = Wanted("pypi", "big", "big-1.0.zip", "https://up.example/", "pypi", Digest("sha256", body_digest(LARGE)))
    results: list[IBytesSource] = []
    Deferred.fromCoroutine(cache.download(wanted, upstreams, _noted)).addCallback(results.append)
    _, sink, done = upstreams.fetches[-1]
    sink.begin(FileFacts(len(LARGE)))
    sink.write(LARGE[:100_000])
    [source] = results
    other = source.another()
    assert other is not None
    assert 0 < other.extent() == source.extent() < len(LARGE)
    # What turns out to be wrong is shown to nobody who has not begun with it.
    sink.write(LARGE[:100_000])
    done.callback(None)
    assert source.another() is None
    for each in (source, other):
        each.close()
    cache.close()
