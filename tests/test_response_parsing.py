"""Responses out of bytes: what is taken, what is refused, and that it never matters in which pieces they come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from proxy.upstream.http.parsing import LONGEST, ResponseHead, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Read(Struct, frozen=True):
    """What a parser made of a response; *ending* is what the end of the connection means to it."""

    head: ResponseHead | None
    body: bytes
    complete: bool
    reusable: bool
    error: str | None
    ending: bool


def read(data: bytes, cuts: Sequence[int] = (), method: str = "GET") -> Read:
    """What comes of *data* in pieces that end at *cuts*."""
    parser = ResponseParser(method)
    places = sorted({0, len(data), *(cut for cut in cuts if 0 <= cut <= len(data))})
    body = b"".join(parser.receive(data[start:stop]) for start, stop in pairwise(places))
    error, reusable = parser.error, parser.reusable
    said = None if error is None else f"{type(error).__name__}: {error}"
    return Read(parser.head, body, parser.complete, reusable, said, parser.closed())


# -- what is taken ------------------------------------------------------------------------------------------------------------

FRAMED: dict[str, tuple[bytes, bytes, bool]] = {
    "a length": (OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified, with the length of what it is about": (b"HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n", b"", True),
    "chunks": (CHUNKED + b"2\r\nok\r\nA\r\n0123456789\r\n0\r\n\r\n", b"ok0123456789", True),
    "chunks with extensions": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;x\r\n\r\n', b"ok", True),
    "padded sizes": (CHUNKED + b"0002  \r\nok\r\n0\r\n\r\n", b"ok", True),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\nC: d\r\n\r\n", b"ok", True),
    "an empty body in chunks": (CHUNKED + b"0\r\n\r\n", b"", True),
    "the same length twice": (OK + b"Content-Length: 2\r\nContent-Length: 2, 02\r\n\r\nok", b"ok", True),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok", True),
    "a folded line": (OK + b"X: a\r\n b\r\nContent-Length:\r\n 2\r\n\r\nok", b"ok", True),
    "no phrase": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "blanks before a colon": (OK + b"Content-Length : 2\r\n\r\nok", b"ok", True),
    "interim responses": (
        b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 100 C\n\n" + OK + b"Content-Length: 2\r\n\r\nok",
        b"ok",
        True,
    ),
    "a name in capitals": (OK + b"CONTENT-LENGTH: 2\r\n\r\nok", b"ok", True),
    "a connection that ends": (OK + b"Connection: foo, Close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "HTTP/1.0 that stays": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "chunks and a length": (OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", False),
    "chunks in HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"ok",
        False,
    ),
    "more than was asked for": (OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", b"ok", False),
    "more after the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\r\nx", b"ok", False),
    "more after no content": (b"HTTP/1.1 204 No Content\r\n\r\nx", b"", False),
}


@pytest.mark.parametrize("kind", FRAMED)
def test_a_response_has_the_end_that_it_states(kind: str) -> None:
    data, body, reusable = FRAMED[kind]
    found = read(data)
    assert (found.body, found.complete, found.reusable, found.error) == (body, True, reusable, None)
    assert found.head is not None
    for cut in range(len(data)):
        assert read(data, [cut]) == found
    assert read(data, range(len(data))) == found


@pytest.mark.parametrize("kind", [kind for kind in FRAMED if not kind.startswith(("more", "no", "an empty"))])
def test_what_ends_before_that_is_cut_off(kind: str) -> None:
    data = FRAMED[kind][0]
    for stop in range(len(data)):
        found = read(data[:stop])
        assert (found.complete, found.ending, found.error) == (False, False, None), stop


def test_the_end_of_the_connection_ends_what_states_no_length() -> None:
    found = read(OK + b"Content-Type: x\r\n\r\nok")
    assert (found.body, found.complete, found.reusable, found.ending) == (b"ok", False, False, True)
    assert found.head == ResponseHead(200, {"content-type": ["x"]}, None)


@pytest.mark.parametrize("stated", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_the_answer_to_a_head_has_no_body_whatever_it_states(stated: bytes) -> None:
    found = read(OK + stated + b"\r\n", method="HEAD")
    assert found.head is not None
    assert (found.body, found.complete, found.reusable, found.head.length) == (b"", True, True, 0)
    assert read(OK + stated + b"\r\nhello", method="HEAD").reusable is False


def test_fields_are_kept_with_each_byte_a_character_and_on_one_line() -> None:
    found = read(
        OK + b'ETag:\t"\xff\xc3\xa4" \r\nX: a\x00b\rc\r\nx:second\r\nX-Fold: a\r\n\tb\r\nEmpty:\r\nContent-Length: 0\r\n\r\n'
    )
    assert found.head is not None
    assert found.head.last("etag") == '"\xff\xc3\xa4"'
    assert found.head.all("x") == ["a b c", "second"]
    assert found.head.last("x") == "second"
    assert found.head.last("x-fold") == "a\tb"
    assert found.head.last("empty") == ""
    assert (found.head.last("none"), found.head.all("none")) == (None, [])


# -- what is refused ----------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, bytes]] = {
    "two lengths": ("two lengths", OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk"),
    "two lengths in one": ("two lengths", OK + b"Content-Length: 2, 3\r\n\r\nokk"),
    "a length with a sign": ("no length", OK + b"Content-Length: +2\r\n\r\nok"),
    "a length below zero": ("no length", OK + b"Content-Length: -2\r\n\r\nok"),
    "a length in other digits": ("no length", OK + "Content-Length: \xb2\r\n\r\nok".encode("latin-1")),
    "an empty length": ("no length", OK + b"Content-Length:\r\n\r\nok"),
    "a length that nobody holds": ("no length", OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nok"),
    "another transfer coding": ("transfer coding", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "chunked twice": ("transfer coding", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "identity": ("transfer coding", OK + b"Transfer-Encoding: identity\r\n\r\n"),
    "a line that is no field": ("no field", OK + b"Content-Length: 2\r\nhello\r\n\r\nok"),
    "another protocol": ("no status line", b"SSH-2.0-x\r\n"),
    "an empty line": ("no status line", b"\r\n"),
    "a status of letters": ("no status line", b"HTTP/1.1 OK\r\n"),
    "a status of four digits": ("no status line", b"HTTP/1.1 2000 OK\r\n"),
    "a status below 100": ("no status line", b"HTTP/1.1 099 OK\r\n"),
    "a version without a point": ("no status line", b"HTTP/2 200\r\n"),
    "two blanks": ("no status line", b"HTTP/1.1  200 OK\r\n"),
    "another protocol from now on": ("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "a size that is none": ("without a size", CHUNKED + b"g\r\n"),
    "a size with a sign": ("without a size", CHUNKED + b"-1\r\n"),
    "a size in Python's spelling": ("without a size", CHUNKED + b"0x2\r\nok\r\n"),
    "a size with an underscore": ("without a size", CHUNKED + b"1_0\r\n"),
    "an empty size": ("without a size", CHUNKED + b"\r\n"),
    "a size that nobody holds": ("without a size", CHUNKED + b"f" * 100 + b"\r\n"),
    "a control character in an extension": ("without a size", CHUNKED + b"2;a\x01\r\nok"),
    "a bare line feed after a size": ("without a size", CHUNKED + b"2\nok\r\n0\r\n\r\n"),
    "a chunk that is longer": ("where it says", CHUNKED + b"2\r\nokk\r\n0\r\n\r\n"),
    "a chunk's line without end": ("without a size", CHUNKED + b"2;" + b"a" * 2000),
    "trailers without end": ("trailers", CHUNKED + b"0\r\n" + b"A: b\r\n" * 20_000),
    "one trailer without end": ("trailers", CHUNKED + b"0\r\nA: " + b"b" * 70_000),
    "a head without end": ("a head of more", OK + b"A: b\r\n" * 20_000),
    "a line without end": ("a head of more", OK + b"A: " + b"b" * 70_000),
    "interim responses without end": ("a head of more", b"HTTP/1.1 100 C\r\n\r\n" * 5000),
    "a long line": ("with a line of more", OK + b"A: " + b"b" * 20_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_read_in_two_ways_or_never_ends_is_refused(kind: str) -> None:
    said, data = REFUSED[kind]
    found = read(data)
    assert said in (found.error or "")
    assert (found.complete, found.reusable, found.ending) == (False, False, False)
    assert read(data, range(0, len(data), 7)) == found


def test_what_does_not_begin_as_a_response_is_refused_at_its_first_byte() -> None:
    assert read(b"x").error is not None
    assert read(b"HTT").error is None
    assert read(b"HTTQ").error is not None


@given(size=st.integers(LONGEST - 40, LONGEST + 40), step=st.integers(300, 20_000))
def test_a_head_may_be_so_long_and_no_longer(size: int, step: int) -> None:
    lines = OK + b"A: b\r\n" * ((size - len(OK) - 8) // 6)
    data = lines + b"B:" + b"b" * (size - len(lines) - 6) + b"\r\n\r\n"
    assert len(data) == size
    assert (read(data, range(0, size, step)).error is None) == (size <= LONGEST)


# -- in whatever pieces -------------------------------------------------------------------------------------------------------

LINES = st.sampled_from([
    b"Content-Length: 3\r\n",
    b"Content-Length: 4\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"A: b\r\n",
    b" folded\r\n",
    b"\tfolded\n",
    b"no field\r\n",
    b"\x00\xff: \r\r\n",
    b": x\r\n",
])  # fmt: skip
STARTS = st.sampled_from(
    [OK, b"HTTP/1.0 404 No\n", b"HTTP/1.1 304\r\n", b"HTTP/1.1 100 C\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1 2\r\n"]
)
PIECES = st.sampled_from(
    [b"3\r\nabc\r\n", b"0\r\n", b"\r\n", b"3;x\r\nab", b"c\r\n", b"A: b\r\n", b"abc", b"\r", b"\n", b"ff\r\n"]
)
HEADS = st.builds(lambda start, lines: start + b"".join(lines) + b"\r\n", STARTS, st.lists(LINES, max_size=5))
RESPONSES = st.builds(
    lambda interim, head, pieces: interim + head + b"".join(pieces),
    st.sampled_from([b"", b"HTTP/1.1 103 E\r\n\r\n", b"HTTP/1.1 100 C\n\nHTTP/1.1 100 C\r\nA: b\r\n\r\n"]),
    HEADS,
    st.lists(PIECES, max_size=8),
)


@given(
    data=st.one_of(RESPONSES, st.binary(max_size=60)),
    cuts=st.lists(st.integers(0, 300)),
    method=st.sampled_from(["GET", "HEAD"]),
)
@example(data=CHUNKED + b"3\r\nabc\r\nx", cuts=[50], method="GET")
def test_it_does_not_matter_in_which_pieces_a_response_comes(data: bytes, cuts: list[int], method: str) -> None:
    assert read(data, cuts, method) == read(data, (), method)


@given(data=RESPONSES, place=st.integers(0, 200), byte=st.binary(max_size=3), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_no_bytes_are_more_than_refused(data: bytes, place: int, byte: bytes, cuts: list[int]) -> None:
    damaged = data[:place] + byte + data[place + 1 :]
    found = read(damaged, cuts)
    assert not (found.complete and found.error)
    assert len(found.body) <= len(damaged)
    assert found.head is None or 200 <= found.head.status <= 999
    assert found.head is None or not any(set("\r\n\0") & set(each) for values in found.head.fields.values() for each in values)


@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cuts=st.lists(st.integers(0, 400)))
def test_chunks_become_the_body_that_they_were_made_of(chunks: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(b"%X\r\n%b\r\n" % (len(each), each) for each in chunks)
    found = read(CHUNKED + sent + b"0\r\n\r\n", cuts)
    assert (found.body, found.complete, found.reusable) == (b"".join(chunks), True, True)
