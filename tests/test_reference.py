"""The documentation's index: reference pages are those that the code defines, and questions lead to short answers."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from proxy.cli import COMMANDS
from proxy.web.site import ROUTES
from tests.support import commands_page, configuration_page, http_page
from tests.support.manual import anchors, links, section, sections
from tests.support.process import ROOT

README = ROOT / "README.md"
#: What a person reads in three minutes (words), at 230 per minute.
THREE_MINUTES = 700
_QUESTIONS = re.compile(r"^\| ([^|]+\?[^|]*) \| (.+) \|$", re.MULTILINE)
QUESTIONS = _QUESTIONS.findall(section(README, "twenty-questions-of-an-operator"))


@pytest.mark.parametrize("generated", [commands_page, configuration_page, http_page], ids=lambda each: each.__name__)
def test_a_reference_page_is_that_of_the_code(generated: ModuleType) -> None:
    if generated is configuration_page:
        pytest.importorskip("ldap", reason="python-ldap is not here (pip install 'pypiproxy[ldap]')")
    assert generated.PAGE.read_text("utf-8") == generated.page(), f"run python -m {generated.__name__}"


def test_every_command_and_every_path_has_a_place_on_its_page() -> None:
    assert set(COMMANDS) <= anchors(commands_page.PAGE)
    text = http_page.PAGE.read_text("utf-8")
    assert [pattern for pattern in ROUTES if f"| `{pattern or '/'}` |" not in text] == []


def test_there_are_twenty_questions() -> None:
    assert len({question for question, _ in QUESTIONS}) == 20


@pytest.mark.parametrize(("question", "answer"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_a_question_is_answered_within_three_minutes(question: str, answer: str) -> None:
    words = 0
    found = re.findall(r"\]\(([^)#]+)#([^)]+)\)", answer)
    assert found, question
    for page, anchor in found:
        assert anchor in sections(ROOT / page), f"{question} {page} has no heading {anchor}"
        words += len(section(ROOT / page, anchor).split())
    assert 20 <= words <= THREE_MINUTES, f"{question} {words} words"


def test_a_section_ends_where_another_of_its_level_begins(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nbefore [it](#one)\n\n## One\n\na\n\n### Below\n\nb\n\n## Two\n\nc\n")
    assert section(page, "one").split() == ["##", "One", "a", "###", "Below", "b"]
    assert section(page, "two").split() == ["##", "Two", "c"]
    assert section(page, "page").split() == ["#", "Page", "before", "[it](#one)"]  # of a page, what comes before its sections
    assert list(links(page)) == ["#one"]
