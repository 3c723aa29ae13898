"""Amounts as people read them."""

from __future__ import annotations

import pytest

from proxy.core.amounts import moment, size


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


def test_no_moment_is_a_dash() -> None:
    assert moment(None) == "-"
    assert len(moment(0.0)) == len("1970-01-01 00:00:00")
