"""Has descriptions rendered in a process of their own, which is ended when it takes too long.

Theory of operation.  Whoever may upload writes a description, and a renderer takes minutes for some that are made for that.
A thread cannot be ended; a process can, and it has limits of its own for time and memory.  One renders at a time, and what
came of it is remembered, also that nothing did: such a description is shown as it is written.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import OrderedDict

from twisted.internet.defer import DeferredLock
from twisted.web.template import Tag

from proxy.interfaces import IOffload
from proxy.mechanism.flight import uninterrupted
from proxy.web.dashboard.descriptions import described

#: Limits of one process: seconds of computing, seconds in all, and bytes of memory.
_COMPUTES, _LASTS, _MEMORY = 5, 15, 1 << 30
#: The longest HTML (bytes), how many are remembered, and how many requests may wait for their turn.
_LONGEST, _REMEMBERED, _WAITING = 500_000, 16, 16
_PROGRAM = """
import resource, sys
for kind, limit in ((resource.RLIMIT_CPU, int(sys.argv[1])), (resource.RLIMIT_AS, int(sys.argv[2]))):
    resource.setrlimit(kind, (limit, limit))
from proxy.web.dashboard.descriptions import rendered
sys.stdout.buffer.write(rendered(sys.stdin.buffer.read()))
"""


class Descriptions:
    """Waits for the process in a thread of *offload*."""

    def __init__(self, offload: IOffload) -> None:
        self._offload = offload
        self._one_at_a_time = DeferredLock()
        self._found: OrderedDict[bytes, bytes] = OrderedDict()

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
                    self._found[key] = await self._offload.run(html_of, metadata)
        self._found.move_to_end(key)
        found = self._found[key]
        while len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return found


def html_of(metadata: bytes, computes: int = _COMPUTES) -> bytes:
    """The description in *metadata* as HTML, made within *computes* seconds of computing; empty if that cannot be.  Waits."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-P", "-c", _PROGRAM, str(computes), str(_MEMORY)]
    try:
        done = subprocess.run(  # the program is the one above
            command, input=metadata, capture_output=True, timeout=_LASTS, env=environment, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return b""
    return done.stdout if len(done.stdout) <= _LONGEST else b""
