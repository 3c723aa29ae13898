"""Request heads: what is taken, what is refused and why, and that both ways to an answer agree on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from urllib.parse import parse_qs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.access.principals import ANONYMOUS
from proxy.core.ranges import if_range_matches, none_match, parse_range
from proxy.errors import ProxyError
from proxy.names import is_filename, is_project_name, normalize
from proxy.simple.media import choose_coding, negotiate
from proxy.upstream.http.identity import Identity, entries
from proxy.web import heads
from proxy.web.answers import printable
from proxy.web.callers import Caller
from proxy.web.problems import reason_phrase
from proxy.web.routes import NoRoute, split_path
from proxy.web.serving import ask_of
from tests.test_hot import Farm

PLAIN = b"GET /hot/a HTTP/1.1\r\nHost: proxy.example\r\n\r\n"


def with_line(line: bytes) -> bytes:
    return b"GET /hot/a HTTP/1.1\r\nHost: proxy.example\r\n" + line + b"\r\n\r\n"


def with_start(line: bytes) -> bytes:
    return line + b"\r\nHost: proxy.example\r\n\r\n"


def status(raw: bytes) -> int:
    """0, or the status that *raw* is refused with."""
    try:
        head = heads.read(raw)
    except ProxyError as error:
        return error.status
    return 413 if head.has_body else 0


REFUSED = [
    (400, with_line(b"X: a\nb")),
    (400, with_line(b"X: a\rb")),
    (400, with_line(b"X: a\x00b")),
    (400, with_line(b"X: a\x0bb")),
    (400, with_line(b"X: a\x7fb")),
    (400, with_line(b"User-Agent: pip\nRange: bytes=0-1")),
    (400, with_line(b"X: a\r\n folded")),
    (400, with_line(b"X: a\r\n\tfolded")),
    (400, b"GET /hot/a HTTP/1.1\r\n Host: proxy.example\r\n\r\n"),
    (400, with_line(b"X : a")),
    (400, with_line(b"X\t: a")),
    (400, with_line(b" X: a")),
    (400, with_line(b"X y: a")),
    (400, with_line(b"(X): a")),
    (400, with_line(b"X\xe4: a")),
    (400, with_line(b": a")),
    (400, with_line(b"no colon")),
    (400, b"GET /hot/a HTTP/1.1\r\n\r\n"),
    (400, with_line(b"Host: proxy.example")),
    (400, with_line(b"hOsT: other.example")),
    (400, b"GET /hot/a HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, b"GET /hot/a HTTP/1.1\r\nHost: user@a.example\r\n\r\n"),
    (400, b"GET /hot/a HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, b"GET /hot/a HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n"),
    (400, b"GET /hot/a HTTP/1.1\r\nHost: a:123456\r\n\r\n"),
    (400, with_start(b"GET  /hot/a HTTP/1.1")),
    (400, with_start(b"GET /hot/a  HTTP/1.1")),
    (400, with_start(b"GET\t/hot/a\tHTTP/1.1")),
    (400, with_start(b"GET /hot/a HTTP/1.1 ")),
    (400, with_start(b"GET /hot/a")),
    (400, with_start(b"GET /hot/a http/1.1")),
    (400, with_start(b"GET /hot/a HTTP/1.12")),
    (400, with_start(b"G(T /hot/a HTTP/1.1")),
    (400, with_start(b"G" * 33 + b" /hot/a HTTP/1.1")),
    (400, with_start(b"GET /hot/\xc3\xa4 HTTP/1.1")),
    (400, with_start(b"GET /hot/a#b HTTP/1.1")),
    (400, with_start(b'GET /hot/"a" HTTP/1.1')),
    (400, with_start(b"GET /hot\\a HTTP/1.1")),
    (400, with_start(b"GET hot/a HTTP/1.1")),
    (400, with_start(b"GET * HTTP/1.1")),
    (400, with_start(b"GET ftp://a.example/hot/a HTTP/1.1")),
    (400, with_start(b"GET http:///hot/a HTTP/1.1")),
    (400, with_start(b"GET http://a@b@c/hot/a HTTP/1.1")),
    (400, with_start(b"GET proxy.example:80 HTTP/1.1")),
    (405, with_start(b"CONNECT files.example:443 HTTP/1.1")),
    (405, with_start(b"OPTIONS * HTTP/1.1")),
    (505, with_start(b"GET /hot/a HTTP/2.0")),
    (505, with_start(b"GET /hot/a HTTP/0.9")),
    (505, b"PRI * HTTP/2.0\r\n\r\n"),
    (413, with_line(b"Content-Length: 1")),
    (413, with_line(b"Content-Length: 99999999999999999999")),
    (413, b"GET /hot/a HTTP/1.0\r\nContent-Length: 1\r\n\r\n"),
    (413, b"GET /hot/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (413, with_line(b"Transfer-Encoding: chunked")),
    (413, with_line(b"Transfer-Encoding: identity")),
    (400, with_line(b"Content-Length: " + b"1" * 5000)),
    (400, with_line(b"Content-Length: +1")),
    (400, with_line(b"Content-Length: 0x1")),
    (400, with_line(b"Content-Length: 0, 0")),
    (400, with_line(b"Content-Length: ")),
    (400, with_line(b"Content-Length: 0\r\nContent-Length: 0")),
    (400, with_line(b"Content-Length: 0\r\nTransfer-Encoding: chunked")),
    (414, with_start(b"GET /" + b"a" * 8000 + b" HTTP/1.1")),
    (414, with_start(b"GET /" + b"a" * 20_000 + b" HTTP/1.1")),
    (431, with_line(b"X: " + b"a" * 16_400)),
    (431, with_line(b"\r\n".join([b"X: a"] * 100))),
]


@pytest.mark.parametrize(("expected", "raw"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_is_no_request_is_refused_by_either_way_to_an_answer(expected: int, raw: bytes) -> None:
    assert status(raw) == expected
    farm = Farm()
    send, transport = farm.connect()
    send(PLAIN)
    transport.clear()
    send(raw)
    assert transport.value().startswith(b"HTTP/1.1 %d " % expected)
    assert b"\r\nConnection: close\r\n" in transport.value()
    assert transport.disconnecting
    assert farm.routed == ["/hot/a"]


@pytest.mark.parametrize(
    ("target", "seen", "host"),
    [
        (b"http://index.example/hot/a", b"/hot/a", b"index.example"),
        (b"HTTP://index.example:3143/hot/a?b=c", b"/hot/a?b=c", b"index.example:3143"),
        (b"https://[::1]:8443/hot/a", b"/hot/a", b"[::1]:8443"),
        (b"http://index.example", b"/", b"index.example"),
        (b"http://index.example?b", b"/?b", b"index.example"),
        (b"http://user:secret@index.example/hot/a", b"/hot/a", b"index.example"),
        (b"/http://index.example/", b"/http://index.example/", None),
    ],
)
def test_the_host_of_an_absolute_target_goes_before_the_field(target: bytes, seen: bytes, host: bytes | None) -> None:
    head = heads.read(with_start(b"GET " + target + b" HTTP/1.1"))
    assert (head.target, head.host) == (seen, host)
    ask = ask_of(head, Caller("192.0.2.1", ANONYMOUS), NoRoute(""), "id", 0.0, secure=False, body=None)
    assert ask.target.encode() == seen
    assert ask.headers == {"host": (host or b"proxy.example").decode()}
    assert "secret" not in repr(ask)


# -- both ways agree ----------------------------------------------------------------------------------------------------------

names = st.sampled_from(
    [
        b"Accept",
        b"accept-encoding",
        b"User-Agent",
        b"Connection",
        b"Host",
        b"X-Forwarded-For",
        b"Cache-Control",
        b"Range",
        b"Via",
    ]
) | st.binary(max_size=6)
pieces = st.binary(max_size=6) | st.sampled_from([b"keep-alive", b"close", b"text/html", b"a\r\n b", b"a\nb", b"\x00", b"0"])
lines = st.builds(lambda name, colon, value: name + colon + value, names, st.sampled_from([b": ", b":", b" :", b""]), pieces)
versions = st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b""])
targets = st.sampled_from(
    [b"/hot/a", b"/hot/a", b"/hot/a", b"http://x.example/hot/a", b"http://u:p@x.example/hot/a", b"*", b"/hot/\x80"]
)
methods = st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"get", b"OPTIONS", b"G T"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    fields = [*draw(st.sampled_from([[b"Host: proxy.example"]] * 4 + [[]])), *draw(st.lists(lines, max_size=3))]
    start = b" ".join([draw(methods), draw(targets), draw(versions)])
    raw = b"\r\n".join([start, *fields, b"", b""])
    return raw[: raw.index(heads.END) + len(heads.END)]


def answered(farm: Farm, raw: bytes) -> bytes:
    send, transport = farm.connect()
    send(raw)
    value: bytes = transport.value()
    return value


def same(answer: bytes) -> list[bytes]:
    """The lines of *answer* but the time and the id, in no order."""
    lines = re.sub(rb'(?<="request_id":")[^"]*', b"", answer).split(b"\r\n")
    return sorted(line for line in lines if not line.startswith((b"Date: ", b"X-Request-ID: ")))


@given(requests())
@example(with_line(b"User-Agent: a\nb"))
@example(PLAIN)
def test_what_the_long_way_refuses_is_never_answered_from_the_table(raw: bytes) -> None:
    """One farm has seen the request that it may be taken for, and then this one; the other has seen nothing."""
    long = Farm()
    long.remembers = False
    short = Farm()
    for known in (PLAIN, raw, raw):
        last = answered(short, known)
    assert same(last) == same(answered(long, raw))


@given(requests(), st.lists(st.integers(0, 120), max_size=4))
def test_a_route_is_asked_with_what_was_parsed_however_it_was_cut_up(raw: bytes, cuts: list[int]) -> None:
    farm = Farm()
    farm.remembers = False
    send, transport = farm.connect()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for start, stop in pairwise(edges):
        send(raw[start:stop])
    try:
        head = heads.read(raw)
    except ProxyError:
        assert farm.asks == []
        return
    if head.has_body:
        return
    (ask,) = farm.asks
    assert ask.target.encode() == head.target
    expected: dict[str, list[str]] = {}
    for name, value in head.fields:
        stated = value if head.host is None or name != b"host" else head.host
        expected.setdefault(name.decode("latin-1"), []).append(stated.decode("latin-1"))
    if head.host is not None:
        expected.setdefault("host", [head.host.decode("latin-1")])
    assert ask.headers == {name: ", ".join(values) for name, values in expected.items()}
    assert b" 200 OK\r\n" in transport.value()


# -- the cost of hostile text --------------------------------------------------------------------------------------------------


def hostile(size: int) -> Iterator[bytes]:
    """Header values that expressions which look at them could stumble over, *size* bytes long."""
    for piece in (
        b"1",
        b"1.",
        b" ",
        b"\t",
        b",",
        b";",
        b"q=",
        b";q=1",
        b'"',
        b'W/"',
        b"(",
        b"a-",
        b"bytes=",
        b"%",
        b"=",
        b"-",
        b".",
    ):
        for before in (b"", b"bytes=", b"1.1 ", b"a;q=", b"1.1 pypiproxy-a (upstream."):
            for after in (b"", b"x", b"\xe4"):
                count = max(0, size - len(before) - len(after)) // len(piece)
                yield before + piece * count + after


IDENTITY = Identity(user_agent="t", via="pypiproxy-a")
#: Everything that looks at text of clients.
READERS: dict[str, Callable[[bytes, str], object]] = {
    "field": lambda raw, text: status(with_line(b"X: " + raw)),
    "name of a field": lambda raw, text: status(with_line(raw + b": x")),
    "length": lambda raw, text: status(with_line(b"Content-Length: " + raw)),
    "host": lambda raw, text: status(b"GET /hot/a HTTP/1.1\r\nHost: " + raw + b"\r\n\r\n"),
    "target": lambda raw, text: status(with_start(b"GET /" + raw + b" HTTP/1.1")),
    "absolute target": lambda raw, text: status(with_start(b"GET http://" + raw + b" HTTP/1.1")),
    "unfinished head": lambda raw, text: heads.unfinished(raw, 0),
    "via": lambda raw, text: IDENTITY.came_back(entries(text)),
    "range": lambda raw, text: parse_range(text, 1000),
    "if-range": lambda raw, text: if_range_matches(text, '"x"', None),
    "if-none-match": lambda raw, text: none_match(text, '"x"'),
    "accept": lambda raw, text: negotiate(text),
    "format": lambda raw, text: negotiate(None, text),
    "accept-encoding": lambda raw, text: choose_coding(text, ("zstd", "gzip")),
    "path": lambda raw, text: split_path(raw),
    "query": lambda raw, text: parse_qs(text),
    "project": lambda raw, text: is_project_name(text) and normalize(text),
    "filename": lambda raw, text: is_filename(text),
    "log": lambda raw, text: printable(raw),
    "reason": lambda raw, text: reason_phrase(text),
}


@pytest.mark.parametrize("reader", list(READERS))
def test_no_text_of_a_client_costs_more_than_its_length(reader: str) -> None:
    """As much as 300 looks at each byte may be taken; what looks at each byte again for each byte takes thousands."""
    size = 8_000
    limit = 300 * _time(lambda: re.findall(r"(?s).", "x" * size)) + 0.01
    for value in hostile(size):
        text = value.decode("latin-1")
        assert _time(partial(READERS[reader], value, text)) < limit, value[:40]


def _time(work: Callable[[], object]) -> float:
    """Processor seconds that *work* takes."""
    began = time.process_time()
    work()
    return time.process_time() - began
