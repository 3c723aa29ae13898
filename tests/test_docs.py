"""The documentation: its links lead somewhere, its index is complete, and its console blocks do what they show.

Each page has a scratch directory and at most one proxy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_twisted

from tests.support.fake_upstream import FakeUpstream
from tests.support.manual import PAGES, Block, Command, anchors, blocks, differs, fences, links, seems_to_have_blocks_to_run
from tests.support.process import ROOT, ProxyProcess
from tests.support.scratch import Scratch, with_upstream

README = ROOT / "README.md"
#: Pages with blocks that are run; those of the workshop are, one after the other, in tests/test_workshop.py.
CHECKED = [page for page in PAGES if page.parent.name != "workshop" and seems_to_have_blocks_to_run(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links --------------------------------------------------------------------------------------------------------------------


def test_links_lead_to_files_and_headings_that_exist() -> None:
    dead = []
    for page, link in ((each, link) for each in PAGES for link in links(each)):
        parts = urlsplit(link)
        target = page if not parts.path else (page.parent / parts.path).resolve()
        if parts.scheme:
            continue
        if not target.is_file() or (parts.fragment and parts.fragment not in anchors(target)):
            dead.append(f"{name_of(page)}: {link}")
    assert dead == []


def test_the_readme_lists_every_page() -> None:
    index = README.read_text("utf-8").partition("\n## Documentation\n")[2].partition("\n## ")[0]
    listed = {(ROOT / each).resolve() for each in re.findall(r"\]\(([^)]+\.md)\)", index)}
    assert listed == {page for page in PAGES if page != README}


# -- console blocks -----------------------------------------------------------------------------------------------------------


def test_every_page_with_a_block_to_run_is_checked() -> None:
    to_run = [page for page in PAGES if any(block.not_run is None for block in blocks(page))]
    assert [page for page in to_run if page.parent.name != "workshop"] == CHECKED


def test_a_block_that_needs_root_says_that_it_is_not_run() -> None:
    for page in PAGES:
        for block in re.findall(r"^(.*)\n```console\n# ", page.read_text("utf-8"), re.MULTILINE):
            assert block.startswith("<!-- not run: "), (name_of(page), block)


CONFIG = """\
[upstream.pypi]
url = "pypi"

[[index]]
name = "pypi"
upstreams = ["pypi"]
"""
#: Pages that begin with the configuration that they are about.
CONFIGURED = ("docs/private-projects.md", "docs/hosted-indexes.md", "docs/tutorial.md")


def configuration(page: Path, url: str) -> str:
    """What the proxy of *page* is configured with; *url* is that of the upstream."""
    shown = next(fences(page, "toml")) if name_of(page) in CONFIGURED else CONFIG
    return with_upstream(shown, url)


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
@pytest_twisted.ensureDeferred
async def test_console_blocks_do_what_they_show(
    page: Path, make_proxy: Callable[..., ProxyProcess], upstream: FakeUpstream
) -> None:
    proxy = make_proxy(config=configuration(page, upstream.url))
    scratch = Scratch(proxy.place, upstream, proxy)
    try:
        for block in blocks(page):
            if block.not_run is None:
                await scratch.perform(block)
    finally:
        scratch.end()


# -- the reader of pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "output", "missing"),
    [
        (("2 files, 1.3 MB",), "2 files, 17.0 MB\n", None),
        (("a  b", "…", "d"), "a b\nc\nd\n", None),
        (("fetched six-1.0 …",), "fetched six-2.11 4.5 kB\n", None),
        (("d", "a"), "a\nd\n", "a"),
        (("removed six",), "removed attrs\n", "removed six"),
    ],
)
def test_what_a_page_shows_is_compared(shown: tuple[str, ...], output: str, missing: str | None) -> None:
    assert differs(shown, output) == missing


def test_comments_say_how_a_block_is_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n<!-- not run: needs root -->\n```console\n# true\n```\n\n"
        "<!-- while no proxy runs; exit status 3 -->\n```console\n$ echo a \\\n    b\na b\n$ false\n```\n\n"
        "```console\n$ true\n```\n"
    )
    first, second, third = blocks(page)
    assert first == Block(page, 4, (Command("true", ()),), "needs root")
    assert second == Block(page, 9, (Command("echo a \\\n    b", ("a b",)), Command("false", ())), None, True, 3)
    assert third == Block(page, 16, (Command("true", ()),))
