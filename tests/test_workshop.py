"""The workshop: each exercise's check says done when its solution has been performed, and not before.

The exercises follow each other in one scratch directory, with one proxy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest_twisted

from tests.support.fake_upstream import FakeUpstream
from tests.support.manual import Block, blocks, fences, sections
from tests.support.process import ROOT, ProxyProcess
from tests.support.scratch import Scratch, with_upstream

WORKSHOP = ROOT / "docs" / "workshop"
EXERCISES = sorted(WORKSHOP.glob("[1-9]-*.md"))


def below(page: Path, heading: str) -> Iterator[Block]:
    """The console blocks of *page* below *heading* that are run."""
    start, end = sections(page).get(heading, (0, 0))
    return (block for block in blocks(page) if start < block.line <= end and block.not_run is None)


def test_the_workshop_has_six_exercises_that_its_first_page_lists() -> None:
    listed = (WORKSHOP / "index.md").read_text("utf-8")
    assert [f"]({page.name})" in listed for page in EXERCISES] == [True] * 6


@pytest_twisted.ensureDeferred
async def test_a_check_says_done_when_the_exercise_is_solved_and_not_before(
    make_proxy: Callable[..., ProxyProcess], upstream: FakeUpstream
) -> None:
    proxy = make_proxy(config=with_upstream(next(fences(EXERCISES[0], "toml")), upstream.url))
    scratch = Scratch(proxy.place, upstream, proxy)
    shutil.copy(WORKSHOP / "check.sh", proxy.place)
    (proxy.place / "internal.toml").write_text(next(fences(EXERCISES[3], "toml")), "utf-8")
    for page in EXERCISES:
        (check,) = below(page, "check")
        (command,) = check.commands
        assert command.shown == ("done",)
        solution = list(below(page, "solution"))
        for block in below(page, "prepare"):
            await scratch.perform(block)
        await scratch.serve()
        before = await scratch.ended(command.text)
        assert (before.status, "not yet: " in before.output, "done" in before.output) == (1, True, False), before.output
        assert solution
        for block in [*solution, check, *below(page, "afterwards")]:
            await scratch.perform(block)
