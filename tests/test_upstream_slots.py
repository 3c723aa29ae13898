"""How much may be asked of one upstream: connections at once, a bounded queue, requests a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxy.settings import UpstreamSettings
from proxy.upstream.failures import Failed
from proxy.upstream.slots import Slots

SETTINGS = UpstreamSettings(name="pypi", url="https://pypi.example/simple/")

Release = Callable[[], None]


class SlotsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def slots(self, **settings: Any) -> Slots:
        return Slots(evolve(SETTINGS, **settings), self.clock)

    def take(self, slots: Slots, *, file: bool = False) -> Deferred[Release]:
        return Deferred.fromCoroutine(slots.take(file=file))

    def test_a_seconds_worth_goes_out_at_once_and_the_rest_at_the_rate(self) -> None:
        slots = self.slots(max_rate=10.0, max_connections=100)
        out: list[float] = []
        for _ in range(40):
            self.take(slots).addCallback(lambda release: out.append(self.clock.seconds() - 1_000_000))
        self.assertEqual(len(out), 10)
        self.assertEqual(slots.waiting, 30)
        for _ in range(310):
            self.clock.advance(0.01)
        self.assertEqual(len(out), 40)
        for number, moment in enumerate(out[10:]):
            self.assertAlmostEqual(moment, 0.1 * (number + 1), delta=0.02)

    def test_who_leaves_while_waiting_for_a_turn_gives_the_slot_back(self) -> None:
        slots = self.slots(max_rate=1.0, max_connections=2)
        self.successResultOf(self.take(slots))()
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
        release = self.successResultOf(self.take(slots))
        waiting = [self.take(slots) for _ in range(2)]
        failure = self.failureResultOf(self.take(slots), Failed)
        self.assertFalse(failure.value.blames)
        self.assertIn("2 requests waiting already (upstream.pypi.max_queue)", str(failure.value))
        release()
        self.successResultOf(waiting[0])()
        self.successResultOf(waiting[1])()

    def test_files_leave_room_for_pages(self) -> None:
        slots = self.slots(max_connections=4)
        files = [self.take(slots, file=True) for _ in range(5)]
        self.assertEqual(slots.in_flight, 3)
        self.successResultOf(self.take(slots))()
        self.successResultOf(files[0])()
        self.successResultOf(files[3])
        self.assertEqual(slots.in_flight, 3)

    def test_a_slot_is_given_back_once(self) -> None:
        slots = self.slots(max_connections=1)
        release = self.successResultOf(self.take(slots))
        release()
        release()
        self.assertEqual(slots.in_flight, 0)
        self.successResultOf(self.take(slots))
        self.assertNoResult(self.take(slots))
