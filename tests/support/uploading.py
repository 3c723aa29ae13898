"""A process that uploads wheels into a hosted index of its own, for tests that kill it or give it a small disk.

``python -m tests.support.uploading DATA FIRST LAST SIZE`` uploads the wheels FIRST to LAST with SIZE bytes of ballast, and
writes a line for each step: ``begun N``, ``writing N``, ``accepting N``, then ``new N``, ``same N`` or ``failed N`` with the
reason.  At the end it writes ``left`` and what is in the directories of files, and ``page`` with the files that are listed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.errors import NotFound, ProxyError
from proxy.service import build
from proxy.settings import ServerSettings, Settings
from tests.hosting import form_of, hosted
from tests.support.wheels import Distribution, wheel

reactor: Any = default_reactor
INDEX = "internal"


def numbered(number: int, size: int) -> Distribution:
    """The wheel with that number."""
    return wheel(f"big{number % 3}", f"{number}.0", size=size, seed=number)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def work(data: Path, first: int, last: int, size: int) -> None:
    settings = Settings(server=ServerSettings(data_dir=data, listen=(), drain_time=1.0), upstreams=(), indexes=(hosted(INDEX),))
    service = build(settings, reactor)
    service.startService()
    receiving = service.receiving[INDEX]
    for number in range(first, last + 1):
        each = numbered(number, size)
        try:
            incoming = await receiving.begin(each.filename, len(each.data))
            try:
                say("begun", number)
                for start in range(0, len(each.data), 65_536):
                    await incoming.write(each.data[start : start + 65_536])
                    say("writing", number)
                say("accepting", number)
                say((await incoming.accept(form_of(each), "ci")).value, number)
            finally:
                await incoming.discard()
        except ProxyError as error:
            say("failed", number, type(error).__name__, error)
    for folder in ("hosted", "partial", "files"):
        for path in sorted((data / folder).rglob("*")):
            if path.is_file():
                say("left", path.relative_to(data))
    for project in ("big0", "big1", "big2"):
        try:
            page = await (await service.indexes[INDEX].repository.page(project)).load()
        except NotFound:
            continue
        for file in page.files:
            say("page", file.filename)
    await service.stopService()


def main() -> None:
    data, *numbers = sys.argv[1:]
    done = Deferred.fromCoroutine(work(Path(data), *map(int, numbers)))

    def ended(outcome: object) -> None:
        if isinstance(outcome, Failure):
            say(outcome.getTraceback())
        reactor.stop()

    reactor.callWhenRunning(lambda: done.addBoth(ended))
    reactor.run()


if __name__ == "__main__":
    main()
