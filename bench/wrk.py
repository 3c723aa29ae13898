"""Hot load: wrk for a few seconds on one URL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

_REPORT = Path(__file__).parent / "report.lua"


class Load(Struct, frozen=True):
    """What one run of wrk measured: rates per second, latencies in seconds."""

    requests: int
    bytes: int
    errors: int
    rate: float
    bytes_rate: float
    p50: float
    p99: float
    slowest: float


class Wrk:
    """A run of wrk that has begun; one thread, *clients* connections.  *varied*: no two requests are the same to the byte."""

    def __init__(self, url: str, headers: Mapping[str, str], clients: int, seconds: int, *, varied: bool = False) -> None:
        named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        self._process = subprocess.Popen(
            ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout=20s", "-s", str(_REPORT), *named, url],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **({"VARIED": "1"} if varied else {})},
        )

    @staticmethod
    def missing() -> str | None:
        """Why it cannot be used here, or ``None``."""
        return None if shutil.which("wrk") else "wrk is not here (Debian: apt install wrk)"

    def result(self) -> Load:
        """Wait for its end."""
        output, _ = self._process.communicate()
        measured = json.loads(output.splitlines()[-1])
        seconds = measured["duration"] / 1e6
        return Load(
            measured["requests"],
            measured["bytes"],
            measured["errors"],
            measured["requests"] / seconds,
            measured["bytes"] / seconds,
            measured["p50"] / 1e6,
            measured["p99"] / 1e6,
            measured["max"] / 1e6,
        )
