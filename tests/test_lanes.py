"""The table of requests seen before and the routes answer alike to the byte, whatever is asked and however it is cut up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from proxy.core.access_line import short_agent
from proxy.core.agents import identified
from proxy.errors import ProxyError
from proxy.web import heads
from proxy.web.essence import OF_NO_MATTER, Habit, essence
from proxy.web.user_agents import UserAgent, user_agent, user_agent_of
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


agents = st.sampled_from(
    [b" pip/26.3 {} 1", b" pip/26.3 {} 2", b"\tpip/26.3 {}  a/b", b"x", b"", b" pip/26.3 {} 3 ", b" curl/8 4"]
)


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


Found = tuple[bytes, UserAgent, bytes | None] | None


def exact(head: bytes) -> Found:
    """What is left of *head*, found without anything that is known of its client."""
    found = essence(head)
    return None if found is None else (found[0], user_agent(found[1]), found[2])


def usual(*sent: bytes) -> Callable[[bytes], Found]:
    """What is left of heads, as it is found on a connection on which the heads *sent* have come."""
    habit = Habit()
    for head in sent:
        habit.essence(head)
        if essence(head) is not None:
            habit.learn(head)
    return habit.essence


@st.composite
def with_more_lines(draw: st.DrawFn, heads: st.SearchStrategy[bytes]) -> tuple[bytes, bytes]:
    """A head, and the same with up to three lines more, anywhere, behind its end too."""
    head = draw(heads)
    more = head.split(b"\r\n")
    for line in draw(st.lists(lines, max_size=3)):
        more.insert(draw(st.integers(0, len(more))), line)
    return head, b"\r\n".join(more)


def of(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for each, value in fields if each == name]


@settings(max_examples=150)
@given(with_more_lines(requests()), requests(), st.lists(requests(), max_size=2), st.booleans())
def test_two_heads_with_one_essence_are_taken_or_refused_together(
    pair: tuple[bytes, bytes], other: bytes, sent: list[bytes], known: bool
) -> None:
    one, more = pair
    part = usual(*sent, more) if known else exact
    for raw in (one, more, one + other):
        found = part(raw)
        if found is None:
            continue
        left, program, credential = found
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
        of_no_matter = {b"user-agent", b"authorization", *OF_NO_MATTER}
        assert [each for each in whole.fields if each[0] not in of_no_matter] == [
            each for each in taken.fields if each[0] not in of_no_matter
        ]
        if not of(taken.fields, b"authorization"):
            assert ([] if credential is None else [credential]) == of(whole.fields, b"authorization")
        if len(of(whole.fields, b"user-agent")) < 2 and not of(taken.fields, b"user-agent"):
            assert program == user_agent_of(whole)


@settings(max_examples=150)
@given(requests(), st.lists(st.tuples(st.integers(0, 6), lines), max_size=3), st.lists(agents, min_size=1, max_size=4))
def test_what_a_client_usually_sends_has_the_same_essence_whoever_finds_it(
    head: bytes, more: list[tuple[int, bytes]], said: list[bytes]
) -> None:
    habit = Habit()
    for each in said:
        sent = head.split(b"\r\n")
        for place, line in [*more, (1, b"User-Agent:" + each)]:
            sent.insert(min(max(place, 1), len(sent) - 2), line)
        raw = b"\r\n".join(sent)
        found, right = habit.essence(raw), exact(raw)
        if found is not None and right is not None and found[0] == right[0]:
            assert found[2] == right[2]
            assert found[1] == right[1] or len(re.findall(rb"(?i)\nuser-agent:", raw)) > 1
        if right is not None:
            habit.learn(raw)
            assert habit.essence(raw) is not None


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF), max_size=60),
    st.from_regex(r"[0-9A-Za-z]{1,9}", fullmatch=True),
)
@example("-", "0")
def test_a_word_of_its_own_at_the_end_changes_only_the_text_of_an_agent(said: str, word: str) -> None:
    raw = said.encode("latin-1", "replace").strip() or b"pip/26.3"
    one, other = user_agent(raw), user_agent(raw + b" " + word.encode())
    assert other.text == f"{one.text} {word}"
    assert (other.shown, other.agent) == (short_agent(other.text), identified(other.text)) == (one.shown, one.agent)
