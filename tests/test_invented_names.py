"""Names that clients invent cost upstream a question and the proxy nothing that stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock

from proxy.cache.ledger import Ledger
from proxy.cache.pages import PageCache
from proxy.cache.parsed import ParsedPages
from proxy.cache.records import DOCUMENTS, PAGES, HeadedRecords
from proxy.cache.refreshed import Terms
from proxy.mechanism.offload import Inline
from proxy.model import Head, LedgerEntry, PageMissing, Record, body_digest
from proxy.settings import PageLimits
from proxy.storage.memory import MemoryRecords, MemoryVersioned
from proxy.storage.records import DiskRecords
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel
from tests.twins import ScriptedUpstreams, found

SIX = wheel("six", "1.0")
DIGEST = f"sha256-{'ab' * 32}"


async def records(proxy: Running) -> int:
    """How many records the proxy keeps."""
    stats: Any = await proxy.service.administration.operations["stats"](lambda said: None)
    count: int = stats["records"]
    return count


def paths(name: str) -> list[str]:
    return [
        f"/simple/{name}/",
        f"/pypi/{name}/json",
        f"/pypi/{name}/1.0/json",
        f"/{name}/json",
        f"/files/{name}/none/{name}-1.0.tar.gz",
        f"/files/{name}/{DIGEST}/{name}-1.0-py3-none-any.whl",
        f"/files/{name}/{DIGEST}/{name}-1.0-py3-none-any.whl.metadata",
        f"/packages/{name}/{DIGEST}/{name}-1.0-py3-none-any.whl.provenance",
    ]


async def deny(proxy: Running, asked: list[str]) -> None:
    """Ask for what is not there, forty at a time."""
    for start in range(0, len(asked), 40):
        replies = await gatherResults([ensureDeferred(proxy.get(path)) for path in asked[start : start + 40]])
        assert {reply.status for reply in replies} <= {404, 409}


@pytest_twisted.ensureDeferred
async def test_invented_names_leave_no_record_and_no_descriptor(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    proxy = await run(upstream)
    link = await proxy.link("six", SIX.filename)
    await proxy.get(link)
    # And of a project that there is: files, versions and digests.
    odd = [f"/pypi/six/{number}.5/json" for number in range(60)]
    odd += [f"/files/six/{DIGEST}/six-{number}.0-py3-none-any.whl{end}" for number in range(20) for end in ("", ".metadata")]
    first = [f"first-{number}" for number in range(40)]
    then = [f"then-{number}" for number in range(40)]
    before = await records(proxy)
    # What stays open is open after these: connections to upstream, and one of each thread to the database.
    await deny(proxy, [*odd, *(path for name in first for path in paths(name))])
    descriptors = len(os.listdir("/proc/self/fd"))
    await deny(proxy, [path for name in then for path in paths(name)])
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 10
    assert await records(proxy) == before
    # Nobody asks upstream again for what it has just denied.
    assert [upstream.count(f"/simple/{name}/") for name in then[:3]] == [1, 1, 1]
    assert (await proxy.get(link)).body == SIX.data


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_gone_leaves_less_than_it_was(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0, negative_ttl=0.0))
    await proxy.page("six")
    before = await records(proxy)
    upstream.remove_project("six")
    for _ in range(3):
        assert (await proxy.get("/simple/six/")).status == 404
    assert await records(proxy) == before - 2  # its head and its body
    upstream.add_file("six", SIX.filename, SIX.data)
    assert (await proxy.page("six"))["files"]


@pytest_twisted.ensureDeferred
async def test_what_an_earlier_version_noted_of_invented_names_is_removed(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    first = await run(upstream)
    await first.page("six")
    await first.stop()
    old = DiskRecords(tmp_path / "data" / "records", Inline())
    missing = Head(False, "up0", "https://pypi.example/simple/x/", 1000.0)
    for kind, names in ((PAGES, "a-{}"), (DOCUMENTS, "pypi/a-{}/json")):
        noted = HeadedRecords(kind, "pypi", old, Inline())
        for number in range(30):
            await noted.renew(names.format(number), missing)
    await old.set("pins/pypi/six", b"not a head")
    await old.delete("missing-removed-2")
    await old.close()
    proxy = await run(upstream)
    while await records(proxy) > 4:  # head and body of the page, the pins, and that this was done
        await proxy.get("/-/live")
    upstream.silent()
    assert (await proxy.get("/simple/six/", Accept=JSON)).status == 200


def result(work: Any) -> Any:
    """What a coroutine returns that never waits."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    return results[0]


def test_a_page_in_memory_outlives_any_number_of_names_that_are_not_there() -> None:
    upstreams, clock, store = ScriptedUpstreams(), Clock(), MemoryRecords()
    cache = PageCache("pypi", upstreams, store, Inline(), Terms(PageLimits(), clock), ParsedPages(1 << 20))
    asked = Deferred.fromCoroutine(cache.get("six"))
    upstreams.answer(found("six", [], clock.seconds()))
    asked.addErrback(lambda failure: None)
    for number in range(7000):
        Deferred.fromCoroutine(cache.get(f"invented-{number}")).addErrback(lambda failure: None)
        upstreams.answer(PageMissing("pypi", "https://pypi.example/simple/x/", clock.seconds()))
        upstreams.pages.clear()
    assert cache.ready("six") is not None
    assert cache.at_hand("invented-0") is None
    assert len(result(store.keys(""))) == 2


def test_pins_in_memory_outlive_any_number_of_projects_without_pins() -> None:
    book = Ledger(MemoryVersioned(), 100_000, Inline())
    result(book.add("pypi", "six", SIX.filename, LedgerEntry("ab" * 32, 1, {}, "", 0.0)))
    for number in range(1000):
        result(book.of("pypi", f"invented-{number}"))
    pins = book.at_hand("pypi", "six")
    assert pins is not None
    assert list(pins) == [SIX.filename]
    assert book.at_hand("pypi", "invented-0") is None
    assert book.at_hand("pypi", "invented-999") is not None


def test_nothing_is_left_of_a_page_that_upstream_has_no_more() -> None:
    store = MemoryRecords()
    pages = HeadedRecords(PAGES, "pypi", store, Inline())
    there = Head(True, "up", "https://pypi.example/simple/six/", 1.0, digest=body_digest(b"body"))
    result(pages.keep("six", Record(there, b"body"), None))
    result(pages.discontinue("six", there))
    assert result(pages.head("six")) is None
    assert result(store.keys("")) == []


def test_a_404_for_what_was_never_there_leaves_the_records_alone() -> None:
    store = MemoryRecords()
    pages = HeadedRecords(PAGES, "pypi", store, Inline())
    there = Head(True, "up", "https://pypi.example/simple/six/", 1.0, digest=body_digest(b"body"))
    result(pages.keep("six", Record(there, b"body"), None))
    result(pages.discontinue("six", None))
    result(pages.discontinue("six", Head(False, "up", "https://pypi.example/simple/six/", 2.0)))
    assert result(pages.head("six")) == there
