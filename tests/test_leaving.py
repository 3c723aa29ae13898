"""Clients that leave at any moment: whatever was opened for them is closed (the fixture of all tests looks)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from proxy.mechanism.flight import owned, uninterrupted
from proxy.storage.lists import ListFiles
from proxy.storage.local import LocalFiles
from proxy.storage.table import Table
from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of, wheel

reactor: Any = default_reactor


class Slow:
    """Holds every call of *name* in *module* back, in whichever thread it is made, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, name: str, wanted: Callable[[Any], bool]) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        real = getattr(os, name)

        def slow(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            if wanted(args[0]):
                self.began.set()
                self.go.wait(10.0)
            return result

        monkeypatch.setattr(f"{module}.{name}", slow)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Slow]]:
    """Makes `Slow` calls; all are released at the end."""
    made: list[Slow] = []

    def make(module: str, name: str, wanted: Callable[[Any], bool]) -> Slow:
        made.append(Slow(monkeypatch, module, name, wanted))
        return made[-1]

    yield make
    for each in made:
        each.go.set()


async def begun(slow: Slow) -> None:
    while not slow.began.is_set():
        await deferLater(reactor, 0.002)


def below(folder: str) -> Callable[[Any], bool]:
    return lambda path: f"/{folder}/" in str(path)


async def leave(proxy: Running, path: str, held: Slow, **headers: str) -> None:
    """Ask for *path*, leave while a thread works on it, and let that go on."""
    client = await wire.ask(proxy.port, path, **headers)
    await begun(held)
    await client.close()
    await proxy.service.front.quiet()
    held.go.set()


@pytest.mark.parametrize("size", [5_000, 300_000, 17_000_000])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_file_is_opened_leaves_no_descriptor(
    upstream: FakeUpstream, run: Start, slow: Callable[..., Slow], size: int
) -> None:
    data = data_of(size)
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await proxy.get(path)
    await proxy.stop()
    proxy = await run(upstream)
    await leave(proxy, path, slow("proxy.storage.local.os", "open", below("files")))
    assert (await proxy.get(path)).body == data


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_download_begins_leaves_it_to_the_next(
    upstream: FakeUpstream, run: Start, slow: Callable[..., Slow]
) -> None:
    data = data_of(300_000)
    upstream.add_file("big", "big-1.0.tar.gz", data)
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    await leave(proxy, path, slow("proxy.storage.local.os", "open", below("partial")))
    assert (await proxy.get(path)).body == data
    assert upstream.count("/packages/*") == 1


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_stops_while_a_download_begins_leaves_no_descriptor(
    upstream: FakeUpstream, run: Start, slow: Callable[..., Slow]
) -> None:
    upstream.add_file("big", "big-1.0.tar.gz", data_of(300_000))
    proxy = await run(upstream)
    path = await proxy.link("big", "big-1.0.tar.gz")
    held = slow("proxy.storage.local.os", "open", below("partial"))
    client = await wire.ask(proxy.port, path)
    await begun(held)
    stopping = Deferred.fromCoroutine(proxy.stop())
    await client.ended
    held.go.set()
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_the_list_of_projects_is_opened_leaves_no_descriptor(
    upstream: FakeUpstream, run: Start, slow: Callable[..., Slow]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream)
    listed = await proxy.get("/simple/")
    await leave(proxy, "/simple/", slow("proxy.storage.lists.os", "open", below("lists")))
    assert (await proxy.get("/simple/")).body == listed.body


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_a_name_is_written_down_leaves_no_descriptor(
    upstream: FakeUpstream, run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are stored under another name already: the second one opens them, and then waits for the database."""
    data = data_of(300_000)
    upstream.add_file("one", "one-1.0.tar.gz", data)
    upstream.add_file("two", "two-1.0.tar.gz", data)
    proxy = await run(upstream)
    await proxy.get(await proxy.link("one", "one-1.0.tar.gz"))
    path = await proxy.link("two", "two-1.0.tar.gz")
    go, began, real = threading.Event(), threading.Event(), Table.apply_each

    def slow(*args: Any, **options: Any) -> Any:
        began.set()
        go.wait(10.0)
        return real(*args, **options)

    monkeypatch.setattr(Table, "apply_each", slow)
    client = await wire.ask(proxy.port, path)
    while not began.is_set():
        await deferLater(reactor, 0.002)
    await client.close()
    await proxy.service.front.quiet()
    go.set()
    monkeypatch.undo()
    assert (await proxy.get(path)).body == data


@pytest_twisted.ensureDeferred
async def test_a_hundred_clients_that_leave_at_any_moment_leave_no_descriptor(upstream: FakeUpstream, run: Start) -> None:
    made = wheel("six", size=100_000)
    upstream.add_file("six", made.filename, made.data, metadata=made.metadata)
    proxy = await run(upstream)
    path = await proxy.link("six", made.filename)
    for number in range(100):
        client = await wire.ask(
            proxy.port, path + (".metadata" if number % 2 else ""), Range=f"bytes={number}-{99 - number % 3}"
        )
        await deferLater(reactor, number % 10 / 2000)
        await client.close()
    await proxy.service.front.quiet()
    reply = await proxy.get(path)
    assert reply.body == made.data, reply.reason


@pytest_twisted.ensureDeferred
async def test_what_was_opened_for_nobody_is_closed(tmp_path: Any) -> None:
    class Result:
        closed = False

        def close(self) -> None:
            self.closed = True

    result, go = Result(), Deferred[None]()

    async def work() -> Result:
        await go
        return result

    waiting = owned(work())
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert not result.closed
    go.callback(None)
    assert result.closed


@pytest_twisted.ensureDeferred
async def test_work_that_is_not_interrupted_gives_its_result_or_its_failure_to_who_waits() -> None:
    async def works() -> int:
        return 1

    async def fails() -> int:
        raise ZeroDivisionError

    assert await uninterrupted(works()) == 1
    with pytest.raises(ZeroDivisionError):
        await uninterrupted(fails())


@pytest_twisted.ensureDeferred
async def test_stores_close_what_nobody_waits_for(tmp_path: Any) -> None:
    go: Deferred[None] = Deferred()

    class Held:
        async def run(self, function: Callable[..., Any], *args: Any) -> Any:
            result = function(*args)
            await go
            return result

        run_first = run

    held: Any = Held()
    store, lists = LocalFiles(tmp_path, held), ListFiles(tmp_path / "lists", held, lambda folder: None)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a").write_bytes(b"list")
    waits = [
        Deferred.fromCoroutine(each) for each in (store.begin("sha256-x", resume=True), lists.open("a"), lists.temporary())
    ]
    for each in waits:
        each.cancel()
        with pytest.raises(CancelledError):
            await each
    go.callback(None)
    begun = await store.begin("sha256-x", resume=True)
    begun.write(b"the key is free again")
    begun.close()
    assert [each.name for each in (tmp_path / "partial").iterdir()] == ["sha256-x"]
