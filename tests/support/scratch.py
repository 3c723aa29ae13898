"""A scratch directory in which the pages of the documentation are tried, with a proxy that is started and stopped as they say.

The proxy runs on a port of its own: where a page says 127.0.0.1:3143 or build-host.example:3143, that one is meant.  Its
upstream is a fake one.  Where a page says port 8099, a free one is meant.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import venv
from contextlib import suppress
from pathlib import Path

import pip
import uv

from tests.support.fake_upstream import FakeUpstream
from tests.support.manual import Block, differs
from tests.support.process import ROOT, Ended, ProxyProcess, environment, for_shells, run
from tests.support.wheels import wheel

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
_SERVER = '[server]\ndata_dir = "data"\n\n'
#: How a configuration names the public index.
_PUBLIC = 'url = "pypi"'


def with_upstream(shown: str, url: str) -> str:
    """The configuration that a page has *shown*, with *url* in the place of the public index."""
    assert shown.count(_PUBLIC) == 1
    return _SERVER + shown.replace(_PUBLIC, f'url = "{url}"')


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
            # what --python would start: it sees what is installed there, and not what is where it comes from
            "pip": f"exec {self.place}/venv/bin/python {Path(pip.__file__).with_name('__pip-runner__.py')}",
            "uv": f"exec {uv.find_uv_bin()}",
            "twine": f"exec {sys.executable} -m twine",
        }.items():
            (folder / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
            (folder / name).chmod(0o755)
        env |= {"UV_NO_CONFIG": "1", "UV_NO_CACHE": "1", "VIRTUAL_ENV": str(self.place / "venv"), "COLUMNS": "200"}
        return {**env, "PATH": f"{folder}:{self.place}/venv/bin:{env['PATH']}"}

    async def perform(self, block: Block) -> None:
        """Run the commands of *block*; fails when one of them ends in another way, or prints other things, than it shows."""
        if not block.without_proxy:
            await self.serve()
        elif self._running:
            await self._proxy.stop()
            self._running = False
        for command in block.commands:
            ended = await self.ended(command.text)
            wanted = block.status if command is block.commands[-1] else 0
            assert ended.status == wanted, f"{block}: {command.text}\n{ended.output}"
            missing = differs(tuple(self._here(line) for line in command.shown), ended.output)
            assert missing is None, f"{block}: {command.text}\nshows: {missing}\nprints:\n{ended.output}"

    async def serve(self) -> None:
        """Start the proxy, unless it runs."""
        if not self._running:
            await self._proxy.started()
            self._running = True

    def _here(self, text: str) -> str:
        """*text* with the ports of this test, and the proxy that `warm` would find at its own port without being told."""
        text = re.sub(r"\b8099\b", str(self._other_port), text)
        if self._running:
            text = re.sub(r"(127\.0\.0\.1|build-host\.example):3143", f"127.0.0.1:{self._proxy.port}", text)
            text = re.sub(r"pypiproxy warm (?!.*--(proxy|config|data-dir))", rf"\g<0>--proxy {self._proxy.base} ", text)
        return text

    async def ended(self, text: str) -> Ended:
        """How the command *text* ends."""
        return await run(["/bin/sh", "-c", self._here(text)], self._env, self.place)

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
