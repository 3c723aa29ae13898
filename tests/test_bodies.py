"""Bodies of requests: found to the byte however they are cut up, read at the route's pace, refused when malformed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from proxy.errors import BadRequest
from proxy.web.answers import Answer, Ask
from proxy.web.bodies import Chunked, Decoder, Sized
from tests.test_hot import Farm, request


def decoded(decoder: Decoder, stream: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """The body in *stream*, which comes in pieces, and what follows it."""
    body, held = b"", b""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, stop in pairwise(edges):
        held += stream[start:stop]
        if not decoder.over:
            piece, held = decoder.decode(held)
            body += piece
    return body, held


cut = st.lists(st.integers(0, 200), max_size=12)
ends = st.sampled_from([b"", b"GET / HTTP/1.1\r\n"])


@given(st.binary(max_size=100), cut, ends)
def test_a_body_with_a_length_ends_there(body: bytes, cuts: list[int], following: bytes) -> None:
    assert decoded(Sized(len(body)), body + following, cuts) == (body, following)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b";a=b", b' ; a="b c"']),
    st.sampled_from([b"", b"X: y\r\n", b"Digest: sha-256=x\r\nY:\r\n"]),
    cut,
    ends,
)
def test_a_body_in_chunks_ends_after_its_trailers(
    pieces: list[bytes], extension: bytes, trailers: bytes, cuts: list[int], following: bytes
) -> None:
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    stream = b"".join([*chunks, b"000\r\n", trailers, b"\r\n", following])
    assert decoded(Chunked(), stream, cuts) == (b"".join(pieces), following)


@pytest.mark.parametrize(
    "stream",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"-3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"\r\n",
        b"f" * 16 + b"\r\n",
        b"3;" + b"a" * 300 + b"\r\n",
        b"3;a\x00\r\n",
        b"1" * 300,
        b"0\r\nno field\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_what_is_not_in_chunks_is_refused(stream: bytes, step: int) -> None:
    with pytest.raises(BadRequest):
        decoded(Chunked(), stream, list(range(0, len(stream), step)))


class Taking(Farm):
    """A farm with a route that reads bodies, one that takes them whole, one that reads one piece, and one that reads none."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []
        self.go_on: Deferred[None] = Deferred()

    async def _route(self, ask: Ask) -> Answer:
        if ask.path == "/leave" or ask.body is None:
            return Answer(200, [], b"left")
        if ask.path == "/wait":
            await self.go_on
        if ask.path == "/form":
            self.read.append(await ask.body.whole(40, ask.deadline))
        while piece := await ask.body.read():
            self.read.append(piece)
            if ask.path == "/one":
                break
        return Answer(200, [], b"read")


def post(path: str, *headers: str) -> bytes:
    return request(path, *headers, method="POST")


def test_a_route_reads_a_body_and_the_connection_goes_on_with_the_next_request() -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post("/take", "Content-Length: 6") + b"abc")
    assert transport.value() == b""
    send(b"def" + post("/take", "Transfer-Encoding: chunked") + b"3\r\nxyz\r\n")
    send(b"0\r\n\r\n" + request("/leave"))
    assert b"".join(farm.read) == b"abcdefxyz"
    assert transport.value().count(b"HTTP/1.1 200 OK") == 3
    assert b"Connection: close" not in transport.value()
    assert not transport.disconnecting


@pytest.mark.parametrize("path", ["/leave", "/one"])
def test_what_a_route_leaves_of_a_body_is_no_request_and_the_connection_ends(path: str) -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post(path, "Content-Length: 1000") + request("/hidden"))
    assert transport.value().count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in transport.value()
    assert transport.disconnecting
    send(request("/hidden"))
    assert transport.value().count(b"HTTP/1.1") == 1


def test_of_a_body_that_is_not_read_yet_little_is_held() -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post("/wait", "Content-Length: 100000"))
    sent = 0
    while transport.producerState == "producing":
        send(b"x" * 1000)
        sent += 1000
    assert sent < 20_000
    farm.go_on.callback(None)
    assert transport.producerState == "producing"
    send(b"x" * (100_000 - sent))
    assert sum(map(len, farm.read)) == 100_000
    assert b"HTTP/1.1 200 OK" in transport.value()


def test_a_client_that_waits_to_be_told_is_told_when_the_route_reads() -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post("/wait", "Content-Length: 3", "Expect: 100-continue"))
    assert transport.value() == b""
    farm.go_on.callback(None)
    assert transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    send(b"abc")
    assert b"".join(farm.read) == b"abc"
    send, transport = farm.connect()
    send(post("/leave", "Content-Length: 3", "Expect: 100-continue"))
    assert transport.value().startswith(b"HTTP/1.1 200 OK")


def test_a_malformed_body_is_a_400_and_the_connection_ends() -> None:
    for headers, body in (
        (("Transfer-Encoding: chunked",), b"zz\r\n"),
        (("Transfer-Encoding: gzip, chunked",), b"3\r\nabc\r\n"),
    ):
        farm = Taking()
        send, transport = farm.connect()
        send(post("/take", *headers) + body)
        assert transport.value().startswith(b"HTTP/1.1 400 ")
        assert transport.disconnecting


def test_a_body_that_comes_slowly_has_all_the_time_and_one_that_stops_is_a_408() -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post("/take", "Content-Length: 40"))
    for _ in range(10):
        farm.clock.advance(11)
        send(b"x")
    assert transport.value() == b""
    farm.clock.pump([1.0] * 13)
    assert transport.value().startswith(b"HTTP/1.1 408 ")
    assert transport.disconnecting


def test_a_small_body_that_is_taken_whole_has_to_come_in_time_however_steadily_it_comes() -> None:
    farm = Taking()
    send, transport = farm.connect()
    send(post("/form", "Content-Length: 40"))
    farm.clock.advance(11)
    send(b"x" * 40)
    assert farm.read == [b"x" * 40]
    assert transport.value().startswith(b"HTTP/1.1 200 ")
    send, transport = farm.connect()
    send(post("/form", "Content-Length: 40"))
    for _ in range(13):
        farm.clock.advance(1)
        send(b"x")
    assert transport.value().startswith(b"HTTP/1.1 408 ")
    assert b"was not complete" in transport.value()
    assert transport.disconnecting
    send, transport = farm.connect()
    send(post("/form", "Content-Length: 41") + b"x" * 41)
    assert transport.value().startswith(b"HTTP/1.1 413 ")
