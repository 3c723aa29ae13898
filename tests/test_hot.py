"""Requests seen before: answered from the table, in order, however they are cut up, and never with yesterday's answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from proxy.access.forwarded import TrustedProxies
from proxy.core.events import Answered, RequestPlace
from proxy.errors import StorageFailed
from proxy.mechanism.offload import Inline
from proxy.statistics.recorders import MemoryRecorder
from proxy.web.answers import Answer, Ask, Ready
from proxy.web.callers import Callers
from proxy.web.connections import BoundedSite
from proxy.web.hot import HotRequests
from proxy.web.patience import Patience
from proxy.web.serving import Front
from proxy.web.site import refuse_body

PATIENCE = Patience(stall_timeout=60.0)


class Farm:
    """A site whose route remembers every GET below ``/hot/``; what it answers is the path and a version that can change."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.version = 1
        self.ready = True
        #: What answers that are remembered fail with, and those that have.
        self.fault: Exception | None = None
        self.faults: list[str] = []
        self.routed: list[str] = []
        self.asks: list[Ask] = []
        self.remembers = True
        self.gates: dict[str, Deferred[None]] = {}
        self.agents: list[str] = []
        self.recorder = MemoryRecorder()
        front = Front(
            self.route,
            HotRequests(self.clock.seconds, "pypiproxy-test", 1 << 20),
            Callers(TrustedProxies([])),
            self.clock,
            Inline(),
            via="pypiproxy-test",
            patience=PATIENCE,
            recorder=self.recorder,
        )
        self.site = BoundedSite(front, self.clock, 100, 60, lambda full: None)

    def route(self, ask: Ask) -> Awaitable[Answer]:
        return self._route(ask)

    async def _route(self, ask: Ask) -> Answer:
        refuse_body(ask)
        self.routed.append(ask.path)
        self.asks.append(ask)
        gate = self.gates.get(ask.path)
        if gate is not None:
            await gate
        answer = self.answer(ask)
        if self.remembers and ask.path.startswith("/hot/"):
            answer.again = lambda: self.at_once(ask)
        return answer

    def at_once(self, ask: Ask) -> Ready | None:
        if self.fault is not None:
            self.faults.append(ask.path)
            raise self.fault
        return (self.version, lambda: self.answer(ask)) if self.ready else None

    def answer(self, ask: Ask) -> Answer:
        return Answer(200, [("X-Version", str(self.version))], f"<{ask.path}>".encode(), word="hit")

    def heard(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "proxy.access":
            self.agents.append(event["agent"])

    def connect(self) -> tuple[Callable[[bytes], None], StringTransport]:
        transport = StringTransport()
        channel = self.site.buildProtocol(None)
        assert channel is not None
        channel.makeConnection(transport)
        return channel.dataReceived, transport


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: proxy.example", *headers, "", ""]).encode()


def bodies(transport: StringTransport) -> list[bytes]:
    return re.findall(rb"<([^>]*)>", transport.value())


class HotRequestsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.farm = Farm()
        self.send, self.transport = self.farm.connect()
        heard: ILogObserver = self.farm.heard  # type: ignore[assignment]  # a function is one, if not to the type checker
        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)

    def test_an_answer_has_to_begin_within_the_time_that_the_request_states(self) -> None:
        self.farm.gates["/slow"] = Deferred()
        self.farm.clock.advance(5.0)
        self.send(request("/slow"))
        (ask,) = self.farm.asks
        self.assertEqual(ask.deadline, 5.0 + PATIENCE.answer_within)
        self.farm.clock.advance(PATIENCE.answer_within - 0.01)
        self.assertEqual(self.transport.value(), b"")
        self.farm.clock.advance(0.02)
        self.assertIn(b"HTTP/1.1 503 ", self.transport.value())

    def test_the_second_time_no_route_is_taken_and_the_answer_is_the_same(self) -> None:
        answers = []
        for _ in range(3):
            self.transport.clear()
            self.send(request("/hot/a"))
            answers.append(sorted(self.transport.value().split(b"\r\n")))
        (own,) = [each for each in answers[0] if each.startswith(b"X-Request-ID: ")]
        answers[0].remove(own)  # the routed one has an id, which is not that of others
        self.assertEqual(self.farm.routed, ["/hot/a"])
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[1], answers[2])
        self.assertEqual(self.farm.recorder.events, [Answered("GET", 200, 8, 0.0, "hit", RequestPlace(None, None))] * 3)

    def test_what_changed_is_seen_at_once(self) -> None:
        self.send(request("/hot/a"))
        self.farm.version = 2
        self.transport.clear()
        self.send(request("/hot/a"))
        self.assertIn(b"X-Version: 2", self.transport.value())

    def test_what_cannot_be_said_at_once_goes_the_long_way(self) -> None:
        self.send(request("/hot/a"))
        self.farm.ready = False
        self.send(request("/hot/a"))
        self.assertEqual(self.farm.routed, ["/hot/a", "/hot/a"])

    def test_an_answer_whose_source_fails_is_forgotten_and_its_route_is_asked(self) -> None:
        for fault in (ZeroDivisionError(), StorageFailed("it cannot be read")):
            # By its bytes, by what is left of them, and by what it means.
            for headers in ((), ("User-Agent: b",), ("Accept-Language: c", "Authorization: Basic YTpi")):
                self.send(request("/hot/a"))
                self.farm.fault, self.farm.remembers, before = fault, False, len(self.farm.routed)
                self.transport.clear()
                self.send(request("/hot/a", *headers) * 2)
                self.farm.fault, self.farm.remembers = None, True
                self.assertEqual(bodies(self.transport), [b"/hot/a"] * 2)
                self.assertEqual(len(self.farm.routed) - before, 2)
                self.assertEqual(self.farm.faults, ["/hot/a"])  # and not for the second of them
                self.farm.faults.clear()
                self.assertEqual(len(self.flushLoggedErrors(Exception)), 0 if isinstance(fault, StorageFailed) else 1)
                for _ in range(2):  # what its route gives with its answer is remembered again
                    self.send(request("/hot/a"))
                self.assertEqual(len(self.farm.routed) - before, 3)
        self.assertFalse(self.transport.disconnecting)

    def test_another_client_with_the_same_wish_gets_the_same_answer_and_its_own_line_in_the_log(self) -> None:
        self.send(request("/hot/a", "Accept: text/html", "User-Agent: pip/26"))
        self.send(request("/hot/a", "User-Agent: uv/0.13", "Accept:  text/html", "Connection: keep-alive"))
        self.assertEqual(self.farm.routed, ["/hot/a"])
        self.assertEqual(self.farm.agents, ["pip/26", "uv/0.13"])

    def test_what_an_answer_depends_on_makes_another_request(self) -> None:
        for path, *headers in (
            ("/hot/a", "Accept: text/html"),
            ("/hot/b", "Accept: text/html"),
            ("/hot/a?format=x", "Accept: text/html"),
            ("/hot/a", "Accept: application/json"),
            ("/hot/a", "Accept: text/html", "Accept-Encoding: gzip"),
            ("/hot/a", "Accept: text/html", 'If-None-Match: "x"'),
            ("/hot/a", "Accept: text/html", "Range: bytes=0-1"),
            ("/hot/a", "Accept: text/html", "Cache-Control: no-cache"),
            ("/hot/a", "Accept: text/html", "Via: 1.1 somebody"),
            ("/hot/a", "Accept: text/html", "Unheard-Of: 1"),
        ):
            before = len(self.farm.routed)
            self.send(request(path, *headers))
            self.assertEqual(len(self.farm.routed), before + 1, headers)

    def test_what_must_not_be_remembered_is_not(self) -> None:
        for odd in (
            request("/hot/a", "Authorization: Basic eDp5", "Authorization: Basic eDp5"),
            request("/hot/a", "authorization: Basic cHlwaXByb3h5LXdhcm06"),  # what the proxy asks itself
            request("/hot/a", "X: " + "y" * 5000),
            request("/hot/a", method="HEAD"),
        ):
            before = len(self.farm.routed)
            self.send(odd)
            self.send(odd)
            self.assertEqual(len(self.farm.routed), before + 2, odd[:60])

    def test_a_credential_that_nothing_depends_on_changes_nothing(self) -> None:
        for number, name in enumerate(("Authorization", "authorization", "AUTHORIZATION", "Authorization")):
            self.send(request("/hot/a", f"{name}: Basic eDp{number}", "User-Agent: pip/26"))
        self.assertEqual(self.farm.routed, ["/hot/a"])
        self.assertEqual(bodies(self.transport), [b"/hot/a"] * 4)
        self.assertEqual(self.farm.agents, ["pip/26"] * 4)

    def test_a_line_with_a_credential_is_one_of_the_head_and_of_no_other_request(self) -> None:
        head = request("/hot/a")
        for odd in (
            (head + b"Authorization: Basic eDp5\r\n", b"\r\n"),  # what follows the head begins another request, a bad one
            (head + b"Authorization: Basic eDp5\r\n\r\n",),
            (head[:-1] + b"\r\nAuthorization: Basic eDp5\n",),
        ):
            answers = []
            for remembers in (True, False):
                farm = Farm()
                farm.remembers = remembers
                send, transport = farm.connect()
                send(head)
                transport.clear()
                for piece in odd:
                    send(piece)
                answers.append((re.findall(rb"HTTP/1.1 (\d+) ", transport.value()), transport.disconnecting))
            self.assertEqual(answers[0], answers[1], odd)

    def test_a_connection_that_is_to_be_closed_is(self) -> None:
        self.send(request("/hot/a", "Connection: close"))
        self.assertTrue(self.transport.disconnecting)
        send, transport = self.farm.connect()
        send(request("/hot/a", "Connection: close"))
        self.assertTrue(transport.disconnecting)

    def test_a_request_that_comes_while_another_is_answered_is_answered_after_it(self) -> None:
        self.send(request("/hot/a"))
        gate = self.farm.gates["/slow"] = Deferred()
        self.send(request("/slow"))
        self.send(request("/hot/a"))
        self.assertEqual(bodies(self.transport), [b"/hot/a"])
        gate.callback(None)
        self.assertEqual(bodies(self.transport), [b"/hot/a", b"/slow", b"/hot/a"])
        self.assertEqual(self.farm.routed, ["/hot/a", "/slow"])


paths = st.lists(st.sampled_from(["/hot/a", "/hot/b", "/cold", "/slow"]), min_size=1, max_size=8)


@given(paths, st.lists(st.integers(0, 600), max_size=10), st.integers(0, 10))
def test_however_requests_are_cut_up_they_are_answered_in_order(asked: list[str], cuts: list[int], opened: int) -> None:
    farm = Farm()
    send, transport = farm.connect()
    gate = farm.gates["/slow"] = Deferred()
    stream = b"".join(request(path) for path in asked)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for number, (start, stop) in enumerate(pairwise(edges)):
        if number == opened and not gate.called:
            gate.callback(None)
        send(stream[start:stop])
    if not gate.called:
        gate.callback(None)
    assert bodies(transport) == [path.encode() for path in asked]
