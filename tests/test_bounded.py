"""The table bounded in bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.bounded import BoundedTable, Told


def test_what_was_not_used_for_longest_goes_first() -> None:
    table: BoundedTable[str, bytes] = BoundedTable(30, len)
    for key in "abc":
        table.put(key, bytes(10))
    table.get("a")
    table.put("d", bytes(10))
    assert [key for key in "abcd" if table.get(key) is not None] == ["a", "c", "d"]


def test_what_is_heavier_than_the_limit_is_not_kept() -> None:
    table: BoundedTable[str, bytes] = BoundedTable(30, len)
    table.put("big", bytes(31))
    assert table.get("big") is None
    assert table.weight == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.binary(max_size=20)))))
def test_the_weight_is_always_that_of_the_contents_and_within_the_limit(steps: list[tuple[str, bytes | None]]) -> None:
    table: BoundedTable[str, bytes] = BoundedTable(30, len)
    for key, value in steps:
        if value is None:
            table.discard(key)
        else:
            table.put(key, value)
        assert table.weight == sum(len(table.get(each) or b"") for each in "abcdef") <= 30


def test_each_is_told_once_and_the_last_ones_are_remembered() -> None:
    told = Told()
    names = [f"192.0.2.{number}" for number in range(10_000)]
    assert all(told.is_first(name) for name in names)
    assert not told.is_first(names[-1])
    assert not told.is_first(names[-100])
    assert told.is_first(names[0])
