"""Ranges and the conditions that go with them, against slices of real bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.ranges import (
    UNSATISFIABLE,
    Span,
    content_range,
    if_range_matches,
    none_match,
    parse_range,
    parse_range_unsized,
    unsatisfied_range,
)

ETAG = '"abc"'
DATE = "Tue, 02 Jan 2024 03:04:05 GMT"
positions = st.integers(0, 40)


def taken(header: str, data: bytes) -> bytes | None:
    """The bytes that *header* takes of *data*, ``None`` for 416."""
    span = parse_range(header, len(data))
    assert span is not None
    if not isinstance(span, Span):
        return None
    assert 0 <= span.start < span.stop <= len(data)
    assert span.length == span.stop - span.start
    return data[span.start : span.stop]


@given(st.binary(max_size=30), positions, positions)
def test_first_to_last_is_a_slice(data: bytes, first: int, length: int) -> None:
    assert taken(f"bytes={first}-{first + length}", data) == (data[first : first + length + 1] or None)


@given(st.binary(max_size=30), positions)
def test_an_open_end_takes_the_rest(data: bytes, first: int) -> None:
    assert taken(f"bytes={first}-", data) == (data[first:] or None)


@given(st.binary(max_size=30), positions)
def test_a_suffix_takes_the_last_bytes(data: bytes, length: int) -> None:
    assert taken(f"bytes=-{length}", data) == (data[-length:] or None if length else None)


@given(st.text(), st.integers(0, 100))
def test_any_other_text_is_ignored_or_a_range_within_the_file(header: str, size: int) -> None:
    span = parse_range(header, size)
    assert span is None or span is UNSATISFIABLE or 0 <= span.start < span.stop <= size


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "items=0-1",
        "bytes=+1-2",
        "bytes=٣-٤",
        "bytes=1-2x",
    ],
)
def test_what_is_no_single_range_of_bytes_is_ignored(header: str | None) -> None:
    assert parse_range(header, 10) is None
    assert parse_range_unsized(header) is None


def test_the_unit_is_case_insensitive_and_spaces_do_no_harm() -> None:
    assert parse_range(" Bytes=0-1 ", 10) == Span(0, 2)


def test_the_largest_numbers_clients_send_are_understood() -> None:
    assert parse_range("bytes=0-18446744073709551615", 10) == Span(0, 10)
    assert parse_range("bytes=18446744073709551615-", 10) is UNSATISFIABLE


def test_a_range_is_kept_in_its_own_form_while_the_size_is_unknown() -> None:
    asked = parse_range_unsized("bytes=-5")
    assert asked is not None
    assert (asked.first, asked.last) == (None, 5)
    assert asked.of(20) == Span(15, 20)
    assert asked.of(3) == Span(0, 3)


def test_content_range_counts_inclusively() -> None:
    assert content_range(Span(0, 5), 10) == "bytes 0-4/10"
    assert unsatisfied_range(10) == "bytes */10"


@pytest.mark.parametrize(
    ("header", "etag", "date", "matches"),
    [
        (None, None, None, True),
        (ETAG, ETAG, None, True),
        (' "abc" ', ETAG, None, True),
        ('"other"', ETAG, DATE, False),
        ('W/"abc"', ETAG, DATE, False),
        ('W/"abc"', 'W/"abc"', DATE, False),
        (ETAG, 'W/"abc"', DATE, False),
        (ETAG, None, DATE, False),
        (DATE, ETAG, DATE, True),
        (DATE, ETAG, None, False),
        ("Wed, 03 Jan 2024 03:04:05 GMT", ETAG, DATE, False),
        ("", ETAG, DATE, False),
    ],
)
def test_if_range_compares_strongly(header: str | None, etag: str | None, date: str | None, matches: bool) -> None:
    assert if_range_matches(header, etag, date) is matches


@pytest.mark.parametrize(
    ("header", "has_it"),
    [
        (None, False),
        ("", False),
        (ETAG, True),
        ('W/"abc"', True),
        ('"x", W/"y" , "abc"', True),
        ('"x,abc"', False),
        ("abc", False),
        ("*", True),
        ('"a"abc"', False),
    ],
)
def test_if_none_match_compares_weakly(header: str | None, has_it: bool) -> None:
    assert none_match(header, ETAG) is has_it
    assert none_match(header, f"W/{ETAG}") is has_it
