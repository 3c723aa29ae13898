"""What this process is given by the system, and how it treats its memory."""

from __future__ import annotations

import gc
import resource
from contextlib import suppress

from proxy.web.connections import RESERVE

#: Descriptors of the process itself (database, log, threads), those of a client that is sent a file, and how few clients there
#: may be in the end.
_OWN_DESCRIPTORS, _DESCRIPTORS_EACH, _LEAST_CONNECTIONS = 48, 2, 4
#: Connections for dashboards, if these have listeners of their own: 256 are kept live, and some load pages.
_DASHBOARDS = 320


def calm_collector() -> None:
    """Keep the garbage collector from looking at everything again and again.

    A parsed page of 40,000 files is 40,000 objects without a cycle among them; a full collection that visits them stops the
    reactor for some 50 ms (docs/libraries.md).  What is there now stays for good, and young garbage is looked for less often.
    A start that did without the collector goes on so: what its imports left is less than half a megabyte, and looking for it
    takes as long as a tenth of them.
    """
    if gc.isenabled():
        gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def raise_descriptor_limit() -> int:
    """Every client, upstream connection and open file is a descriptor: take as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # a sandbox may forbid it, and fewer will do
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def for_dashboards(descriptors: int) -> int:
    """How many connections there may be at the dashboard's own listeners, in a process that may have so many *descriptors*."""
    return min(_DASHBOARDS, max(_LEAST_CONNECTIONS, descriptors // 16))


def affordable(wanted: int, descriptors: int, upstream: int) -> int:
    """How many of *wanted* client connections can have their descriptors, of which *upstream* connections need some too."""
    left = descriptors - _OWN_DESCRIPTORS - upstream - RESERVE
    return max(_LEAST_CONNECTIONS, min(wanted, left // _DESCRIPTORS_EACH))
