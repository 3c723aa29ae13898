"""The book of claims: which names belong to hosted indexes, for good, and what is told while that cannot be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace
from twisted.logger import LogEvent, formatEvent

from proxy.cache.claims import ClaimBook
from proxy.core.claims import ClaimState, NameClaim, Patterns
from proxy.errors import StorageFailed
from proxy.mechanism.offload import Inline
from proxy.model import Change
from proxy.storage.mirrored import MirroredRecords
from tests.test_stores import now

CLAIM = NameClaim("internal", "acme-app", ClaimState.CLAIMED, 1000.0, "ann")
HELD = NameClaim("internal", "numpy", ClaimState.HELD, 1001.0, "ann", "index pypi serves it")
OWNS: Mapping[str, Collection[str]] = {"internal": ("tool-*", "one?"), "staging": ()}


class Ledger:
    """The records in a directory, which may be *lost* for a while."""

    def __init__(self, directory: Path) -> None:
        self.lost = False
        self.records = MirroredRecords(directory / "ledger", directory / "ledger-copy", Inline(), ours=lambda: not self.lost)

    def book(self, owns: Mapping[str, Collection[str]] = OWNS) -> ClaimBook:
        """What a service that is started now makes of it."""
        return ClaimBook(self.records, owns)


@pytest.fixture
def ledger(data_dir: Path) -> Iterator[Ledger]:
    made = Ledger(data_dir)
    yield made
    now(made.records.close())


@pytest.mark.parametrize(
    ("name", "matches"),
    [("tool-x", True), ("tool-", True), ("tool", False), ("a-tool-x", False), ("onex", True), ("one", False), ("onexy", False)],
)
def test_a_pattern_matches_a_whole_name(name: str, matches: bool) -> None:
    assert Patterns(OWNS["internal"]).match(name) is matches
    assert not Patterns(()).match(name)


def test_what_is_no_pattern_stands_for_itself() -> None:
    assert Patterns(["a.c"]).match("a.c")
    assert not Patterns(["a.c"]).match("abc")


def test_a_claim_outlives_the_service_and_belongs_to_its_index_alone(ledger: Ledger) -> None:
    assert now(ledger.book().enter([CLAIM])) == [CLAIM]
    book = ledger.book()
    now(book.read())
    assert book.all() == [CLAIM]
    assert book.claimed("internal", "acme-app")
    assert not book.claimed("staging", "acme-app")
    assert not book.claimed("internal", "acme-app2")


def test_the_first_claim_of_an_index_stays(ledger: Ledger) -> None:
    book = ledger.book()
    now(book.enter([CLAIM]))
    before = book.generation
    assert now(book.enter([NameClaim("internal", "acme-app", ClaimState.HELD, 2000.0, "bob")])) == []
    assert (book.all(), book.generation) == ([CLAIM], before)


def test_a_held_name_belongs_to_nobody_until_it_is_put(ledger: Ledger) -> None:
    book = ledger.book()
    now(book.enter([HELD]))
    assert not book.claimed("internal", "numpy")
    assert not book.reserved(["internal"], "numpy")
    before = book.generation
    now(book.put([NameClaim("internal", "numpy", ClaimState.CLAIMED, 1001.0, "ann")]))
    assert book.claimed("internal", "numpy")
    assert book.generation != before


def test_an_index_owns_what_its_patterns_match_without_any_claim(ledger: Ledger) -> None:
    book = ledger.book()
    now(book.read())
    assert book.claimed("internal", "tool-x")
    assert book.reserved(["staging", "internal"], "tool-x")
    assert not book.reserved(["staging"], "tool-x")
    assert book.all() == []


def test_what_was_released_belongs_to_nobody_for_good(ledger: Ledger) -> None:
    book = ledger.book()
    now(book.enter([CLAIM, HELD]))
    now(book.release([CLAIM]))
    assert book.all() == [HELD]
    again = ledger.book()
    now(again.read())
    assert again.all() == [HELD]


def test_the_claims_of_an_index_that_is_not_configured_still_reserve_names_until_they_are_moved(
    ledger: Ledger, logged: list[LogEvent]
) -> None:
    now(ledger.book().enter([CLAIM, HELD]))
    book = ledger.book({"renamed": ()})
    for _ in range(2):
        now(book.begin())
    assert (list(book.abandoned("acme-app")), list(book.abandoned("six"))) == (["internal"], [])
    assert not book.claimed("internal", "acme-app")
    assert book.reserved(["renamed"], "acme-app")
    assert ["pypiproxy claims add INDEX --from internal" in formatEvent(each) for each in logged] == [True]
    assert "numpy" not in formatEvent(logged[0])
    now(book.assign("renamed", ["acme-app", "new"], "an operator", 5000.0))
    assert list(book.abandoned("acme-app")) == []
    assert [(each.index, each.project, each.since, each.by) for each in book.all()] == [
        ("internal", "numpy", 1001.0, "ann"),
        ("renamed", "acme-app", 1000.0, "ann"),
        ("renamed", "new", 5000.0, "an operator"),
    ]


def test_a_start_reports_what_is_held_and_not_what_a_pattern_decides(ledger: Ledger, logged: list[LogEvent]) -> None:
    now(ledger.book().enter([HELD, replace(HELD, project="tool-x")]))
    now(ledger.book().begin())
    (told,) = [formatEvent(each) for each in logged]
    assert "numpy (internal)" in told
    assert "tool-x" not in told


def test_what_was_held_for_an_index_that_is_not_configured_any_more_keeps_nobody_from_the_public_project(
    ledger: Ledger, logged: list[LogEvent]
) -> None:
    now(ledger.book().enter([HELD]))
    book = ledger.book({"renamed": ()})
    now(book.begin())
    assert list(book.abandoned("numpy")) == []
    assert not book.reserved(["renamed"], "numpy")
    assert "numpy" not in book.reservation(["renamed"]).names
    assert logged == []
    now(book.hand_over([HELD], "renamed"))
    assert book.all() == [replace(HELD, index="renamed")]
    now(book.assign("renamed", ["numpy"], "an operator", 5000.0))
    assert book.claimed("renamed", "numpy")


def test_while_claims_cannot_be_read_nothing_is_told_of_any_name_but_of_those_that_match(ledger: Ledger) -> None:
    now(ledger.book().enter([CLAIM]))
    ledger.lost = True
    now(ledger.records.close())
    book = ledger.book()
    for asked in (lambda: book.claimed("internal", "acme-app"), lambda: book.abandoned("six"), lambda: book.all()):
        with pytest.raises(StorageFailed):
            asked()
    for changed in (book.read(), book.enter([HELD]), book.release([CLAIM])):
        with pytest.raises(StorageFailed):
            now(changed)
    assert book.claimed("internal", "tool-x")
    ledger.lost = False
    now(book.read())
    assert book.all() == [CLAIM]


def test_a_claim_that_cannot_be_written_is_none(ledger: Ledger) -> None:
    book = ledger.book()
    now(book.read())
    ledger.lost = True
    with pytest.raises(StorageFailed):
        now(book.enter([CLAIM]))
    assert book.all() == []


def test_a_record_that_makes_no_sense_counts_as_a_claim(ledger: Ledger) -> None:
    now(ledger.records.apply([Change("claim/internal/acme-app", b"\xc1"), Change("claim/internal/six/what", b"\xc1")]))
    book = ledger.book()
    now(book.read())
    assert book.claimed("internal", "acme-app")
    assert [each.project for each in book.all()] == ["acme-app"]
