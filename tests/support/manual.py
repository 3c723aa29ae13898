"""The documentation as tests read it: pages, their links and anchors, and the console blocks with what is said about each."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec import Struct

from tests.support.process import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_MARKER = re.compile(r"<!-- (not run: .+|(?:while no proxy runs)?(?:; )?(?:exit status (\d+))?) -->\s*")
_BEFORE_BLOCK = re.compile(r"^(.*)\n\n? *```console$", re.MULTILINE)


class Command(Struct, frozen=True):
    """What is typed at a prompt, and the lines that the page shows below it."""

    text: str
    shown: tuple[str, ...]


class Block(Struct, frozen=True):
    """A console block of *page*, and what the comment before it says of it."""

    page: Path
    line: int
    commands: tuple[Command, ...]
    #: Why it is not run, if it is not.
    not_run: str | None = None
    without_proxy: bool = False
    #: Exit status of the last command.
    status: int = 0

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    """The page in the order of its text."""
    return MarkdownIt().enable("table").parse(page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The names of its headings, as hosting sites and the site's builder make them."""
    return set(sections(page))


def sections(page: Path) -> dict[str, tuple[int, int]]:
    """The lines of each section, from its heading to the next one of its level, by the name of the heading.

    That of a page's title ends at the next heading.
    """
    seen: Counter[str] = Counter()
    found: dict[str, tuple[int, int]] = {}
    headings = [
        (opening.tag, (opening.map or [0])[0], "".join(each.content for each in inline.children or ()))
        for opening, inline in zip(tokens(page), tokens(page)[1:], strict=False)
        if opening.type == "heading_open"
    ]
    for number, (level, line, text) in enumerate(headings):
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        later = (start for other, start, _ in headings[number + 1 :] if other <= level or level == "h1")
        found[name if not seen[name] else f"{name}-{seen[name]}"] = line, next(later, sys.maxsize)
        seen[name] += 1
    return found


def section(page: Path, anchor: str) -> str:
    """The text below the heading named *anchor*, with it."""
    start, end = sections(page)[anchor]
    return "\n".join(page.read_text("utf-8").splitlines()[start:end])


def links(page: Path) -> Iterator[str]:
    """Where its links lead, as written."""
    for token in tokens(page):
        for each in token.children or ():
            if each.type == "link_open":
                yield str(each.attrs["href"])


def blocks(page: Path) -> Iterator[Block]:
    """Its console blocks."""
    before: Token | None = None
    for token in tokens(page):
        if token.type == "fence" and token.info == "console":
            yield _block(page, token, before)
        before = token


def seems_to_have_blocks_to_run(page: Path) -> bool:
    """Whether some console block of it is to be run, at a glance: which tests there are must be known without reading all."""
    before = _BEFORE_BLOCK.findall(page.read_text("utf-8"))
    return any(not each.startswith("<!-- not run: ") for each in before)


def fences(page: Path, kind: str) -> Iterator[str]:
    """What is in its fenced blocks of the *kind*."""
    for token in tokens(page):
        if token.type == "fence" and token.info == kind:
            yield token.content


def _block(page: Path, fence: Token, before: Token | None) -> Block:
    line = (fence.map or [0])[0] + 1
    marker = _MARKER.fullmatch(before.content) if before is not None and before.type == "html_block" else None
    said = marker[1] if marker else ""
    reason = said.removeprefix("not run: ") if said.startswith("not run: ") else None
    status = int(marker[2]) if marker and marker[2] else 0
    return Block(page, line, tuple(_commands(fence.content)), reason, "while no proxy runs" in said, status)


def _commands(text: str) -> Iterator[Command]:
    prompt = text[:2]  # "$ ", or "# " for root: what is printed may begin with the other one
    command, shown = "", list[str]()
    for line in text.splitlines():
        if line.startswith(prompt):
            if command:
                yield Command(command, tuple(shown))
            command, shown = line[2:], []
        elif command.endswith("\\") and not shown:
            command += "\n" + line
        else:
            shown.append(line)
    yield Command(command, tuple(shown))


def differs(shown: tuple[str, ...], output: str) -> str | None:
    """The first line of *shown* that *output* has not, in this order.

    Numbers, times and the width of columns may differ; ``…`` stands for anything.
    """
    lines = iter([_plain(line) for line in output.splitlines()])
    for line in shown:
        wanted = re.compile(".*".join(re.escape(part) for part in _plain(line).split("…")))
        if not any(wanted.fullmatch(each) for each in lines):
            return line
    return None


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*", "0", line)).strip()
