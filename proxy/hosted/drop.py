"""Keeps a hosted index in step with its directory: what is copied there is served within two seconds.

Where the kernel tells of changes, each is looked at at once, and the whole directory now and then, for what was not told.  A
shared file system, and one with more directories than the kernel watches, is looked at all the time: directories, sizes and
times alone, which takes little where nothing has changed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.errors import StorageFailed
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.mounts import is_told_of_changes
from proxy.interfaces import IOffload
from proxy.mechanism.flight import Flights

if TYPE_CHECKING:
    from proxy.hosted.notices import Notices

#: Seconds for which changes are collected before they are looked at.
_COLLECT = 0.05
#: Seconds between two looks at the whole directory: where the kernel tells of changes, and where it does not.
_NOW_AND_THEN, _ALWAYS = 60.0, 0.7
#: Seconds between two looks at where links lead that the directory is reached by: nothing tells of them.
_LINKS = 1.0
#: A look takes at most this share of the time.
_SHARE = 10.0
#: Directories that are watched in one turn of the reactor.
_BATCH = 200


class DropDirectory:
    """Looks after the directory of *catalogue*.  *notified* is whether the kernel tells of its changes; ``None``: found out."""

    log = Logger()

    def __init__(self, catalogue: Catalogue, reactor: Any, disk: IOffload, notified: bool | None = None) -> None:
        self._catalogue = catalogue
        self._reactor = reactor
        self._disk = disk
        self._notified = notified
        self._notices: Notices | None = None
        self._watched: set[str] = set()
        self._changed: set[tuple[str, str | None]] = set()
        self._everything = False
        self._collecting: IDelayedCall | None = None
        #: The next look at the whole directory.
        self._next: IDelayedCall | None = None
        self._looks: Flights[None] = Flights()
        #: Which directory is watched, where links lead to it that may lead elsewhere later.
        self._linked: tuple[int, int] | None = None

    def start(self) -> None:
        """Look after it from now on."""
        self._looks.join("always", self._always).addErrback(self._failed)

    def close(self) -> None:
        """Stop that."""
        self._looks.close()
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
        self._deafen()

    async def _always(self) -> None:
        folder = self._catalogue.folder
        try:
            await self._disk.run(folder.make)
        except OSError as error:
            self.log.error("{path} cannot be made: {error}", path=folder.root, error=error)
        with suppress(OSError):  # what cannot be looked into is reported below
            await self._disk.run(folder.sweep)
        if self._notified is None:
            self._notified = await self._disk.run(is_told_of_changes, folder.root)
        await self._looked()
        await self._looked()  # what has changed before its directory was watched
        await self._catalogue.read_all()
        while True:
            began, was_told = self._reactor.seconds(), self._notices is not None
            await self._looked()
            # After a look that began to listen, there may be what has changed before its directory was watched.
            least = _NOW_AND_THEN if was_told and self._notices is not None else _ALWAYS
            await self._paused(max(least, _SHARE * (self._reactor.seconds() - began)))

    async def _paused(self, seconds: float) -> None:
        """Return after so many *seconds*, or soon after the directory is lost, or links lead to another one."""
        until = self._reactor.seconds() + seconds
        while self._linked is not None and (left := until - self._reactor.seconds()) > _LINKS:
            await self._waited(_LINKS)
            if self._notices is None:
                return
            if await self._disk.run(_behind_links, self._catalogue.folder.root) != self._linked:
                self._deafen()
                return
            seconds = left - _LINKS
        await self._waited(seconds)

    async def _waited(self, seconds: float) -> None:
        over: Deferred[None] = Deferred()
        self._next = self._reactor.callLater(seconds, over.callback, None)
        try:
            await over
        finally:
            if self._next.active():
                self._next.cancel()

    async def _looked(self) -> None:
        await self._looks.join("everything", self._look_at_everything)

    async def _look_at_everything(self) -> None:
        """Look at the whole directory, and have what is new in it watched."""
        before = self._catalogue.trouble
        if self._notified and self._notices is None:
            self._linked = await self._disk.run(_behind_links, self._catalogue.folder.root)
            self._listen()
        with suppress(StorageFailed):
            await self._catalogue.scan()
        trouble = self._catalogue.trouble
        if trouble is not None and trouble != before:
            self.log.error("the directory of {index} cannot be read: {why}", index=self._catalogue.name, why=trouble)
        await self._watch()

    # -- what the kernel tells of ------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        folder = self._catalogue.folder
        self._watched.clear()
        try:
            from proxy.hosted.notices import Notices  # other systems than Linux have nothing of the kind

            self._notices = Notices(folder.root, self._reactor, self._told, self._told_more, self._lost, flat=folder.flat)
        except ImportError:
            self._notified = False
        except OSError as error:
            if error.errno != errno.ENOENT:  # that is tried again
                self._give_up(error)

    def _lost(self) -> None:
        """The directory itself has gone: it may come back, or another may stand in its place already."""
        self._deafen()
        if self._next is not None and self._next.active():
            self._next.reset(_COLLECT)

    def _deafen(self) -> None:
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    def _give_up(self, error: OSError) -> None:
        self._notified = False
        self._deafen()
        path, why = self._catalogue.folder.root, error.strerror or str(error)
        self.log.warn("{path} is looked at again and again, for the kernel does not tell of changes: {why}", path=path, why=why)

    async def _watch(self) -> None:
        if self._catalogue.folder.flat:
            return
        self._watched &= self._catalogue.directories
        new = sorted(self._catalogue.directories - self._watched)
        for start in range(0, len(new), _BATCH):
            if self._notices is None:
                return
            try:
                self._notices.watch(new[start : start + _BATCH])
            except OSError as error:
                self._give_up(error)
                return
            self._watched.update(new[start : start + _BATCH])
            await deferLater(self._reactor, 0.0)

    def _told(self, project: str, name: str | None) -> None:
        self._changed.add((project, name))
        self._collect()

    def _told_more(self) -> None:
        self._everything = True
        self._collect()

    def _collect(self) -> None:
        if self._collecting is None:
            self._collecting = self._reactor.callLater(_COLLECT, self._collected)

    def _collected(self) -> None:
        self._collecting = None
        changed, self._changed = self._changed, set()
        for project, name in changed:
            self._catalogue.changed(project, name)
        if self._everything:
            self._everything = False
            Deferred.fromCoroutine(self._looked()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("the directory of {index} cannot be looked after", failure, index=self._catalogue.name)


def _behind_links(root: Path) -> tuple[int, int] | None:
    """The device and the inode of *root*, if links lead to it; ``None`` if none do.  Blocks."""
    try:
        if os.path.realpath(root) == os.path.abspath(root):
            return None
        found = os.stat(root)
    except OSError:
        return None
    return found.st_dev, found.st_ino
