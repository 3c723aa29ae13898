"""One compliance suite for the upstreams of an index: the real pool, none at all, and the tests' twin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from proxy.errors import DigestMismatch, NotFound, NotHere
from proxy.interfaces import IBodyReader, IUpstreams, Receive
from proxy.mechanism.offload import Inline
from proxy.model import Condition, Digest, DocumentFound, File, PageFound, PageMissing, PageReply, Wanted, body_digest
from proxy.repository.gathered import Gathered
from proxy.upstream.offline import Offline
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel
from tests.twins import ScriptedUpstreams, found

APP = wheel("app", "1.0", size=50_000)
DOCUMENT = b'{"info":{"name":"app"}}'
#: The list of projects, as the twin has it; the other one makes its own.
LIST = b'{"meta":{"api-version":"1.0"},"projects":[{"name":"app"}]}'
ONLINE, KINDS = ("pool", "twin"), ("pool", "twin", "offline")


class Asked:
    """Upstreams that have the page, the file and two documents of app, and nothing else; the twin is given its answers."""

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

    async def refused(self, wanted: Wanted) -> None:
        """Fetch what is not there."""
        asked = Deferred.fromCoroutine(self.upstreams.fetch(wanted, sink()))
        if isinstance(self.upstreams, ScriptedUpstreams):
            self.upstreams.fetches[-1][2].errback(NotFound(wanted.name))
        await asked


Make = Callable[[str], Awaitable[Asked]]


@pytest.fixture
def make(upstream: FakeUpstream, serve: Start) -> Make:
    url = upstream.add_file("app", APP.filename, APP.data)
    for path in ("/pypi/app/json", "/provenance"):
        upstream.add_path(path, DOCUMENT, "application/json")

    async def make(kind: str) -> Asked:
        if kind == "pool":
            return Asked((await serve(upstream)).service.proxied["pypi"].upstreams, url, "pypi")
        if kind == "offline":
            return Asked(Offline("pypi"), url, "pypi")
        documents = {"pypi/app/json": DOCUMENT, f"{upstream.base}/provenance": DOCUMENT}
        twin = ScriptedUpstreams(stock={APP.filename: APP.data}, documents=documents, names=LIST)
        return Asked(twin, url, "pypi")

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
        asked.upstreams.companion(asked.wanted(), None),
        asked.upstreams.projects(None, taken_in([])),
    ):
        with pytest.raises(NotHere):
            await each
    assert upstream.count() == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_a_range_is_read_in_pieces_to_its_end(make: Make, kind: str) -> None:
    asked = await make(kind)
    reader = await asked.upstreams.open_range(asked.wanted(), 100, 3_100)
    verifyObject(IBodyReader, reader)
    assert (reader.length, reader.facts.size) == (3_000, len(APP.data))
    data = b""
    while piece := await reader.read():
        data += piece
    assert (data, await reader.read()) == (APP.data[100:3_100], b"")
    for _ in range(2):
        reader.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_a_document_comes_as_it_is_and_one_that_is_missing_is_an_answer(
    make: Make, upstream: FakeUpstream, kind: str
) -> None:
    upstreams, wanted = (asked := await make(kind)).upstreams, asked.wanted
    for reply in (
        await upstreams.document("pypi/app/json", None),
        await upstreams.companion(wanted(url=f"{upstream.base}/provenance"), None),
    ):
        assert isinstance(reply, DocumentFound)
        assert (reply.record.body, reply.record.head.digest) == (DOCUMENT, body_digest(DOCUMENT))
    for reply in (
        await upstreams.document("pypi/nothing/json", None),
        await upstreams.companion(wanted(url=f"{upstream.base}/nothing"), None),
    ):
        assert isinstance(reply, PageMissing)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_the_list_of_projects_is_read_by_who_takes_it_in(make: Make, kind: str) -> None:
    read: list[bytes] = []
    reply = await (await make(kind)).upstreams.projects(None, taken_in(read))
    assert isinstance(reply, DocumentFound)
    assert [each["name"] for each in msgspec.json.decode(b"".join(read))["projects"]] == ["app"]
    assert (reply.record.body, reply.record.head.digest, reply.record.head.serial) == (b"", "ab" * 32, 7)


def taken_in(read: list[bytes]) -> Receive:
    """Takes in a body, whose pieces are *read* then."""

    async def receive(content_type: str, next_piece: Callable[[], Awaitable[bytes]]) -> tuple[str, int | None]:
        assert "json" in content_type
        while piece := await next_piece():
            read.append(piece)
        return "ab" * 32, 7

    return receive


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ONLINE)
async def test_a_file_that_is_not_there_is_not_found(make: Make, upstream: FakeUpstream, kind: str) -> None:
    asked = await make(kind)
    gone = Wanted("pypi", "app", "gone.zip", f"{upstream.base}/packages/gone/gone.zip", "up0", Digest("sha256", "ab" * 32))
    for refused in (asked.upstreams.facts(gone), asked.upstreams.open_range(gone, 0, 10), asked.refused(gone)):
        with pytest.raises(NotFound):
            await refused
