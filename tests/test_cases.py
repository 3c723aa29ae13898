"""A run with ``--cases``: every test is in it, some of its cases are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import evenly, some_cases


@given(st.integers(1, 1000), st.integers(1, 20))
def test_cases_are_different_and_as_many_as_can_be_from_the_first_one_to_the_last(count: int, most: int) -> None:
    taken = evenly(count, most)
    assert taken == sorted(set(taken))
    assert len(taken) == min(count, most)
    assert taken[0] == 0
    assert taken[-1] == (count - 1 if most > 1 else 0)


@pytest.mark.parametrize("case", range(7))
def test_of_each_test_some_cases_are_taken(request: pytest.FixtureRequest, case: int) -> None:
    items = [each for each in request.session.items if each.path.stem == "test_cases"]
    taken, left_out = some_cases(items, 3)
    assert sorted([*taken, *left_out], key=items.index) == items
    assert {each.name.partition("[")[0] for each in taken} == {each.name.partition("[")[0] for each in items}
    of_this = [each.name.partition("[")[2] for each in taken if each.name.startswith("test_of_each_test")]
    all_of_it = [each.name.partition("[")[2] for each in items if each.name.startswith("test_of_each_test")]
    assert of_this == [all_of_it[place] for place in evenly(len(all_of_it), 3)]
