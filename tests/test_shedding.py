"""Who gives way when too much waits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.shedding import Crowd, GivingWay, giving_way

CLIENTS = st.sampled_from("abcde")
#: Arrivals by client, and departures of the one that has waited at this position.
STEPS = st.lists(st.one_of(CLIENTS, st.integers(0, 1_000_000)), max_size=200)


@pytest.mark.parametrize(
    ("total", "own", "most", "who"),
    [
        (0, 0, 0, GivingWay.NOBODY),
        # A farm behind one address, below the limit.
        (9, 9, 9, GivingWay.NOBODY),
        (10, 10, 10, GivingWay.ARRIVING),
        (10, 0, 10, GivingWay.HEAVIEST),
        (10, 4, 6, GivingWay.HEAVIEST),
        # Taking the place of another would only turn the two around.
        (10, 5, 6, GivingWay.ARRIVING),
        (10, 5, 5, GivingWay.ARRIVING),
        (10, 0, 1, GivingWay.ARRIVING),
        # The limit was lowered meanwhile.
        (12, 0, 10, GivingWay.HEAVIEST),
    ],
)
def test_who_gives_way(total: int, own: int, most: int, who: GivingWay) -> None:
    assert giving_way(total, 10, own, most) is who


@given(STEPS, st.integers(1, 20))
def test_nobody_with_less_than_a_fair_share_gives_way_and_no_more_wait_than_may(steps: list[str | int], limit: int) -> None:
    crowd: Crowd[int] = Crowd()
    waiting: dict[int, str] = {}
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if waiting:
                gone = list(waiting)[step % len(waiting)]
                crowd.remove(waiting.pop(gone), gone)
            continue
        counts = Counter(waiting.values())
        with_it = counts + Counter([step])
        who = giving_way(crowd.total, limit, crowd.count(step), crowd.most)
        assert (who is GivingWay.NOBODY) is (len(waiting) < limit)
        refused: str | None = None
        if who is GivingWay.HEAVIEST:
            refused, victim = crowd.newest_of_heaviest()
            assert victim == max(each for each, client in waiting.items() if client == refused)
            assert refused != step
            crowd.remove(refused, victim)
            del waiting[victim]
        elif who is GivingWay.ARRIVING:
            refused = step
        if who is not GivingWay.ARRIVING:
            crowd.add(step, number)
            waiting[number] = step
        if refused is not None:
            # It has the most, and so at least the fair share of all that would wait.
            assert with_it[refused] == max(with_it.values())
            assert with_it[refused] * len(with_it) >= limit + 1
        assert len(waiting) <= limit
        _is_right(crowd, waiting)


def _is_right(crowd: Crowd[int], waiting: dict[int, str]) -> None:
    counts = Counter(waiting.values())
    assert crowd.total == len(waiting)
    assert crowd.clients == len(counts)
    assert crowd.most == max(counts.values(), default=0)
    assert {each: crowd.count(each) for each in "abcde"} == {each: counts[each] for each in "abcde"}


@given(CLIENTS, CLIENTS)
def test_who_comes_twice_counts_once_and_who_is_not_there_can_leave(client: str, other: str) -> None:
    crowd: Crowd[int] = Crowd()
    crowd.add(client, 1)
    crowd.add(client, 1)
    crowd.remove(other, 2)
    assert (crowd.total, crowd.most) == (1, 1)
    crowd.remove(client, 1)
    crowd.remove(client, 1)
    assert (crowd.total, crowd.most, crowd.clients) == (0, 0, 0)
    with pytest.raises(KeyError):
        crowd.newest_of_heaviest()
