"""Some cases of each parametrized test, for a run that has to do with less."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def some_cases(items: Sequence[pytest.Item], most: int) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Of each test at most *most* cases, the first and the last one and others evenly in between; and what is left out."""
    tests: dict[str, list[int]] = {}
    for number, each in enumerate(items):
        tests.setdefault(each.nodeid.partition("[")[0], []).append(number)
    taken = {cases[place] for cases in tests.values() for place in evenly(len(cases), most)}
    return (
        [each for number, each in enumerate(items) if number in taken],
        [each for number, each in enumerate(items) if number not in taken],
    )


def evenly(count: int, most: int) -> list[int]:
    """At most *most* of the numbers from 0 up to *count*, which itself is not one of them."""
    if count <= most:
        return list(range(count))
    return [place * (count - 1) // max(most - 1, 1) for place in range(most)]
