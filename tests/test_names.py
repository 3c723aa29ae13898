"""Names of projects and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.names import is_filename, is_project_name, normalize


@given(st.text())
def test_normalising_twice_changes_nothing_more(name: str) -> None:
    assert normalize(normalize(name)) == normalize(name)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True))
def test_the_normal_spelling_of_a_project_is_one_it_may_have(name: str) -> None:
    assert is_project_name(name)
    assert is_project_name(normalize(name))
    assert set(normalize(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_runs_of_separators_become_one_dash() -> None:
    assert normalize("Friendly-._.Bard") == "friendly-bard"


@pytest.mark.parametrize("name", ["", "-a", "a-", ".", "a b", "a/b", "a\n", "café", "\u017f", "\u212a"])
def test_what_pep_508_rules_out_is_no_project_name(name: str) -> None:
    assert not is_project_name(name)


@pytest.mark.parametrize("name", ["a-1.0+cpu.whl", "a-1!2.0.tar.gz", "a~b.zip", "ünï-1.0.zip", "a" * 255, "..a", " a"])
def test_odd_but_harmless_file_names_are_fine(name: str) -> None:
    assert is_filename(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "a\x7f", "a\x85", "\ud800", "a" * 256, "ü" * 128])
def test_what_could_leave_the_directory_or_break_a_header_is_no_file_name(name: str) -> None:
    assert not is_filename(name)


@given(st.text(st.characters()))
def test_a_file_name_is_one_segment_that_can_be_encoded(name: str) -> None:
    if is_filename(name):
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name
