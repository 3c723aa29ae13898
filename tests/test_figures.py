"""Figures of statistics: sums stay right whatever is merged, trimmed or encoded, and every moment is counted once."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.figures import (
    OTHERS,
    Bucket,
    Dimension,
    Resolution,
    Stretch,
    Sums,
    bucket_of,
    covering,
    due,
    outdated,
    wholes_of,
)

HOUR, DAY = 3600, 86400
NAMES = st.sampled_from([f"n{number}" for number in range(60)])
TALLIES = st.builds(Sums, st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 9), waited=st.integers(0, 9))


@st.composite
def counted(draw: st.DrawFn) -> list[tuple[Dimension, tuple[str, ...], Sums]]:
    def row() -> tuple[Dimension, tuple[str, ...], Sums]:
        dimension = draw(st.sampled_from(list(Dimension)))
        return dimension, tuple(draw(NAMES) for _ in dimension.columns), draw(TALLIES)

    return [row() for _ in range(draw(st.integers(0, 40)))]


def sums(bucket: Bucket) -> dict[Dimension, tuple[int, int]]:
    return {
        each: (sum(row.requests for row in bucket[each].values()), sum(row.bytes for row in bucket[each].values()))
        for each in Dimension
    }


def filled(rows: list[tuple[Dimension, tuple[str, ...], Sums]]) -> Bucket:
    bucket = Bucket(Resolution.MINUTE)
    for dimension, key, tally in rows:
        bucket.count(dimension, key, tally)
    return bucket


@given(counted(), counted())
def test_nothing_is_lost_by_merging_trimming_and_encoding(one: list, other: list) -> None:  # type: ignore[type-arg]  # rows
    first, second = filled(one), filled(other)
    whole = Bucket(Resolution.HOUR)
    whole.add(first)
    whole.add(second)
    whole.trim()
    again = bucket_of(Resolution.HOUR, whole.encoded())
    assert sums(again) == sums(whole)
    both = [sums(each) for each in (first, second)]
    assert sums(whole) == {each: tuple(map(sum, zip(*(some[each] for some in both), strict=True))) for each in Dimension}


def test_a_table_never_becomes_large_and_keeps_what_is_asked_for_most() -> None:
    bucket = Bucket(Resolution.MINUTE)
    limit = Dimension.PROJECTS.limit(Resolution.MINUTE)
    for number in range(20 * limit):
        bucket.count(Dimension.PROJECTS, ("pypi", f"p{number}"), Sums(1))
        bucket.count(Dimension.PROJECTS, ("pypi", "six"), Sums(1))
        assert len(bucket[Dimension.PROJECTS]) <= 2 * limit + 18
    bucket.trim()
    rows = bucket[Dimension.PROJECTS]
    assert len(rows) <= limit + 1
    assert rows["pypi", "six"].requests == 20 * limit
    assert sum(each.requests for each in rows.values()) == 40 * limit
    assert rows["pypi", OTHERS].requests > 10 * limit


def test_the_others_stay_with_their_index() -> None:
    bucket = Bucket(Resolution.MINUTE)
    for index in ("one", "two"):
        for number in range(1000):
            bucket.count(Dimension.PROJECTS, (index, f"p{number}"), Sums(1))
    bucket.trim()
    assert {key[0] for key in bucket[Dimension.PROJECTS] if key[1] == OTHERS} == {"one", "two"}


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x81\xa8projects\x91\x91\xa1x", b"\x81\xa8projects\x91\x92\xa1x\x90", b"\x90"]
)
def test_what_is_no_bucket_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        bucket_of(Resolution.DAY, data)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_bucket_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        bucket_of(Resolution.DAY, data)


def test_dimensions_of_a_later_version_are_left_out() -> None:
    assert not bucket_of(Resolution.DAY, b"\x81\xa5later\x91\x92\xa1x\x90")


def run(minutes: list[int], until: int, stops: set[int]) -> tuple[set[Stretch], list[tuple[Stretch, frozenset[int]]]]:
    """What is there at *until* when something is counted in each of *minutes* (numbers), and which minutes each stretch has.

    Nothing is tidied during the hours in *stops*: the proxy does not run.
    """
    there: dict[Stretch, frozenset[int]] = {}
    for hour in range(until // HOUR + 1):
        for minute in minutes:
            if minute // 60 == hour:
                there[Resolution.MINUTE, minute * 60] = frozenset({minute})
        if hour in stops:
            continue
        now = (hour + 1) * HOUR
        for each in due(there, now):
            assert each.whole not in there
            there[each.whole] = frozenset[int]().union(*(there[part] for part in each.parts))
        for gone in outdated(there, now):
            del there[gone]
    return set(there), list(there.items())


MINUTES = st.lists(st.integers(0, 14 * 24 * 60), max_size=30, unique=True)
STOPS = st.sets(st.integers(0, 14 * 24), max_size=20)


@given(MINUTES, STOPS, st.integers(0, 15 * DAY), st.integers(0, 15 * DAY))
def test_every_moment_is_counted_once(minutes: list[int], stops: set[int], one: int, other: int) -> None:
    there, contents = run(minutes, 14 * DAY, stops - {14 * 24})
    has = dict(contents)
    since, until = sorted((one, other))
    chosen = covering(there, since, until)
    found = [minute for each in chosen for minute in has[each]]
    assert len(found) == len(set(found))
    wanted = {each for each in minutes if since <= each * 60 and (each + 1) * 60 <= until}
    assert wanted <= set(found)
    # What comes in addition shares its shortest stretch that is still there with the border.
    for each in chosen:
        assert each[1] < until
        assert since < each[1] + each[0].seconds
    assert set(minutes) == {minute for each in covering(there, 0, 20 * DAY) for minute in has[each]}


@given(MINUTES, STOPS)
def test_what_is_kept_is_bounded(minutes: list[int], stops: set[int]) -> None:
    there, _ = run(minutes, 14 * DAY, stops - {14 * 24})
    oldest = {each: min((start for kind, start in there if kind is each), default=14 * DAY) for each in Resolution}
    assert 14 * DAY - oldest[Resolution.MINUTE] <= Resolution.MINUTE.kept + 2 * HOUR
    assert 14 * DAY - oldest[Resolution.HOUR] <= Resolution.HOUR.kept + 2 * DAY


def test_a_minute_belongs_to_its_hour_and_its_day() -> None:
    moment = 3 * DAY + 5 * HOUR + 120
    assert list(wholes_of((Resolution.MINUTE, moment))) == [(Resolution.HOUR, 3 * DAY + 5 * HOUR), (Resolution.DAY, 3 * DAY)]


def test_seconds_saved_are_what_the_hits_would_have_waited() -> None:
    tally = Sums(requests=12, hits=10, hit_seconds=0.5, waited=2, waited_seconds=1.0)
    assert tally.saved_seconds == pytest.approx(4.5)
    assert Sums(requests=3, hits=3).saved_seconds == 0.0
