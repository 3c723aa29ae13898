"""How much may be asked of one upstream: connections at once, a bounded queue, requests a second."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxy.mechanism.flight import Flights
from proxy.settings import UpstreamSettings
from proxy.upstream.http.failures import Failed, Fault
from proxy.upstream.http.slots import LEAST_PROGRESS, WITHIN, Slot, Slots

SETTINGS = UpstreamSettings(name="pypi", url="https://pypi.example/simple/")


class SlotsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def slots(self, **settings: Any) -> Slots:
        return Slots(replace(SETTINGS, **settings), self.clock)

    def take(self, slots: Slots, *, file: bool = False) -> Deferred[Slot]:
        return Deferred.fromCoroutine(slots.take(file=file))

    def test_a_seconds_worth_goes_out_at_once_and_the_rest_at_the_rate(self) -> None:
        slots = self.slots(max_rate=10.0, max_connections=100)
        out: list[float] = []
        for _ in range(40):
            self.take(slots).addCallback(lambda place: out.append(self.clock.seconds() - 1_000_000))
        self.assertEqual(len(out), 10)
        self.assertEqual(slots.waiting, 30)
        for _ in range(310):
            self.clock.advance(0.01)
        self.assertEqual(len(out), 40)
        for number, moment in enumerate(out[10:]):
            self.assertAlmostEqual(moment, 0.1 * (number + 1), delta=0.02)

    def test_who_leaves_while_waiting_for_a_turn_gives_the_slot_back(self) -> None:
        slots = self.slots(max_rate=1.0, max_connections=2)
        self.successResultOf(self.take(slots)).leave()
        waiting = self.take(slots)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.clock.advance(5)
        self.assertEqual((slots.waiting, slots.in_flight), (0, 0))
        for _ in range(2):
            taken = self.take(slots)
            self.clock.advance(5)
            self.successResultOf(taken)

    def test_a_full_queue_is_a_failure_that_blames_nobody(self) -> None:
        slots = self.slots(max_connections=1, max_queue=2)
        place = self.successResultOf(self.take(slots))
        waiting = [self.take(slots) for _ in range(2)]
        failure = self.failureResultOf(self.take(slots), Failed)
        self.assertIs(failure.value.fault, Fault.NO_EVIDENCE)
        self.assertIn("2 requests waiting already (upstream.pypi.max_queue)", str(failure.value))
        place.leave()
        self.successResultOf(waiting[0]).leave()
        self.successResultOf(waiting[1]).leave()

    def test_files_leave_room_for_pages(self) -> None:
        slots = self.slots(max_connections=4)
        files = [self.take(slots, file=True) for _ in range(5)]
        self.assertEqual(slots.in_flight, 3)
        self.successResultOf(self.take(slots)).leave()
        self.successResultOf(files[0]).leave()
        self.successResultOf(files[3])
        self.assertEqual(slots.in_flight, 3)

    def test_a_slot_is_given_back_once(self) -> None:
        slots = self.slots(max_connections=1)
        place = self.successResultOf(self.take(slots))
        place.leave()
        place.leave()
        self.assertEqual(slots.in_flight, 0)
        self.successResultOf(self.take(slots))
        self.assertNoResult(self.take(slots))

    def test_a_request_that_nobody_waits_for_any_more_leaves_the_queue(self) -> None:
        slots = self.slots(max_connections=1, max_queue=1000)
        flights: Flights[Slot] = Flights()
        first = self.successResultOf(self.take(slots))
        abandoned = [flights.join(number, lambda: slots.take(file=False)) for number in range(1000)]
        for each in abandoned:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        honest = [self.take(slots) for _ in range(3)]
        first.leave()
        for waiting in honest:
            self.successResultOf(waiting).leave()
        self.assertEqual((slots.waiting, slots.in_flight), (0, 0))

    def test_a_response_that_makes_no_progress_gives_its_place_to_those_who_wait(self) -> None:
        slots = self.slots(max_connections=2)
        received = {"trickle": 0, "stream": 0}
        given_up: list[str] = []
        for name in received:
            place = self.successResultOf(self.take(slots))
            place.received = lambda name=name: received[name]  # type: ignore[misc]  # its own name each

            def take_away(why: Failed, name: str = name, place: Slot = place) -> None:
                given_up.append(f"{name}: {why}")
                place.leave()

            place.take_away = take_away
        waiting = self.take(slots)
        for _ in range(2 * int(WITHIN)):
            self.clock.advance(1.0)
            received["trickle"] += 1
            received["stream"] += LEAST_PROGRESS
        self.successResultOf(waiting)
        (words,) = given_up
        self.assertTrue(words.startswith("trickle: "), words)

    def test_a_trickle_keeps_its_place_while_nobody_waits(self) -> None:
        slots = self.slots(max_connections=1)
        place = self.successResultOf(self.take(slots))
        place.take_away = lambda why: self.fail(str(why))
        self.clock.pump([1.0] * 100)
        self.assertEqual(slots.in_flight, 1)

    def test_who_has_no_answer_yet_keeps_its_place_unless_others_were_answered_meanwhile(self) -> None:
        slots = self.slots(max_connections=1)
        place = self.successResultOf(self.take(slots))
        given_up: list[Failed] = []
        place.take_away = given_up.append
        self.take(slots)
        self.clock.pump([1.0] * 10)
        self.assertEqual(given_up, [])
        slots.answering()
        self.clock.pump([1.0] * 2)
        self.assertIs(given_up[0].fault, Fault.UNANSWERED)

    def test_a_pace_spreads_requests_out(self) -> None:
        slots = self.slots(max_connections=100)
        out: list[float] = []
        for _ in range(5):
            waiting = Deferred.fromCoroutine(slots.take(file=False, pace=0.5))
            waiting.addCallback(lambda place: out.append(self.clock.seconds() - 1_000_000))
        self.clock.pump([0.25] * 20)
        self.assertEqual(out, [0.0, 0.5, 1.0, 1.5, 2.0])

    def test_a_thousand_who_leave_at_once_leave_no_place_behind(self) -> None:
        slots = self.slots(max_connections=20, max_queue=1000)
        first = [self.successResultOf(self.take(slots)) for _ in range(20)]
        for number in range(1000):
            self.take(slots, file=number % 3 == 0).addCallback(lambda place: place.leave())
        for place in first:
            place.leave()
        self.assertEqual((slots.waiting, slots.in_flight), (0, 0))
