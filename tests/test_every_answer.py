"""The short form of ``python -m bench.damage``: random damage, an upstream that lies, and every answer checked."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from bench.damage.journal import Journal
from bench.damage.running import MB, Chapter, Plan, run

PLAN = Plan(
    seed=10,
    answers=300,
    chapters=(Chapter("without limits", 1.0),),
    projects=8,
    wide=6,
    largest=200_000,
    round=75,
    bomb=20 * MB,
    endless=1 * MB,
    patience="300ms",
    chances={"kill": 0.3, "restart": 0.3, "database": 0.5, "down": 0.0},
)


@pytest_twisted.ensureDeferred
async def test_under_damage_and_lies_every_answer_is_right_and_in_the_end_everything_is_available(tmp_path: Path) -> None:
    journal = Journal()
    await run(PLAN, tmp_path, journal)
    assert journal.violations == [], "\n".join([journal.report(), *map(str, journal.violations)])
    assert journal.checked >= PLAN.answers
