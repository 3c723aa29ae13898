"""The bench's command: measures this proxy beside other servers, prints a table and writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.cold import COLD
from bench.counting import COUNTING
from bench.peers import Devpi, Proxpi, Pypiron
from bench.probing import PROBING
from bench.process import ORIGINAL, cores
from bench.reloading import RELOADING
from bench.resolving import RESOLVING
from bench.rounds import measure
from bench.scenarios import SCENARIOS, Scenario, Settings
from bench.servers import Direct, Nginx, Pypiproxy, Server, TwistedWeb
from bench.stampede import STAMPEDE
from bench.starting import STARTING
from bench.table import Row, table
from bench.upstream import ROOT, Upstream
from bench.wrk import Wrk

#: All servers by name; the first is the one that the others are compared with.
SERVERS: dict[str, type[Server]] = {each.name: each for each in (Nginx, Pypiproxy, Pypiron, Devpi, Proxpi)}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one repetition of a second of the short ones: does it work at all?"
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="scenarios whose name contains NAME")
    parser.add_argument("--servers", default=",".join(SERVERS), help="which, the one to compare with first (%(default)s)")
    parser.add_argument(
        "--repetitions", type=int, default=3, help="of each measurement, the servers taking turns (%(default)s)"
    )
    parser.add_argument("--seconds", type=int, default=4, help="of each hot measurement (%(default)s)")
    parser.add_argument("--herd", type=int, default=100, help="clients that ask for a cold page or file at once (%(default)s)")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="where to write figures (%(default)s)")
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write.  The exit status is 1 when nothing could be measured."""
    asked = _arguments(arguments)
    if asked.quick:
        asked.repetitions, asked.seconds, asked.herd = 1, 1, 20
    scenarios = [
        each
        for each in (*SCENARIOS, *COLD, STAMPEDE, RELOADING, *RESOLVING, STARTING, *PROBING, *COUNTING)
        if any(part in each.name for part in asked.only or [""])
    ]
    if asked.quick and not asked.only:
        scenarios = [each for each in scenarios if not each.long]
    if asked.list:
        print("\n".join(each.name for each in scenarios))
        return 0
    unknown = [name for name in asked.servers.split(",") if name not in SERVERS]
    if unknown:
        print(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}", file=sys.stderr)
        return 1
    names = [name for name in asked.servers.split(",") if _there(SERVERS[name].missing())]
    if not _there(Wrk.missing()):
        scenarios = [each for each in scenarios if not each.needs_wrk]
    if not names or not scenarios:
        return 1
    load_core, server_core = cores()
    if load_core == server_core:
        print("only one core: load and server share it", file=sys.stderr)
    os.sched_setaffinity(0, {load_core})
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pypiproxy-bench-")))
        upstream = Upstream(load_core, place)
        stack.callback(upstream.stop)
        servers = [SERVERS[name](upstream.base, server_core, place / name) for name in names]
        direct = Direct(upstream.base, load_core, place / Direct.name)
        bare = TwistedWeb(upstream.base, server_core, place / TwistedWeb.name)
        for server in (*servers, bare):
            stack.callback(server.stop)
        settings = Settings(upstream, asked.seconds, asked.herd, place)
        rows = [
            row
            for scenario in scenarios
            for row in measure(scenario, settings, _compared(scenario, direct, bare, servers), asked.repetitions)
        ]
    print("\n\n".join(table(list(group), names) for _, group in groupby(rows, lambda row: row.reference)))
    _write(asked, rows, names)
    print(f"\nherds of {asked.herd}; load average {os.getloadavg()[0]:.1f}; figures in {asked.json}")
    return 0


def _compared(scenario: Scenario, direct: Server, bare: Server, servers: Sequence[Server]) -> Sequence[Server]:
    """The servers that *scenario* is about, its reference first."""
    if scenario.alone:
        return [server for server in servers if isinstance(server, Pypiproxy)]
    if scenario.against_bare:
        return [bare, *(server for server in servers if isinstance(server, Pypiproxy))]
    return [direct, *servers] if scenario.against_direct else servers


def _there(missing: str | None) -> bool:
    if missing is not None:
        print(f"left out: {missing}", file=sys.stderr)
    return missing is None


def _write(asked: argparse.Namespace, rows: Sequence[Row], servers: Sequence[str]) -> None:
    document = {
        "command": shlex.join(sys.argv),
        "versions": {name: SERVERS[name].version() for name in servers},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "cores": len(ORIGINAL),
            "python": platform.python_version(),
            "load_average": os.getloadavg()[0],
        },
        "settings": {"seconds": asked.seconds, "repetitions": asked.repetitions, "herd": asked.herd},
        "servers": list(servers),
        "figures": [row.document() for row in rows],
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(document, indent=1), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
