"""Has descriptions rendered in a process of their own, which is ended when it takes too long.

Theory of operation.  Whoever may upload writes a description, and a renderer takes minutes for some that are made for that.
A thread cannot be ended; a process can, and it has limits of its own for time and memory, and none of this one's secrets in its
environment.  One renders at a time, and what came of it is remembered, also that nothing did: such a description is shown as it
is written.  So are all while no process can be started, which is logged and tried again.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections import OrderedDict

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.template import Tag

from proxy.interfaces import IOffload
from proxy.mechanism.flight import uninterrupted
from proxy.web.dashboard.descriptions import described

#: Limits of one process: seconds of computing, seconds in all, and bytes of memory.
_COMPUTES, _LASTS, _MEMORY = 5, 15, 1 << 30
#: The longest HTML (bytes), how many are remembered, and how many requests may wait for their turn.
_LONGEST, _REMEMBERED, _WAITING = 500_000, 16, 16
#: Seconds between two log lines that say that no process can be started.
_TELL_EVERY = 60.0
#: How a process ends that a description is too much for, and one that cannot be what it should be.
_TOO_MUCH, _BROKEN = 3, 4
_PROGRAM = f"""
import os, resource, sys
for kind, limit in ((resource.RLIMIT_CPU, int(sys.argv[1])), (resource.RLIMIT_AS, {_MEMORY})):
    resource.setrlimit(kind, (limit, limit))
told = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
try:
    from proxy.web.dashboard.descriptions import rendered
    sys.stdout.buffer.write(rendered(sys.stdin.buffer.read())[:{_LONGEST} + 1])
    sys.stdout.flush()
except (ImportError, OSError) as error:
    os.write(told, f"{{type(error).__name__}}: {{error}}"[:500].encode())
    os._exit({_BROKEN})
except Exception:
    os._exit({_TOO_MUCH})
"""
#: What a process needs of this one's environment.
_PASSED_ON = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME")


class RendererFailed(Exception):
    """The process that renders descriptions cannot be started, whatever the description."""


class Descriptions:
    """Waits for the process in a thread of *offload*."""

    log = Logger()

    def __init__(self, offload: IOffload, reactor: IReactorTime) -> None:
        self._offload = offload
        self._reactor = reactor
        self._one_at_a_time = DeferredLock()
        self._found: OrderedDict[bytes, bytes] = OrderedDict()
        self._told_at: float | None = None

    async def of(self, metadata: bytes) -> list[Tag | str]:
        """The description in core *metadata*, as content of a page; empty when there is none."""
        if not metadata:
            return []
        # Who leaves does not make room for another process while theirs still runs.
        html = await uninterrupted(self._html(metadata))
        return await self._offload.run(described, metadata, html)

    async def _html(self, metadata: bytes) -> bytes:
        key = hashlib.sha256(metadata).digest()
        if key not in self._found:
            if len(self._one_at_a_time.waiting) >= _WAITING:
                return b""
            async with self._one_at_a_time:
                if key not in self._found:
                    try:
                        self._found[key] = await self._offload.run(html_of, metadata)
                    except RendererFailed as error:
                        self._tell(error)
                        return b""
        self._found.move_to_end(key)
        found = self._found[key]
        while len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return found

    def _tell(self, error: RendererFailed) -> None:
        now = self._reactor.seconds()
        if self._told_at is None or now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            self.log.error(
                "the dashboard shows descriptions as they are written: the process that renders them cannot start: {error}",
                error=error,
            )


def html_of(metadata: bytes, computes: int = _COMPUTES) -> bytes:
    """The description in *metadata* as HTML, made within *computes* seconds of computing; empty if that cannot be.  Waits.

    Raises RendererFailed.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    command = [sys.executable, "-P", "-c", _PROGRAM, str(computes)]
    try:
        done = subprocess.run(  # the program is the one above
            command, input=metadata, capture_output=True, timeout=_LASTS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return b""
    except OSError as error:
        raise RendererFailed(f"{sys.executable}: {error.strerror or error}") from error
    if done.returncode == 0:
        return done.stdout if len(done.stdout) <= _LONGEST else b""
    if done.returncode == _TOO_MUCH or (done.returncode < 0 and done.returncode != -signal.SIGSYS):
        return b""  # it has exceeded its limits
    why = done.stderr[-500:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    raise RendererFailed(f"{sys.executable} ended with status {done.returncode}: {why or 'it says nothing'}")
