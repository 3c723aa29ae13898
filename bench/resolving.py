"""Resolving sixty projects with real installers, over a line on which every answer of the upstream takes 50 ms."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pip
import uv

from bench.scenarios import PAGE_HEADERS, Metric, Scenario, Settings, get
from bench.servers import Server
from bench.upstream import SMALL_PAGE
from tests.support.catalogue import REQUIREMENTS

#: Seconds before each answer of the upstream.
DELAY = 0.05
#: Seconds that one resolution may take.
_PATIENCE = 300.0


def _resolving(name: str, command: Callable[[str, str], Sequence[str]], *, long: bool = False) -> Scenario:
    """*command* (of the index's URL and a Python) twice, without a cache of its own: first the server is empty, then it is not.

    What the first server resolves to, which is the upstream itself, the others have to resolve to as well.
    """

    def measure(settings: Settings, server: Server) -> Sequence[float]:
        # The parts that any request needs have run once.
        get(server.page(SMALL_PAGE[0]), PAGE_HEADERS)
        figures = [0.0] * 4
        settings.upstream.delay(DELAY)
        try:
            for turn in range(2):
                settings.upstream.forget()
                began = time.perf_counter()
                found = _run(command(server.index, str(_python(settings.place))), settings.place)
                figures[turn] = time.perf_counter() - began
                figures[2 + turn] = settings.upstream.asked()
                expected = settings.resolved.setdefault(name, found)
                if found != expected:
                    raise RuntimeError(f"resolved to other versions: {sorted(found ^ expected)}")
        finally:
            settings.upstream.delay(0)
        return figures

    return Scenario(
        name,
        (
            Metric("cold", "s", goal=1.0),
            Metric("hot", "s", goal=0.5),
            Metric("cold, upstream requests", ""),
            Metric("hot, upstream requests", ""),
        ),
        measure,
        cold=True,
        needs_wrk=False,
        long=long,
        against_direct=True,
    )


def _uv(index: str, python: str) -> Sequence[str]:
    options = ["--no-config", "--no-cache", "--no-progress", "--no-header", "--no-annotate", "--quiet"]
    return [uv.find_uv_bin(), "pip", "compile", *options, "--python", python, "--index-url", index, "requirements.in"]


def _pip(index: str, python: str) -> Sequence[str]:
    options = ["--no-cache-dir", "--no-input", "--progress-bar=off", "--dry-run", "--index-url", index]
    program = [python, str(Path(pip.__file__).parent), "--isolated", "--disable-pip-version-check"]
    return [*program, "install", *options, "-r", "requirements.in"]


def _run(command: Sequence[str], place: Path) -> frozenset[str]:
    """What *command* resolves to, as ``project-version``.  Raises RuntimeError when it fails."""
    (place / "requirements.in").write_text("\n".join(REQUIREMENTS) + "\n", "utf-8")
    env = {"PATH": os.defpath, "HOME": str(place), "PIP_CONFIG_FILE": os.devnull, "UV_PYTHON_DOWNLOADS": "never"}
    try:
        ended = subprocess.run(
            command,
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not within {_PATIENCE:.0f} s") from None
    if ended.returncode:
        raise RuntimeError(f"exit status {ended.returncode}: {ended.stderr.strip()[-500:]}")
    # pip: "Would install a-1.0 b-2.0"; uv: "a==1.0", one a line.
    would = re.search(r"^Would install (.*)$", ended.stdout, re.MULTILINE)
    found = would[1].split() if would else ended.stdout.replace("==", "-").split()
    if not found:
        raise RuntimeError("resolved to nothing")
    return frozenset(each.lower().replace("_", "-") for each in found)


def _python(place: Path) -> Path:
    """An environment with nothing in it; made once."""
    folder = place / "environment"
    if not folder.exists():
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    return folder / "bin" / Path(sys.executable).name


#: pip asks for one thing after another, and so takes long.
RESOLVING = (_resolving("resolve, uv pip compile", _uv), _resolving("resolve, pip install --dry-run", _pip, long=True))
