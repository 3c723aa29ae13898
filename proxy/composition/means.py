"""What the parts of a service are built with: time, threads and figures."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.interfaces import Clock
from proxy.mechanism.offload import Expendable, Offload
from proxy.mechanism.rotating import Observing
from proxy.statistics.metrics import Metrics
from proxy.statistics.recorders import Recorders

#: Threads that wait for the disk, and threads that parse, render and compress.
_DISK_THREADS = 8
_WORK_THREADS = 2
_CHECKING_THREADS = 2


class Means(Struct, frozen=True):
    """Builders hand out what a part needs of it; no part receives all of it.

    *reactor* goes by a steady clock, *clock* tells the wall time (seconds since 1970).  *disk* is for what waits for the disk,
    *work* for what takes long.  *rotation* is a single thread that looks at files which may be replaced while the proxy runs:
    they may be on another file system, and nothing waits for one that does not answer.  *checking* is for whole files that are
    copied and looked through, which takes seconds to minutes.
    """

    reactor: Any
    clock: Clock
    metrics: Metrics
    #: Tells metrics and statistics what happens; responses are told to each of them by themselves.
    recorder: Recorders
    disk: Offload
    work: Offload
    rotation: Offload
    checking: Offload

    @property
    def observing(self) -> Observing:
        """What files that may be replaced are looked at with."""
        return Observing(self.rotation, self.recorder, self.clock)

    def stop(self) -> None:
        """End the threads.  One of *work* or *disk* that was left would keep the process alive for ever."""
        self.rotation.stop()
        self.checking.stop()
        self.work.stop()
        self.disk.stop()


def build_means(reactor: Any, clock: Clock) -> Means:
    """The means of one service.  Its threads are started when they are needed."""
    disk, work = Offload(reactor, _DISK_THREADS, "disk"), Offload(reactor, _WORK_THREADS, "work")
    checking = Offload(reactor, _CHECKING_THREADS, "checking")
    metrics = Metrics()
    return Means(reactor, clock, metrics, Recorders(metrics), disk, work, Expendable(reactor, "rotation"), checking)
