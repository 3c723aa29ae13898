"""Migrations that are killed (SIGKILL) at drawn points, each in a process of its own: ``python -m tests.support.migrating``.

Arguments: the archive of an old data directory, a place to work in, how many points.  A point is a number of calls that Python
has made.  After each kill the directory is claimed as at the next start; what it then says is printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxy.cache.ledger import Ledger
from proxy.cache.migration import LEDGER, LEDGER_COPY, Migration
from proxy.cache.pinned import PinnedBook
from proxy.host import datadir
from proxy.mechanism.offload import Inline, completed
from proxy.storage.local import LocalFiles
from proxy.storage.mirrored import MirroredRecords
from proxy.storage.records import DiskRecords
from tests.support.archives import extract
from tests.support.wheels import seeded


def contents(place: Path) -> dict[str, Any]:
    """What the ledger in the data directory *place* says: digests by name, and the pinned files."""
    records, files = MirroredRecords(place / LEDGER, place / LEDGER_COPY, Inline()), LocalFiles(place, Inline())
    ledger = Ledger(records, 0, Inline())
    try:
        entries = {
            f"{index}/{project}/{name}": entry.sha256
            for index, project in completed(ledger.places())
            for name, entry in completed(ledger.of(index, project)).items()
        }
        pinned = sorted(f"{each.filename} {each.sha256}" for each in completed(PinnedBook(records, ledger, files).files()))
        return {"entries": entries, "pinned": pinned}
    finally:
        completed(records.close())


def format_0(place: Path, values: Mapping[str, bytes]) -> Path:
    """The directory *place* as a version before the ledger leaves it that wrote *values* into both of its databases."""
    place.mkdir(mode=0o700, exist_ok=True)
    for name in Migration.SOURCES:
        records = DiskRecords(place / name, Inline())
        for key in completed(records.keys("")):
            completed(records.delete(key))
        for key, value in values.items():
            completed(records.set(key, value))
        completed(records.close())
    shutil.rmtree(place / "lock", ignore_errors=True)
    (place / "lock").write_text("")
    (place / "instance").write_text("abc\n")
    return place


def in_a_child(work: Callable[[], None]) -> int:
    """Do *work* in a child; how it ended, as a shell would say."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(calls: int, place: Path) -> Callable[[], None]:
    def work() -> None:
        left = calls

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        datadir.claim(place).release()

    return work


def calls_of(place: Path) -> int:
    """How many calls a migration of *place* makes."""
    made = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal made
        made += 1

    sys.setprofile(count)
    datadir.claim(place).release()
    sys.setprofile(None)
    return made


def extracted(archive: Path, place: Path) -> Path:
    """The data directory in *archive*, in *place*."""
    with tarfile.open(archive) as opened:
        extract(opened, place)
    place.chmod(0o700)
    return place


def main() -> None:
    archive, work, points = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    calls = calls_of(extracted(archive, work / "whole"))
    rng = seeded("migration")
    for number in range(points):
        place = extracted(archive, work / str(number))
        status = in_a_child(killed_after(rng.randrange(1, calls), place))
        datadir.claim(place).release()
        sys.stdout.write(json.dumps({"status": status, **contents(place), "left": sorted(os.listdir(place))}) + "\n")
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
