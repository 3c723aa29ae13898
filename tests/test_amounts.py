"""Amounts as people read them."""

from __future__ import annotations

import pytest

from proxy.core.amounts import duration, moment, size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (999_499, "999.5 kB"),
        (999_999, "1.0 MB"),
        (1_550_000, "1.6 MB"),
        (2_000_000_000, "2.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_bytes_are_said_with_at_most_three_digits_before_the_point(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.003, "3 ms"),
        (0.0994, "99 ms"),
        (0.1, "0.1 s"),
        (0.254, "0.25 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (75.0, "75 s"),
        (150.0, "2.5 min"),
        (5400.0, "90 min"),
        (7200.0, "2 h"),
        (12.5, "12.5 s"),
        (36.4 * 3600, "36.4 h"),
        (60 * 86400.0, "60 d"),
        (5000 * 86400.0, "5000 d"),
    ],
)
def test_a_duration_is_said_in_the_unit_that_suits_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_no_moment_is_a_dash() -> None:
    assert moment(None) == "-"
    assert len(moment(0.0)) == len("1970-01-01 00:00:00")


@pytest.mark.parametrize("seconds", [7.8e12, 1e30, float("inf")])
def test_a_moment_that_no_calendar_has_is_said_in_words(seconds: float) -> None:
    assert moment(seconds) == "after 9999"
    assert moment(-seconds) == "before 1"
