"""What reads and writes of a store of records cost among many others: ``python -m bench.records [RECORDS]``.

Prints one line per store: milliseconds for each question (the median of several), and what the store takes on the disk.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from proxy.mechanism.offload import Inline
from proxy.model import Change
from proxy.storage.mirrored import MirroredRecords

#: Records unless the command line says otherwise, those of one project, and bytes of each: what a ledger entry takes.
_RECORDS, _EACH, _SIZE = 1_000_000, 100, 400
_TIMES = 9


def main() -> None:
    """Fill a store and ask it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _RECORDS
    place = Path(tempfile.mkdtemp(prefix="pypiproxy-bench-records-"))
    try:
        store = MirroredRecords(place / "ledger", place / "ledger-copy", Inline())
        began = time.perf_counter()
        for batch in _batches(count):
            _now(store.apply(batch))
        print(f"{count:,} records written in {time.perf_counter() - began:.1f} s, {_EACH * _EACH:,} per transaction")
        middle = f"entry/pypi/project-{count // _EACH // 2:07}/"
        last = [0]

        def one() -> Awaitable[Any]:
            last[0] += 1
            return store.apply([Change(f"{middle}new-{last[0]:03}", bytes(_SIZE), expects=0)])

        for what, question in (
            ("read one", lambda: store.read(f"{middle}file-050.whl")),
            (f"scan {_EACH} of one project", lambda: store.scan(middle)),
            ("list the indexes", lambda: store.branches("entry/")),
            ("write one", one),
        ):
            print(f"{what:28}{_milliseconds(question):9.3f} ms")
        size = sum(file.stat().st_size for file in (place / "ledger").iterdir())
        print(f"{'on the disk, each copy':28}{size / 1e6:9.0f} MB")
        _now(store.close())
        began = time.perf_counter()
        shutil.rmtree(place / "ledger")
        _now(store.read("k"))
        print(f"{'a lost copy is made again':28}{(time.perf_counter() - began) * 1e3:9.0f} ms")
        _now(store.close())
    finally:
        shutil.rmtree(place)


def _batches(count: int) -> Iterator[list[Change]]:
    for start in range(0, count, _EACH * _EACH):
        yield [
            Change(f"entry/pypi/project-{number // _EACH:07}/file-{number % _EACH:03}.whl", bytes(_SIZE))
            for number in range(start, min(count, start + _EACH * _EACH))
        ]


def _milliseconds(question: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        _now(question())
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def _now(question: Awaitable[Any]) -> Any:
    """The result of a coroutine that waits for nothing: the store works in this thread."""
    results: list[Any] = []
    Deferred.fromCoroutine(question).addBoth(results.append)  # type: ignore[arg-type]  # stores return coroutines
    return results[0]


if __name__ == "__main__":
    main()
