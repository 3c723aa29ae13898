"""The documentation: its links lead somewhere, its index is complete, and its console blocks do what they show.

Each page has a scratch directory and at most one proxy, which runs on a port of its own: where a page says 127.0.0.1:3143 or
build-host.example:3143, that one is meant.  Its upstream is a fake one.  Where it says port 8099, a free one is meant.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import venv
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pip
import pytest
import pytest_twisted
import uv

from tests.support.fake_upstream import FakeUpstream
from tests.support.manual import PAGES, Block, Command, anchors, blocks, differs, fences, links
from tests.support.process import ROOT, Ended, ProxyProcess, environment, for_shells, run
from tests.support.wheels import wheel

README = ROOT / "README.md"
CHECKED = [page for page in PAGES if any(block.not_run is None for block in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- links --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    dead = []
    for link in links(page):
        parts = urlsplit(link)
        target = page if not parts.path else (page.parent / parts.path).resolve()
        if parts.scheme:
            continue
        if not target.is_file() or (parts.fragment and parts.fragment not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_readme_lists_every_page() -> None:
    index = README.read_text("utf-8").partition("\n## Documentation\n")[2].partition("\n## ")[0]
    listed = {(ROOT / each).resolve() for each in re.findall(r"\]\(([^)]+\.md)\)", index)}
    assert listed == {page for page in PAGES if page != README}


# -- console blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_needs_root_says_that_it_is_not_run(page: Path) -> None:
    text = page.read_text("utf-8")
    for block in re.findall(r"^(.*)\n```console\n# ", text, re.MULTILINE):
        assert block.startswith("<!-- not run: "), block


class Scratch:
    """A directory with what the pages take for granted: the commands, an upstream, a configuration and requirements."""

    def __init__(self, place: Path, upstream: FakeUpstream, proxy: ProxyProcess) -> None:
        self.place = place
        self._proxy = proxy
        self._running = False
        self._other_port = free_port()
        for name, requires in PROJECTS.items():
            for version, size in (("1.0", 20_000), ("1.1", 21_000)):
                made = wheel(name, version, requires=requires, size=size)
                upstream.add_file(name, made.filename, made.data, metadata=made.metadata)
        for name, content in FILES.items():
            (place / name).write_text(content, "utf-8")
        (place / "dist").mkdir()
        (place / "dist" / OWN.filename).write_bytes(OWN.data)
        data = place / ".local" / "share" / "pypiproxy"
        proxy.data_dir.mkdir(mode=0o700)
        data.parent.mkdir(parents=True)
        data.symlink_to(proxy.data_dir)
        self._env = self._environment()

    def _environment(self) -> dict[str, str]:
        venv.EnvBuilder(symlinks=True).create(self.place / "venv")
        folder = self.place / "bin"
        folder.mkdir()
        env = environment(self.place, PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_CACHE_DIR="1")
        env, pypiproxy = for_shells(env)
        for name, command in {
            "pypiproxy": pypiproxy,
            # as --python, it sees what is installed there, and not what is where it comes from
            "pip": f"exec {sys.executable} {Path(pip.__file__).parent} --python {self.place}/venv/bin/python",
            "uv": f"exec {uv.find_uv_bin()}",
            "twine": f"exec {sys.executable} -m twine",
        }.items():
            (folder / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
            (folder / name).chmod(0o755)
        env |= {"UV_NO_CONFIG": "1", "UV_NO_CACHE": "1", "VIRTUAL_ENV": str(self.place / "venv"), "COLUMNS": "200"}
        return {**env, "PATH": f"{folder}:{self.place}/venv/bin:{env['PATH']}"}

    async def perform(self, block: Block) -> None:
        """Run the commands of *block*; fails when one of them ends in another way, or prints other things, than it shows."""
        if block.without_proxy == self._running:
            await (self._proxy.stop() if self._running else self._proxy.started())
            self._running = not self._running
        for command in block.commands:
            ended = await self._run(self._here(command.text))
            wanted = block.status if command is block.commands[-1] else 0
            assert ended.status == wanted, f"{block}: {command.text}\n{ended.output}"
            missing = differs(tuple(self._here(line) for line in command.shown), ended.output)
            assert missing is None, f"{block}: {command.text}\nshows: {missing}\nprints:\n{ended.output}"

    def _here(self, text: str) -> str:
        """*text* with the ports of this test, and the proxy that `warm` would find at its own port without being told."""
        text = re.sub(r"\b8099\b", str(self._other_port), text)
        if self._running:
            text = re.sub(r"(127\.0\.0\.1|build-host\.example):3143", f"127.0.0.1:{self._proxy.port}", text)
            text = re.sub(r"pypiproxy warm (?!.*--(proxy|config|data-dir))", rf"\g<0>--proxy {self._proxy.base} ", text)
        return text

    async def _run(self, text: str) -> Ended:
        return await run(["/bin/sh", "-c", text], self._env, self.place)

    def end(self) -> None:
        """End what a page has started and, because its block failed, not ended."""
        for file in self.place.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text("ascii")), signal.SIGTERM)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


PROJECTS = {
    "requests": ["charset-normalizer", "idna", "urllib3", "certifi"],
    **dict.fromkeys(["charset-normalizer", "idna", "urllib3", "certifi", "six", "attrs"], ()),
    "python-dateutil": ["six"],
}
FILES = {
    "requirements.txt": "requests\n",
    "pypiproxy.sh": (ROOT / "conf" / "fail-open" / "pypiproxy.sh").read_text("utf-8"),
    "inside.toml": '[server]\ndata_dir = "inside"\n[[index]]\nname = "pypi"\noffline = true\n',
}
#: What a page takes for the user's own.
OWN = wheel("acme-tool")
SERVER = '[server]\ndata_dir = "data"\n\n'
#: How a configuration names the public index.
PUBLIC = 'url = "pypi"'
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
    assert shown.count(PUBLIC) == 1
    return SERVER + shown.replace(PUBLIC, f'url = "{url}"')


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
