"""A process that promotes a release between two hosted indexes, and kills itself on the way.

``python -m tests.support.promoting DATA VERSION COUNT`` promotes ``app`` VERSION from ``dev`` to ``stable``.  It ends by ``kill
-9`` right before the COUNT-th change that it makes to a file or a directory after it has begun, and prints ``promoted`` if it
has not come to that.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from proxy.service import build
from proxy.settings import ServerSettings, Settings
from tests.hosting import hosted

reactor: Any = default_reactor
#: What is counted (the audit events of Python).
CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir")
INDEXES = hosted("dev"), hosted("stable", default=False)


def die_at(count: int) -> None:
    """Have this process killed before its *count*-th change."""
    seen = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal seen
        if event in CHANGES and "hosted" in repr(arguments):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def work(data: Path, version: str, count: int) -> None:
    settings = Settings(server=ServerSettings(data_dir=data, listen=(), drain_time=1.0), upstreams=(), indexes=INDEXES)
    service = build(settings, reactor, serving=False)
    service.startService()
    die_at(count)
    await service.administration.perform("promote", source="dev", target="stable", project="app", version=version)
    sys.stdout.write("promoted\n")
    sys.stdout.flush()
    await service.stopService()


def main() -> None:
    data, version, count = sys.argv[1:]
    done = Deferred.fromCoroutine(work(Path(data), version, int(count)))

    def ended(outcome: object) -> None:
        if isinstance(outcome, Failure):
            sys.stdout.write(outcome.getTraceback())
        reactor.stop()

    reactor.callWhenRunning(lambda: done.addBoth(ended))
    reactor.run()


if __name__ == "__main__":
    main()
