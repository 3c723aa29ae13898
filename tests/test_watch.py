"""The looks at what may be wrong: seldom enough, never in the way, and over when the trouble is."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.trial.unittest import SynchronousTestCase

from proxy.core.troubles import Reason, Trouble
from proxy.host.watch import Watch

FULL = Trouble(Reason.DISK_FULL, "the disk is full: make room")


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.wrong: Sequence[Trouble] = ()
        self.looks = 0
        self.gate: Deferred[None] | None = None
        self.counted: list[Sequence[Trouble]] = []
        self.watch = Watch([self.look], self.clock, self.counted.append)

    async def look(self) -> Sequence[Trouble]:
        self.looks += 1
        found = self.wrong
        if self.gate is not None:
            await self.gate
        return found

    def ask(self) -> Deferred[tuple[Trouble, ...]]:
        asked = Deferred.fromCoroutine(self.watch.look())
        self.clock.advance(0)
        return asked

    def test_what_is_wrong_is_told_and_counted_until_it_is_over(self) -> None:
        self.wrong = (FULL,)
        self.assertEqual(self.successResultOf(self.ask()), (FULL,))
        self.wrong = ()
        asked = self.ask()
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(asked), ())
        self.assertEqual(self.counted, [(FULL,), ()])

    def test_many_who_ask_cause_few_looks(self) -> None:
        asked = []
        for _ in range(20):
            asked += [self.ask() for _ in range(5)]
            self.clock.advance(0.01)
        self.clock.pump([0.01] * 20)
        self.assertEqual([self.successResultOf(each) for each in asked], [()] * 100)
        self.assertLessEqual(self.looks, 8)

    def test_who_asks_is_told_what_is_wrong_then_and_not_when_a_look_had_begun_before(self) -> None:
        self.gate = Deferred()
        early = self.ask()
        self.wrong = (FULL,)
        late = self.ask()
        gate, self.gate = self.gate, None
        gate.callback(None)
        self.assertEqual(self.successResultOf(early), ())
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(late), (FULL,))

    def test_a_disk_that_does_not_answer_is_told_in_time_and_forgotten_when_it_does(self) -> None:
        self.gate = Deferred()
        asked = self.ask()
        self.clock.advance(2)
        (trouble,) = self.successResultOf(asked)
        self.assertIn("does not answer", trouble.words)
        gate, self.gate = self.gate, None
        gate.callback(None)
        self.assertEqual(self.watch.troubles, ())

    def test_a_look_that_fails_keeps_nobody_from_the_others(self) -> None:
        async def broken() -> Sequence[Trouble]:
            raise ZeroDivisionError

        self.wrong = (FULL,)
        self.watch = Watch([broken, self.look], self.clock, self.counted.append)
        self.assertEqual(self.successResultOf(self.ask()), (FULL,))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_it_looks_every_ten_seconds_while_it_runs(self) -> None:
        self.watch.startService()
        self.clock.advance(0)
        for _ in range(3):
            self.clock.advance(10)
            self.clock.advance(1)
        self.assertEqual(self.looks, 4)
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def test_each_trouble_is_logged_once_and_its_end_too(logged: list[LogEvent]) -> None:
    clock = Clock()
    clock.advance(1_000)
    wrong: list[Trouble] = [FULL]

    async def look() -> Sequence[Trouble]:
        return list(wrong)

    watch = Watch([look], clock, lambda troubles: None)
    for number in range(4):
        if number == 2:
            wrong.clear()
        Deferred.fromCoroutine(watch.look())
        clock.advance(1)
    said = [event["log_format"] for event in logged if event.get("log_namespace") == "proxy.host.watch.Watch"]
    assert said == ["degraded ({reason}): {words}", "no longer degraded ({reason})"]
