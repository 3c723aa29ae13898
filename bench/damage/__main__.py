"""``python -m bench.damage``: exit status 1 when a single promise was broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import react

import bench.damage
from bench.damage.journal import Journal
from bench.damage.running import Plan, run


async def _main(asked: argparse.Namespace) -> int:
    journal = Journal(loud=True)
    plan = Plan(seed=asked.seed, answers=asked.answers)
    if asked.chapter:
        chapters = [replace(each, share=1.0) for each in plan.chapters if each.name in asked.chapter]
        plan = replace(plan, chapters=tuple(replace(each, share=1.0 / len(chapters)) for each in chapters))
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="pypiproxy-damage-", ignore_cleanup_errors=True) as place:
        await run(plan, Path(place), journal, tell)
    print(journal.report())
    print(f"{journal.checked:,} answers checked, {journal.kinds.total()} violations; seed {asked.seed}")
    return 1 if journal.violations else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.damage", description=bench.damage.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chapter", action="append", help="only this one; may be repeated")
    asked = parser.parse_args()
    status = 1

    def start(_: Any) -> Deferred[None]:
        async def work() -> None:
            nonlocal status
            status = await _main(asked)

        return Deferred.fromCoroutine(work())

    try:
        react(start, ())
    except SystemExit as ended:
        sys.exit(ended.code or status)


if __name__ == "__main__":
    main()
