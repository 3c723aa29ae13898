"""An upstream without measure: heads that never end, bodies that blow up, numbers that nobody can hold.

One hostile value costs at most its file or page: never a 500, a stopped reactor or the memory of the machine.
"""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from proxy.settings import MIB, PageLimits
from proxy.upstream.http.coding import Undo
from proxy.upstream.http.parsing import LONGEST
from proxy.warm.heads import HeadWatch
from tests.inprocess import JSON, Running, Start, upstream_settings
from tests.support import wire
from tests.support.content import HTML_TYPE
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import data_of

reactor: Any = default_reactor

FILE = "six-1.0.tar.gz"
DATA = data_of(100_000)
EXPIRED = PageLimits(ttl=0.0, soft_deadline=5.0, negative_ttl=0.0)


# -- heads that never end -----------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: application/vnd.pypi.simple.v1+json\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "header lines": (OK, b"X-A: " + b"a" * 500 + b"\r\n"),
    "short header lines": (OK, b"a:\n" * 300),
    "one header line": (OK + b"X-A: ", b"a" * 1000),
    "one header in many lines": (OK + b"X-A: b\r\n", b" " + b"a" * 500 + b"\r\n"),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "interim responses, bare LF": (b"", b"HTTP/1.1 100 Continue\n\n"),
    "a status line": (b"HTTP/1.1 200 ", b"O" * 1000),
    "no status line": (b"", b"x" * 1000),
    "empty lines": (b"", b"\r\n"),
    "a chunk's extension": (CHUNKED + b"5;x=", b"a" * 1000),
    "a chunk's size": (CHUNKED, b"0" * 1000),
    "trailers": (CHUNKED + b"0\r\n", b"X-A: " + b"a" * 500 + b"\r\n"),
}


class Endless(Protocol):
    """Says *start* to a request and then *more* again and again, until the connection is closed."""

    factory: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.factory.start)
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.factory.sent += len(self.factory.more)
        self.transport.write(self.factory.more)

    def stopProducing(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport.unregisterProducer()
        if not self.factory.ended.called:
            self.factory.ended.callback(None)


@pytest.fixture
def endless() -> Iterator[Callable[[bytes, bytes], tuple[str, Any]]]:
    """Makes an upstream that goes on for ever; its URL, and what it counts."""
    ports = []

    def make(start: bytes, more: bytes) -> tuple[str, Any]:
        factory: Any = Factory.forProtocol(Endless)
        factory.noisy = False
        factory.start, factory.more, factory.sent, factory.ended = start, more * 20, 0, Deferred()
        ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return f"http://127.0.0.1:{ports[-1].getHost().port}/simple/", factory

    yield make
    for port in ports:
        pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest.mark.parametrize("kind", ENDLESS)
@pytest_twisted.ensureDeferred
async def test_what_never_ends_is_cut_off_soon(endless: Any, run: Start, kind: str) -> None:
    url, seen = endless(*ENDLESS[kind])
    proxy = await run(upstream_settings(url, first_byte_timeout=30.0, body_idle_timeout=30.0))
    reply = await proxy.get("/simple/six/")
    await seen.ended
    assert (reply.status, reply.complete) == (503, True)
    # What the sockets hold comes on top of what is read.
    assert seen.sent < LONGEST + 8 * MIB
    assert (await proxy.get("/-/live")).status == 200


@pytest_twisted.ensureDeferred
async def test_the_client_is_told_what_was_too_long(endless: Any, run: Start) -> None:
    url, _ = endless(*ENDLESS["header lines"])
    proxy = await run(upstream_settings(url))
    assert "sent a head of more than 65,536 bytes" in (await proxy.get("/simple/six/")).json["detail"]


@pytest_twisted.ensureDeferred
async def test_a_long_head_and_interim_responses_are_fine(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", FILE, DATA)
    page = json.dumps({"meta": {"api-version": "1.0"}, "name": "six", "files": []}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: {len(page)}\r\n" + "X-A: b\r\n" * 4000
    raw = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + head.encode() + b"\r\n" + page
    upstream.script("/simple/six/", Fault(garbage=raw))
    assert (await (await run(upstream)).page("six"))["files"] == []


HEADS = st.lists(st.sampled_from([b"A: b\r\n", b"A: b\n", b" x\r\n", b"HTTP/1.1 200 OK\r\n"]), max_size=8)


@given(
    interim=st.integers(0, 3),
    lines=HEADS,
    body=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 400)),
    limit=st.integers(0, 300),
)
def test_the_end_of_a_head_is_found_however_it_arrives(
    interim: int, lines: list[bytes], body: bytes, cuts: list[int], limit: int
) -> None:
    head = b"HTTP/1.1 103 Early\r\n\r\n" * interim + b"HTTP/1.1 200 OK\r\n" + b"".join(lines) + b"\r\n"
    whole = HeadWatch(limit).take(head)
    assert whole == (len(head) <= limit)
    data, watch = head + body, HeadWatch(limit)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert [watch.take(data[start:stop]) for start, stop in pairwise(places)].count(False) <= (0 if whole else len(places))
    assert watch.take(b"") == whole


# -- bodies that blow up ------------------------------------------------------------------------------------------------------


def bomb(coding: str) -> bytes:
    """400 MiB of spaces, compressed."""
    compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31 if coding == "gzip" else 15)
    made = [compressor.compress(b" " * MIB) for _ in range(400)]
    return b"".join([*made, compressor.flush()])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", ["/simple/six/", "/simple/"])
