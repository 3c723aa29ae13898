"""Moving in from the real devpi-server and pypiserver: through their indexes, and from their directories."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_twisted

from tests.clients.place import free_port
from tests.clients.tools import tool
from tests.hosting import standing
from tests.support.operator import Operator
from tests.support.process import Ended, Running, environment
from tests.support.wheels import sdist, wheel

FILES = (wheel("app", "1.0"), sdist("app", "1.0"), wheel("app", "2.0"), wheel("other-lib", "0.1"))
CONFIG = '[[index]]\nname = "internal"\nkind = "hosted"\ndefault = true\n'
DIGESTS = sorted(each.sha256 for each in FILES)


def command(home: Path, name: str, program: str, *arguments: str) -> Running:
    return Running().spawn([str(tool(name) / program), *arguments], environment(home), home)


@asynccontextmanager
async def running(home: Path, ready: str, name: str, program: str, *arguments: str) -> AsyncIterator[None]:
    server = command(home, name, program, *arguments)
    try:
        await server.until(lambda: ready in server.output or server.ended is not None, 120.0)
        yield
    finally:
        server.signal(signal.SIGKILL)
        await server.end()


async def imported(home: Path, source: str, data: str) -> Sequence[str]:
    """The digests of what was imported into a new data directory."""
    (home / "pypiproxy.toml").write_text(CONFIG)
    (home / data).mkdir(mode=0o700)
    operator = Operator(home, home / data)
    line = ("--config", str(home / "pypiproxy.toml"), "--data-dir", str(home / data), "internal", "--from", source)
    for done in ("4 files imported", "0 files imported, 0 B; 4 there already, 0 not taken"):
        ended: Ended = await operator.without_directory("hosted", "import", *line)
        assert (ended.status, done in ended.output) == (0, True), ended
    checked = await operator.without_directory("hosted", "check", *line[:5], "--digests")
    assert checked.status == 0, checked
    return sorted(standing(home / data / "hosted" / "internal").values())


def dist(home: Path) -> Path:
    folder = home / "dist"
    folder.mkdir()
    for each in FILES:
        (folder / each.filename).write_bytes(each.data)
    return folder


@pytest_twisted.ensureDeferred
async def test_projects_of_devpi_are_taken_over(tmp_path: Path) -> None:
    folder, port = dist(tmp_path), free_port()
    served = ("--serverdir", str(tmp_path / "devpi"))
    assert (await command(tmp_path, "devpi", "devpi-init", *served, "--no-root-pypi").end()).status == 0
    arguments = (*served, "--host", "127.0.0.1", "--port", str(port))
    async with running(tmp_path, "Serving", "devpi", "devpi-server", *arguments):
        base = f"http://127.0.0.1:{port}"
        for line in (
            ("use", base),
            ("login", "root", "--password="),
            ("user", "-c", "bob", "password=pw"),
            ("login", "bob", "--password=pw"),
            ("index", "-c", "dev"),
            ("use", "bob/dev"),
            ("upload", *(str(folder / each.filename) for each in FILES)),
        ):
            ended = await command(tmp_path, "devpi", "devpi", *line).end()
            assert ended.status == 0, ended
        assert await imported(tmp_path, f"{base}/bob/dev/+simple/", "by-index") == DIGESTS
    export = tmp_path / "export"
    assert (await command(tmp_path, "devpi", "devpi-export", *served, str(export)).end()).status == 0
    assert await imported(tmp_path, str(export / "bob" / "dev"), "by-export") == DIGESTS
    assert await imported(tmp_path, str(tmp_path / "devpi" / "+files"), "by-files") == DIGESTS
    notes = {}
    for way in ("by-index", "by-export"):
        path = tmp_path / way / "hosted" / "internal" / "app" / f"{FILES[0].filename}.json"
        notes[way] = json.loads(path.read_text())
    assert notes["by-index"]["upload_time"] == notes["by-export"]["upload_time"]
    assert notes["by-export"]["uploader"] == "bob"


@pytest_twisted.ensureDeferred
async def test_projects_of_pypiserver_are_taken_over(tmp_path: Path) -> None:
    folder, port = dist(tmp_path), free_port()
    arguments = (
        "run",
        "--interface",
        "127.0.0.1",
        "--port",
        str(port),
        "--passwords",
        ".",
        "--authenticate",
        ".",
        "-v",
        str(folder),
    )
    async with running(tmp_path, "Listening on", "pypiserver", "pypi-server", *arguments):
        assert await imported(tmp_path, f"http://127.0.0.1:{port}/simple/", "by-index") == DIGESTS
    assert await imported(tmp_path, str(folder), "by-directory") == DIGESTS
