"""The table of requests seen before and the routes answer alike to the byte, whatever is asked and however it is cut up."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from proxy.errors import ProxyError
from proxy.web import heads
from proxy.web.answers import agent_of
from proxy.web.hot import essence, without_agent
from tests.test_hot import Farm

NAMES = (
    b"User-Agent user-agent X-Request-Id X-Forwarded-For Forwarded Accept Accept-Encoding Connection If-None-Match "
    b"Cache-Control Range Host Authorization Content-Length Transfer-Encoding Expect"
)
VALUES = b'a|pip/26|"x"|text/html|keep-alive|close|no-cache|max-age=0|bytes=0-1|0|3|chunked|100-continue|proxy.example||  '
ODD_VALUES = [b"a\nb", b"a\r\n b", b"a\x00", b"\xff", b"a" * 5000]
STARTS = (
    b"GET /hot/b HTTP/1.1|HEAD /hot/a HTTP/1.1|GET /hot/a HTTP/1.0|GET /slow HTTP/1.1|POST /hot/a HTTP/1.1|GET /hot/a|"
    b"GET http://u:p@x.example/hot/a HTTP/1.1|GET  /hot/a HTTP/1.1|GET /hot/a?b=c HTTP/1.1|"
)
names = st.sampled_from(NAMES.split())
values = st.sampled_from([*VALUES.split(b"|"), *ODD_VALUES])
colons = st.sampled_from([*[b": "] * 6, b":", b":\t", b" :", b""])
lines = st.builds(lambda name, colon, value: name + colon + value, names, colons, values)
starts = st.sampled_from([*[b"GET /hot/a HTTP/1.1"] * 8, *STARTS.split(b"|")])
bodies = st.sampled_from([*[b""] * 8, b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"\r\n", b"User-Agent: x\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    fields = [b"Host: proxy.example", *draw(st.lists(lines, max_size=4))]
    if draw(st.booleans()):
        fields.append(fields.pop(0))
    return b"\r\n".join([draw(starts), *fields, b"", b""]) + draw(bodies)


def conversation(farm: Farm, stream: bytes, cuts: list[int], opened: int) -> bytes:
    """All that *farm* answers to *stream*, which comes in pieces; ``/slow`` is answered after piece number *opened*."""
    send, transport = farm.connect()
    gate = farm.gates["/slow"] = Deferred()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for number, (start, stop) in enumerate(pairwise(edges)):
        if number == opened and not gate.called:
            gate.callback(None)
        send(stream[start:stop])
    if not gate.called:
        gate.callback(None)
    ended = b" [closed]" if transport.disconnecting else b" [open]"
    # Each answer has its own time and id, and the shortest way states no id.
    return re.sub(rb'\r\n(?:Date|X-Request-ID): [^\r]*|(?<="request_id":")[^"]*', b"", transport.value()) + ended


@settings(max_examples=60)
@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0, 700), max_size=8), st.integers(0, 8))
def test_what_is_known_and_what_is_routed_is_answered_alike(asked: list[bytes], cuts: list[int], opened: int) -> None:
    routed, known = Farm(), Farm()
    routed.remembers = False
    for each in asked:  # one farm has seen all of them, alone and whole, twice
        for _ in range(2):
            conversation(known, each, [], 0)
    stream = b"".join(asked)
    assert conversation(known, stream, cuts, opened) == conversation(routed, stream, cuts, opened)


@settings(max_examples=100)
@given(requests(), requests(), st.sampled_from([essence, without_agent]))
def test_two_heads_with_one_essence_are_taken_or_refused_together(
    one: bytes, other: bytes, part: Callable[[bytes], tuple[bytes, str] | None]
) -> None:
    for raw in (one, one + other):
        found = part(raw)
        if found is None:
            continue
        left, agent = found
        try:
            taken = heads.read(left)
        except ProxyError:
            continue
        whole = heads.read(raw)
        assert (whole.method, whole.target, whole.minor, whole.has_body) == (
            taken.method,
            taken.target,
            taken.minor,
            taken.has_body,
        )
        names = [name for name, _ in whole.fields]
        if part is essence or names.count(b"user-agent") < 2:
            assert agent == agent_of(raw)
            assert [each for each in whole.fields if each in taken.fields] == list(taken.fields)
        assert [each for each in whole.fields if each[0] != b"user-agent" and each in taken.fields] == [
            each for each in taken.fields if each[0] != b"user-agent"
        ]