@pytest_twisted.ensureDeferred
async def test_a_bomb_takes_no_more_memory_than_a_page(upstream: FakeUpstream, run: Start, coding: str, path: str) -> None:
    upstream.script(path, Fault(body=bomb(coding), headers={"Content-Type": JSON, "Content-Encoding": coding}))
    proxy = await run(upstream)
    tracemalloc.start()
    try:
        reply = await proxy.get(path, Accept=JSON)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.status == 503
    assert peak < 200 * MIB


@pytest_twisted.ensureDeferred
async def test_a_bomb_beside_the_page_leaves_the_page(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", FILE, DATA)
    upstream.script("/pypi/*", Fault(body=bomb("gzip"), headers={"Content-Encoding": "gzip"}))
    proxy = await run(upstream)
    document = (await proxy.get("/pypi/six/json")).json
    assert [each["filename"] for each in document["urls"]] == [FILE]


@given(st.binary(max_size=3000), st.integers(1, 400))
def test_pieces_are_the_whole_and_none_is_large(text: bytes, times: int) -> None:
    plain = text * times
    undo = Undo("gzip")
    made = list(undo.pieces(gzip.compress(plain)))
    assert b"".join(made) == plain
    assert undo.complete
    assert max(map(len, made), default=0) <= 5 * 1024 * 1024


@pytest_twisted.ensureDeferred
async def test_many_large_pages_at_once_are_all_served(upstream: FakeUpstream, run: Start) -> None:
    """Each is larger than what is free beside the others: they wait for their turn, and none fails."""
    entries = [{"filename": f"p-{n}.zip", "url": f"p-{n}.zip", "hashes": {}, "x": "y" * 1000} for n in range(2000)]
    for name in "abcdefgh":
        page = {"meta": {"api-version": "1.0"}, "name": name, "files": entries}
        upstream.add_path(f"/simple/{name}/", json.dumps(page).encode(), JSON)
    proxy = await run(upstream_settings(upstream.url, body_idle_timeout=20.0))
    pages = await gatherResults([ensureDeferred(proxy.page(name)) for name in "abcdefgh"])
    assert [len(page["files"]) for page in pages] == [2000] * 8


# -- values that nobody can hold ----------------------------------------------------------------------------------------------

DIGITS = "9" * 5000
HEADERS: Sequence[Mapping[str, str]] = [
    {name: value}
    for name in ("Content-Length", "Age", "X-PyPI-Last-Serial", "Retry-After", "ETag", "Last-Modified", "Content-Type", "Date")
    for value in (DIGITS, "-1", "1e999", "nan", "inf", "\xb2", "\xff\xfe", "0x10", "1_000", "", '"', "a" * 16000)
] + [
    {"Cache-Control": f"max-age={DIGITS}"},
    {"Cache-Control": "max-age=\xb2"},
    {"Cache-Control": "max-age=-5"},
    {"Cache-Control": "max-age " * 2000},
    {"Cache-Control": "max-age=60", "Age": "\xb3"},
    {"Cache-Control": "max-age=60", "Age": DIGITS},
    {"Content-Range": f"bytes 0-{DIGITS}/{DIGITS}"},
    {"Content-Encoding": "x" * 10000},
    {"Content-Type": "text/html; charset=" + "u" * 10000},
    {"Content-Type": "text/html; charset=punycode"},
    {"Content-Type": "text/html; charset=undefined"},
    {"Transfer-Encoding": "identity"},
    {"Location": "x" * 12000},
    {"Location": "http://[::1/"},
    {"Location": "http://\xff\xfe/"},
    {"Location": "/simple/six/?\xff"},
]


async def reconcile(proxy: Running, upstream: FakeUpstream, *replies: wire.Reply) -> None:
    """After *replies* that failed, let upstream answer well more often than not, so that it is not left alone for that."""
    upstream.heal()
    if all(reply.status != 503 for reply in replies):
        return
    for project in (f"good-{len(upstream.asked)}", f"fine-{len(upstream.asked)}"):
        upstream.add_path(f"/simple/{project}/", page_of(project), JSON)
        assert (await proxy.get(f"/simple/{project}/")).status == 200


@pytest.mark.parametrize("status", [None, 302, 304, 206])
@pytest_twisted.ensureDeferred
async def test_no_header_on_a_page_is_a_fault_of_this_proxy(upstream: FakeUpstream, run: Start, status: int | None) -> None:
    upstream.add_file("six", FILE, DATA)
    proxy = await run(upstream_settings(upstream.url, first_byte_timeout=0.5, body_idle_timeout=0.5), limits=EXPIRED)
    await proxy.page("six")
    for number, headers in enumerate(HEADERS):
        upstream.script("*", Fault(status=status, headers=headers), times=1)
        reply = await proxy.get(f"/simple/{'six' if number % 2 else 'new'}/", Accept=JSON)
        assert reply.status in (200, 404, 503), (headers, status, reply)
        await reconcile(proxy, upstream, reply)


@pytest.mark.parametrize("status", [429, 503])
@pytest_twisted.ensureDeferred
async def test_no_pause_that_upstream_asks_for_is_a_fault_of_this_proxy(
    upstream: FakeUpstream, run: Start, status: int
) -> None:
    for number, headers in enumerate(each for each in HEADERS if "Retry-After" in each):
        upstream.script("*", Fault(status=status, headers=headers), times=1)
        proxy = await run(upstream, data=f"data{number}")
        reply = await proxy.get("/simple/six/")
        assert reply.status == 503, (headers, reply)
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_no_header_on_a_file_is_a_fault_of_this_proxy(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("six", FILE, DATA)
    for number, headers in enumerate(HEADERS):
        upstream.add_file("six", f"six-{number}.0.tar.gz", data_of(1000 + number), size=None)
        upstream.script(f"/packages/*/six-{number}.0.tar.gz", Fault(headers=headers))
    proxy = await run(upstream_settings(upstream.url, first_byte_timeout=0.5, body_idle_timeout=0.5))
    page = await proxy.page("six")
    for file in page["files"]:
        path = "/simple/six/" + file["url"]
        path = path.replace("/simple/six/../../", "/")
        described = await proxy.head(path)
        assert described.status in (200, 503), file
        part = await proxy.get(path, Range="bytes=0-9")
        assert part.status in (200, 206, 503), (file, part)
        whole = await proxy.get(path)
        assert whole.status in (200, 503) or not whole.complete, (file, whole)
        await reconcile(proxy, upstream, described, part, whole)


VALUES: list[bytes] = [
    DIGITS.encode(),
    b"-" + DIGITS.encode(),
    DIGITS.encode() + b".5",
    b"1e999",
    b"-1e999",
    b"1180591620717411303424",
    b"18446744073709551616",
    b"-1",
    b"1.5",
    b"true",
    b"null",
    b'""',
    b'"' + DIGITS.encode() + b'"',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"' + b"a" * 100_000 + b'"',
    b'"' + b"1." * 50_000 + b'"',
    b'">=' + b"1" * 490 + b'"',
    b'"==' + b"1!" * 200 + b'"',
    b"[" * 900 + b"]" * 900,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 950 + b"1" + b"}" * 950,
    b'{"sha256":' + DIGITS.encode() + b"}",
    b'{"sha256":"' + b"a" * 100_000 + b'"}',
    b'{"status":"active","reason":' + b"[" * 500 + b"]" * 500 + b"}",
    b'["' + b"1" * 5000 + b'"]',
    b'["1.0",' + b"[" * 500 + b"]" * 500 + b"]",
]
KEYS = ["size", "url", "filename", "hashes", "requires-python", "upload-time", "yanked", "core-metadata", "provenance", "other"]
TOP = ["meta", "versions", "project-status", "other", "_last-serial", "api-version"]


def page_of(project: str, file: bytes = b"", meta: bytes = b"", top: bytes = b"") -> bytes:
    """A page with a good file, and what is given among the keys of another one, of ``meta``, and of the page."""
    good = b'{"filename":"%s-1.0.tar.gz","url":"good.tar.gz","hashes":{}}' % project.encode()
    other = b',{"filename":"%s-2.0.tar.gz","url":"b.tar.gz","hashes":{}%s}' % (project.encode(), file) if file else b""
    return b'{"meta":{"api-version":"1.1"%s},"name":"%s","files":[%s%s]%s}' % (meta, project.encode(), good, other, top)


@pytest.mark.parametrize("key", KEYS)
@pytest_twisted.ensureDeferred
async def test_a_value_that_nobody_can_hold_costs_its_file_alone(upstream: FakeUpstream, run: Start, key: str) -> None:
    proxy = await run(upstream)
    for number, value in enumerate(VALUES):
        project = f"p{number}"
        body = page_of(project, file=b',"%s":%s' % (key.encode(), value))
        upstream.add_path(f"/simple/{project}/", body, JSON)
        for accept in (JSON, HTML_TYPE):
            reply = await proxy.get(f"/simple/{project}/", Accept=accept)
            await reconcile(proxy, upstream, reply)
            if b"\\ud800" in value or len(value) > 150_000:  # no JSON, or deeper than any is read
                assert reply.status == 503
                continue
            assert (reply.status, reply.complete) == (200, True), (value[:50], reply)
            assert f"{project}-1.0.tar.gz".encode() in reply.body
        document = await proxy.get(f"/pypi/{project}/json")
        assert document.status in (200, 503)
        await reconcile(proxy, upstream, document)


@pytest.mark.parametrize("key", TOP)
@pytest_twisted.ensureDeferred
async def test_a_value_that_nobody_can_hold_costs_at_most_its_page(upstream: FakeUpstream, run: Start, key: str) -> None:
    proxy = await run(upstream)
    for number, value in enumerate(VALUES):
        project = f"p{number}"
        entry = b',"%s":%s' % (key.encode(), value)
        where = {"meta": entry} if key in ("_last-serial", "api-version") else {"top": entry}
        upstream.add_path(f"/simple/{project}/", page_of(project, **where), JSON)
        upstream.add_path(
            f"/pypi/{project}/json", b'{"info":{"x":%s},"urls":%s,"last_serial":%s}' % (value, value, value), JSON
        )
        for accept in (JSON, HTML_TYPE):
            reply = await proxy.get(f"/simple/{project}/", Accept=accept)
            await reconcile(proxy, upstream, reply)
            assert reply.status in (200, 503), (value[:50], reply)
        document = await proxy.get(f"/pypi/{project}/json")
        assert document.status in (200, 503), value[:50]
        await reconcile(proxy, upstream, document)
    assert not [each for each in (await proxy.get("/-/metrics")).body.splitlines() if b'status="500"' in each]


@pytest_twisted.ensureDeferred
async def test_a_list_of_projects_with_such_values_is_a_list_or_none(upstream: FakeUpstream, run: Start) -> None:
    for number, value in enumerate(VALUES):
        projects = b'{"name":"six","x":%s},{"name":%s},{"name":"six","_last-serial":%s}' % (value, value, value)
        upstream.add_path("/simple/", b'{"meta":{"api-version":"1.0","_last-serial":3},"projects":[%s]}' % projects, JSON)
        proxy = await run(upstream, data=f"data{number}")
        for accept in (JSON, HTML_TYPE):
            reply = await proxy.get("/simple/", Accept=accept)
            assert reply.status in (200, 503), (value[:50], reply)
        await proxy.stop()


# -- HTML that takes the square of its length ---------------------------------------------------------------------------------

LINK = '<a href="six-1.0.tar.gz">six-1.0.tar.gz</a>'
LARGE = {
    "attributes of one tag": LINK + "<a " + " ".join(f"a{n}" for n in range(200_000)) + ">x</a>",
    "attributes of one tag, quoted signs": LINK + "<a " + " ".join(f'a{n}="<>"' for n in range(100_000)) + ">x</a>",
    "attributes of the body": LINK + "".join(f"<body a{n}>" for n in range(20_000)),
    "attributes of the page": LINK + "".join(f"<html a{n}=b>" for n in range(20_000)),
    "one long link": LINK + f"<a href='{'../' * 300_000}six-2.0.zip'>x</a>",
    "links in links": LINK + "<a href=x>" * 50_000,
    "nothing but tags": LINK + "<ul><li>" * 50_000,
    "nothing but signs": LINK + "<" * 500_000,
    "comments": LINK + "<!-- " * 100_000,
    "names with many numbers": LINK + "".join(f'<a href="{"a" + "-1" * 110}{n}.exe">x</a>' for n in range(2000)),
    "a fragment of many digests": LINK + f'<a href="six-2.0.zip#{"&sha256=" * 20_000}">x</a>',
    "specifiers": LINK + "".join(f'<a href="six-{n}.zip" data-requires-python="{"&gt;=1," * 100}">x</a>' for n in range(300)),
}


@pytest.mark.parametrize("kind", LARGE)
@pytest_twisted.ensureDeferred
async def test_html_is_parsed_in_time_that_grows_with_its_length(upstream: FakeUpstream, run: Start, kind: str) -> None:
    """A page of a megabyte would take the old parser minutes, in which the reactor would not turn once."""
    upstream.add_path("/simple/six/", LARGE[kind].encode(), HTML_TYPE)
    proxy = await run(upstream)
    asked = ensureDeferred(proxy.get("/simple/six/", Accept=JSON))
    reply = await asked.addTimeout(60.0, reactor)
    assert reply.status in (200, 503)
    if reply.status == 200:
        assert FILE in [file["filename"] for file in reply.json["files"]]


@pytest_twisted.ensureDeferred
async def test_a_large_page_is_the_same_in_pieces(upstream: FakeUpstream, run: Start) -> None:
    script = "<script>" + "document.write('<b>');" * 3000 + "</script>"
    links = [f'<a href="six-{n}.0.zip"\n data-requires-python="&gt;=3.{n % 9}">six-{n}.0.zip</a><br>\n' for n in range(3000)]
    hidden = "<!-- " + "".join(f'<a href="six-{n}.9.zip">six-{n}.9.zip</a>' for n in range(2000)) + " -->"
    text = f"<html><head><title>Links for six</title>{script}</head><body>{''.join(links)}{hidden}</body></html>"
    upstream.add_path("/simple/six/", text.encode(), HTML_TYPE)
    page = await (await run(upstream)).page("six")
    assert [file["filename"] for file in page["files"]] == [f"six-{n}.0.zip" for n in range(3000)]
    assert page["files"][4]["requires-python"] == ">=3.4"
