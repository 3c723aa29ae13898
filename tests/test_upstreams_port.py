"""One compliance suite for the upstreams of an index: the real pool, none at all, and the tests' twin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from proxy.errors import DigestMismatch, NotFound, NotHere
from proxy.interfaces import IUpstreams
from proxy.mechanism.offload import Inline
from proxy.model import Condition, Digest, File, FileFacts, PageFound, PageMissing, PageReply, Wanted, body_digest
from proxy.repository.gathered import Gathered
from proxy.upstream.offline import Offline
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel
from tests.twins import ScriptedUpstreams, found

APP = wheel("app", "1.0", size=50_000)
ONLINE, KINDS = ("pool", "twin"), ("pool", "twin", "offline")


class Asked:
    """Upstreams that have the page and the file of app, and nothing else; the twin is given its answers."""

    def __init__(self, upstreams: IUpstreams, url: str, index: str) -> None:
        self.upstreams = upstreams
        self._url = url
        self._index = index

    def wanted(self, digest: str = APP.sha256, url: str = "") -> Wanted:
        return Wanted(self._index, "app", APP.filename, url or self._url, "up0", Digest("sha256", digest), len(APP.data))

    async def page(self, project: str) -> PageReply:
        asked = Deferred.fromCoroutine(self.upstreams.page(project, None))
        if isinstance(self.upstreams, ScriptedUpstreams):
            file = File(APP.filename, self._url, {"sha256": APP.sha256})
            there = project == "app"
            self.upstreams.answer(found("app", [file], 0.0) if there else PageMissing("pypi", "https://pypi.example/", 0.0))
        return await asked

    async def fetch(self, wanted: Wanted, sink: Gathered) -> None:
        asked = Deferred.fromCoroutine(self.upstreams.fetch(wanted, sink))
        if isinstance(self.upstreams, ScriptedUpstreams):
            self.upstreams.deliver(APP.data)
        await asked


Make = Callable[[str], Awaitable[Asked]]


@pytest.fixture
def make(upstream: FakeUpstream, serve: Start) -> Make:
    url = upstream.add_file("app", APP.filename, APP.data)

    async def make(kind: str) -> Asked:
        if kind == "pool":
            return Asked((await serve(upstream)).service.indexes["pypi"].upstreams, url, "pypi")
        if kind == "offline":
            return Asked(Offline("pypi"), url, "pypi")
        return Asked(ScriptedUpstreams(sizes={APP.filename: FileFacts(len(APP.data))}), url, "pypi")

    return make


def sink(digest: str = APP.sha256) -> Gathered:
    return Gathered(APP.filename, Digest("sha256", digest), 1_000_000, Inline())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_how_things_stand_is_known_without_asking(make: Make, upstream: FakeUpstream, kind: str) -> None:
    upstreams = (await make(kind)).upstreams
    verifyObject(IUpstreams, upstreams)
    online = kind in ONLINE
    assert upstreams.condition() is (Condition.UP if online else Condition.OFFLINE)
    assert (upstreams.retry_in() == 0, upstreams.spare()) == (online, online)
    assert (upstreams.last_modified(), upstreams.outranks("up0", "up0")) == (None, False)
    upstreams.distrust("up0", "a test says so")
    upstreams.slow(0.1)
    assert upstream.count() == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_a_page_comes_with_its_record_and_one_that_is_missing_is_an_answer(make: Make, kind: str) -> None:
    asked = await make(kind)
    reply = await asked.page("app")
    assert isinstance(reply, PageFound)
    assert (reply.page.project, [file.filename for file in reply.page.files]) == ("app", [APP.filename])
    assert (reply.record.head.found, reply.record.head.digest) == (True, body_digest(reply.record.body))
    assert isinstance(await asked.page("nothing"), PageMissing)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_a_file_is_delivered_whole_and_verified_by_its_sink(make: Make, kind: str) -> None:
    asked, into = await make(kind), sink()
    await asked.fetch(asked.wanted(), into)
    assert (into.data, into.offset) == (APP.data, len(APP.data))
    assert (await asked.upstreams.facts(asked.wanted())).size == len(APP.data)
    with pytest.raises(DigestMismatch):
        await asked.fetch(asked.wanted("ab" * 32), sink("ab" * 32))


@pytest_twisted.ensureDeferred
async def test_an_index_that_is_offline_asks_nobody_and_says_so(make: Make, upstream: FakeUpstream) -> None:
    asked = await make("offline")
    for each in (
        asked.page("app"),
        asked.fetch(asked.wanted(), sink()),
        asked.upstreams.facts(asked.wanted()),
        asked.upstreams.open_range(asked.wanted(), 0, 10),
        asked.upstreams.document("pypi/app/json", None),
    ):
        with pytest.raises(NotHere):
            await each
    assert upstream.count() == 0


@pytest_twisted.ensureDeferred
async def test_the_pool_gives_ranges_and_knows_what_is_not_there(make: Make, upstream: FakeUpstream) -> None:
    asked = await make("pool")
    reader = await asked.upstreams.open_range(asked.wanted(), 100, 1_100)
    data = b""
    while piece := await reader.read():
        data += piece
    reader.close()
    assert data == APP.data[100:1_100]
    gone = asked.wanted(url=f"{upstream.base}/packages/gone/{APP.filename}")
    with pytest.raises(NotFound):
        await asked.fetch(gone, sink())
