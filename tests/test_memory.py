"""What work on large things may take in memory at one time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from proxy.core.bounded import BoundedTable, DividedTable
from proxy.mechanism.flight import swallow
from proxy.mechanism.offload import Holding, Memory


def taken(memory: Memory, size: int) -> Deferred[Holding]:
    asked = Deferred.fromCoroutine(memory.take(size))
    swallow(asked)
    return asked


class MemoryTests(SynchronousTestCase):
    def test_who_does_not_fit_waits_in_turn(self) -> None:
        memory = Memory(10)
        first = self.successResultOf(taken(memory, 6))
        large, small = taken(memory, 5), taken(memory, 1)
        self.assertNoResult(large)
        self.assertNoResult(small)  # else the large one would wait for ever
        first.shrink(5)
        self.assertEqual(self.successResultOf(large).size, 5)
        self.assertNoResult(small)
        first.shrink(0)
        self.assertEqual(self.successResultOf(small).size, 1)
        self.assertEqual(memory.held, 6)

    def test_what_is_larger_than_all_there_is_goes_alone(self) -> None:
        memory = Memory(10)
        first = self.successResultOf(taken(memory, 1))
        huge, other = taken(memory, 100), taken(memory, 1)
        self.assertNoResult(huge)
        first.shrink(0)
        alone = self.successResultOf(huge)
        self.assertNoResult(other)
        alone.shrink(0)
        self.successResultOf(other)

    def test_who_leaves_lets_the_next_in(self) -> None:
        memory = Memory(10)
        self.successResultOf(taken(memory, 8))
        large, small = taken(memory, 9), taken(memory, 2)
        large.cancel()
        self.successResultOf(small)
        self.assertEqual(memory.held, 10)

    def test_nothing_is_never_waited_for(self) -> None:
        memory = Memory(10)
        self.successResultOf(taken(memory, 10))
        taken(memory, 1)
        self.assertEqual(self.successResultOf(taken(memory, 0)).size, 0)

    def test_two_who_grow_do_not_wait_for_each_other(self) -> None:
        memory = Memory(10)
        holdings = [self.successResultOf(taken(memory, 5)) for _ in range(2)]
        growing = [Deferred.fromCoroutine(each.grow(8)) for each in holdings]
        self.successResultOf(growing[0])
        self.assertNoResult(growing[1])
        self.assertEqual(memory.held, 8)
        holdings[0].shrink(0)
        self.successResultOf(growing[1])


def note(holding: Holding | None, held: list[Holding]) -> None:
    """Put *holding* on the list, unless its asker was cancelled."""
    if holding is not None:
        held.append(holding)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 15)), max_size=60))
def test_what_is_held_fits_or_is_held_by_one_and_nobody_is_forgotten(steps: list[tuple[int, int]]) -> None:
    memory = Memory(10)
    held: list[Holding] = []
    waiting: list[Deferred[Holding]] = []
    for step, size in steps:
        if step < 2:
            asked = taken(memory, size)
            waiting.append(asked)
            asked.addCallback(note, held)
        elif step == 2 and held:
            held.pop(size % len(held)).shrink(0)
        elif waiting:
            waiting.pop(size % len(waiting)).cancel()
        sizes = [each.size for each in held if each.size]
        assert memory.held == sum(sizes)
        assert sum(sizes) <= 10 or len(sizes) == 1
    while held:
        held.pop().shrink(0)
    assert memory.held == 0


def test_what_counts_for_little_never_pushes_out_what_counts() -> None:
    table: DividedTable[str, str] = DividedTable(BoundedTable(20, len, len), BoundedTable(20, len, len), str.isupper)
    table.put("good", "GOOD")
    for number in range(1000):
        table.put(f"bad{number}", "bad")
    assert table.get("good") == "GOOD"
    assert table.weight <= 40
    table.put("good", "bad")
    table.put("other", "bad")
    table.put("another", "bad")
    assert table.get("good") is None


def test_a_value_that_changes_weighs_what_it_weighed_when_it_came() -> None:
    table: BoundedTable[str, list[int]] = BoundedTable(100, len, len)
    value = [1, 2, 3]
    table.put("key", value)
    value.extend(range(50))
    table.discard("key")
    assert table.weight == 0
