"""What waits for a store at one moment is answered together, and nobody pays for what another one asked."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from proxy.errors import StorageFailed
from proxy.storage.records import DiskRecords
from proxy.storage.together import Posed, Together, settle_each
from tests.support.queue import Queue
from tests.test_versioned import no_file_above


def outcome_of(waiting: Deferred[Any]) -> Any:
    """What came of it: a value, or the kind of a failure."""
    found: list[Any] = []
    waiting.addCallbacks(found.append, lambda failure: found.append(failure.type))
    (what,) = found
    return what


def asked(question: Awaitable[Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(question)  # type: ignore[arg-type]  # what is asked are coroutines


@given(st.lists(st.lists(st.integers(-3, 3), max_size=5), max_size=5), st.sets(st.integers(0, 24)))
def test_each_question_is_answered_once_in_order(rounds: list[list[int]], cancelled: set[int]) -> None:
    queue, batches = Queue(), []

    def answer(batch: Sequence[Posed[int]]) -> None:
        batches.append([each.question for each in batch])
        settle_each(batch, lambda question: 6 // question)

    together: Together[int] = Together(queue, answer)  # type: ignore[arg-type]  # run alone
    number, expected = 0, []
    for questions in rounds:
        waiting = [(question, asked(together.ask(question))) for question in questions]
        left = []
        for question, each in waiting:
            if number in cancelled:
                each.cancel()
                assert outcome_of(each) is CancelledError
            else:
                left.append((question, each))
            number += 1
        queue.begin()
        assert [outcome_of(each) for _, each in left] == [
            6 // question if question else ZeroDivisionError for question, _ in left
        ]
        expected += [[question for question, _ in left]] if left else []
    assert batches == expected


def test_nobody_waits_for_ever_for_what_was_not_settled() -> None:
    def broken(batch: Sequence[Posed[int]]) -> None:
        batch[0].have("answered")
        raise RuntimeError("a fault")

    queue = Queue()
    together: Together[int] = Together(queue, broken)  # type: ignore[arg-type]  # run alone
    waiting = [asked(together.ask(number)) for number in range(3)]
    queue.begin()
    assert [outcome_of(each) for each in waiting] == ["answered", RuntimeError, RuntimeError]


def test_records_that_wait_are_kept_with_one_look_at_the_directory(tmp_path: Path) -> None:
    looks = []
    queue = Queue()
    records = DiskRecords(tmp_path / "records", queue, ours=lambda: not looks.append(1))  # type: ignore[arg-type,func-returns-value]
    before = asked(records.get("a"))
    queue.begin()
    assert outcome_of(before) is None
    looks.clear()
    waiting = [
        asked(records.set("a", b"first")),
        asked(records.set_all({"a": b"second", "b": b"of b"})),
        asked(records.get("a")),
        asked(records.set("large", bytes(100_000))),
        asked(records.delete("b")),
        asked(records.set("b", b"again")),
        asked(records.keys("")),
    ]
    queue.begin()
    assert [outcome_of(each) for each in waiting] == [None, None, b"second", None, True, None, ["a", "b", "large"]]
    assert len(looks) == 1
    after = asked(records.get("b"))
    queue.begin()
    assert outcome_of(after) == b"again"
    assert len(looks) == 2
    closing = asked(records.close())
    queue.begin()
    assert closing.called


def test_a_record_that_there_is_no_room_for_keeps_no_other_out(tmp_path: Path) -> None:
    queue = Queue()
    records = DiskRecords(tmp_path / "records", queue)  # type: ignore[arg-type]  # run alone
    first = asked(records.set("a", b""))
    queue.begin()
    assert outcome_of(first) is None
    with no_file_above(200_000):
        waiting = [
            asked(records.set("b", b"small")),
            asked(records.set_all({f"many/{number}": bytes(25_000) for number in range(40)})),
            asked(records.set("c", b"small")),
        ]
        queue.begin()
        assert [outcome_of(each) for each in waiting] == [None, StorageFailed, None]
    kept = asked(records.keys(""))
    queue.begin()
    assert outcome_of(kept) == ["a", "b", "c"]
    closing = asked(records.close())
    queue.begin()
    assert closing.called


@pytest.mark.parametrize("there", [True, False])
def test_while_the_directory_is_not_the_right_one_no_record_is_kept(tmp_path: Path, *, there: bool) -> None:
    queue = Queue()
    records = DiskRecords(tmp_path / "records", queue, ours=lambda: there)  # type: ignore[arg-type]  # run alone
    waiting = [asked(records.set(key, b"")) for key in "ab"]
    queue.begin()
    assert {outcome_of(each) for each in waiting} == {None if there else StorageFailed}
    closing = asked(records.close())
    queue.begin()
    assert closing.called
