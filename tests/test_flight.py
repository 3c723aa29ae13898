"""Single flight: one run per key, waiters that come and go."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from proxy.mechanism.flight import Flights


class FlightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flights: Flights[str] = Flights()
        self.runs: list[Deferred[str]] = []

    async def work(self) -> str:
        run: Deferred[str] = Deferred()
        self.runs.append(run)
        return await run

    def test_all_who_ask_meanwhile_share_one_run(self) -> None:
        waiters = [self.flights.join("six", self.work) for _ in range(200)]
        self.assertEqual(len(self.runs), 1)
        self.runs[0].callback("page")
        self.assertEqual({self.successResultOf(waiter) for waiter in waiters}, {"page"})
        self.assertNotIn("six", self.flights)

    def test_another_key_is_another_run(self) -> None:
        self.flights.join("six", self.work)
        self.flights.join("attrs", self.work)
        self.assertEqual(len(self.runs), 2)

    def test_who_asks_after_the_end_starts_anew(self) -> None:
        self.flights.join("six", self.work)
        self.runs[0].callback("old")
        later = self.flights.join("six", self.work)
        self.runs[1].callback("new")
        self.assertEqual(self.successResultOf(later), "new")

    def test_a_failure_reaches_everybody_and_strands_nobody(self) -> None:
        waiters = [self.flights.join("six", self.work) for _ in range(3)]
        self.runs[0].errback(ValueError("no"))
        for waiter in waiters:
            self.failureResultOf(waiter, ValueError)
        self.assertNotIn("six", self.flights)

    def test_a_waiter_that_leaves_harms_nobody(self) -> None:
        leaving, staying = (self.flights.join("six", self.work) for _ in range(2))
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.runs[0].callback("page")
        self.assertEqual(self.successResultOf(staying), "page")

    def test_the_run_goes_on_when_nobody_waits_any_more(self) -> None:
        self.flights.join("six", self.work).addErrback(lambda _: None).cancel()
        late = self.flights.join("six", self.work)
        self.assertEqual(len(self.runs), 1)
        self.runs[0].callback("page")
        self.assertEqual(self.successResultOf(late), "page")

    def test_work_that_ends_at_once_is_no_flight(self) -> None:
        async def at_once() -> str:
            return "page"

        self.assertEqual(self.successResultOf(self.flights.join("six", at_once)), "page")
        self.assertNotIn("six", self.flights)

    def test_closing_cancels_what_is_under_way(self) -> None:
        waiter = self.flights.join("six", self.work)
        self.flights.close()
        self.failureResultOf(waiter, CancelledError)

    def test_work_that_cannot_begin_strands_nobody(self) -> None:
        def refuse() -> Coroutine[Any, Any, str]:
            raise OSError("too many open files")

        with self.assertRaises(OSError):
            self.flights.join("six", refuse)
        self.assertNotIn("six", self.flights)
        again = self.flights.join("six", self.work)
        self.runs[0].callback("page")
        self.assertEqual(self.successResultOf(again), "page")
