"""What a hosted index has: its directory, read on demand and remembered, in step with whoever puts files there.

Theory of operation.  The directory is the truth.  An *outline* of it (which projects there are, and how much of each) is in
memory; the files of a project are read when somebody asks for it, and remembered within a bound.  Who changes something says
so (:meth:`Catalogue.changed`): the project is read again.  A file without a note that fits it is new, or was written over: it
is copied into the store and checked completely, and then it is held against the ledger, which knows the first bytes of every
name.  What is served always comes from the store.

Projects are read one at a time each (a lock per project), so that an upload and a look at the directory never disagree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from proxy.core.bounded import BoundedTable
from proxy.errors import StorageFailed
from proxy.hosted.folder import Contents, Folder, Outline, StandingFile
from proxy.hosted.notes import Note, ProjectStatus
from proxy.hosted.project import HostedProject
from proxy.hosted.settling import Alone, Settled
from proxy.interfaces import IOffload
from proxy.mechanism.flight import Flights

T = TypeVar("T")

#: Projects that are read at one time when all are.
_READERS = 4


class ProjectNames(Struct, frozen=True):
    """The projects that have files, sorted; another *number*, another list."""

    number: int
    projects: Sequence[str]


class Settles(Protocol):
    """What becomes of the files in a directory."""

    @property
    def refused(self) -> Mapping[str, str]:
        """The files that are not served, each with the reason."""

    def prepare(self, folder: Folder) -> None:
        """Finish what a crash has left in *folder*, before it is looked at first.  Blocks; raises OSError."""

    def strangers(self, found: Mapping[str, str]) -> None:
        """Told of the files that belong to no project, each with the reason."""

    async def settled(self, project: str, names: tuple[str, ...], folder: Folder, alone: Alone) -> Settled:
        """*project*, whose directories are *names*, as it is now.  Raises OSError, StorageFailed."""


class Catalogue:
    """The projects of the hosted index *name* in *folder*.  *settling* decides on files; *memory* bounds what is remembered."""

    log = Logger()

    def __init__(
        self, name: str, folder: Folder, settling: Settles, disk: IOffload, reactor: IReactorTime, memory: int
    ) -> None:
        self.name = name
        self.folder = folder
        self._settling = settling
        self._disk = disk
        self._outlines: dict[str, Outline] = {}
        #: Projects of which no file can be served.
        self._empty: set[str] = set()
        self._known: BoundedTable[str, HostedProject] = BoundedTable(memory, lambda project: project.weight, len)
        #: How often each project was changed, and how often by an upload or an operator, whose change is in memory already.
        self._versions: dict[str, int] = {}
        self._uploads: dict[str, int] = {}
        self._reads: Flights[HostedProject | None] = Flights()
        self._scans: Flights[None] = Flights()
        self._locks: dict[str, DeferredLock] = {}
        #: The names of all directories of projects, those without files too, at the last look.
        self.directories: frozenset[str] = frozenset()
        self._outlined = False
        self._closed = False
        self._trouble: str | None = None
        self._names = ProjectNames(0, [])
        self._names_are_old = False
        self._reactor = reactor
        #: When projects are looked at again that have a file which is being written.
        self._later: dict[str, IDelayedCall] = {}

    def close(self) -> None:
        """Stop what is under way."""
        self._closed = True
        for each in self._later.values():
            each.cancel()
        self._later.clear()
        self._reads.close()
        self._scans.close()

    # -- for those who answer ----------------------------------------------------------------------------------------------

    def at_hand(self, project: str) -> HostedProject | None:
        """The project, if it is in memory."""
        return self._known.get(project)

    async def of(self, project: str) -> HostedProject | None:
        """The project, ``None`` without a file that may be served.  Raises StorageFailed."""
        known = self._known.get(project)
        if known is not None:
            return known
        await self._have_outlines()
        if project not in self._outlines:
            return None
        return await self._reads.join(project, lambda: self._read(project, keep=True))

    async def names(self) -> ProjectNames:
        """The projects that there are.  Raises StorageFailed."""
        await self._have_outlines()
        if self._names_are_old:
            there = sorted(self._outlines.keys() - self._empty)
            if there != self._names.projects:
                self._names = ProjectNames(self._names.number + 1, there)
            self._names_are_old = False
        return self._names

    async def standing(self, project: str, filename: str) -> StandingFile | None:
        """The file as it stands in the directory, ``None`` if it does not.  Raises StorageFailed."""
        await self._have_outlines()
        contents = await self.contents(project)
        return next((each for each in contents.files if each.filename == filename), None)

    def projects(self) -> list[str]:
        """The projects that have something in the directory, served or not, as far as it was looked at; sorted."""
        return sorted(self._outlines)

    async def look_at(self, project: str) -> HostedProject | None:
        """The project by a new look at its directory; memory stays as it is.  Raises StorageFailed."""
        return await self._reads.join(project, lambda: self._read(project, keep=False))

    async def contents(self, project: str) -> Contents:
        """What stands in the directory for *project*.  Raises StorageFailed."""
        outline = self._outlines.get(project)
        try:
            return await self._disk.run(self.folder.contents, project, () if outline is None else outline.names)
        except OSError as error:
            raise StorageFailed(f"the directory of {project} on index {self.name} cannot be read: {error.strerror}") from error

    def totals(self) -> tuple[int, int]:
        """The files in the directory, and their bytes."""
        outlines = self._outlines.values()
        return sum(each.count for each in outlines), sum(each.size for each in outlines)

    @property
    def refused(self) -> Mapping[str, str]:
        """The files that are not served, by their place in the directory, each with the reason."""
        return self._settling.refused

    @property
    def trouble(self) -> str | None:
        """Why the directory cannot be read, ``None`` if it can."""
        return self._trouble

    # -- for those who change something ------------------------------------------------------------------------------------

    def changed(self, project: str, name: str | None = None) -> None:
        """Told that something of *project* may have changed; *name* is its directory (in the flat layout, its file)."""
        self._versions[project] = self._versions.get(project, 0) + 1
        outline = self._outlines.get(project)
        if outline is None:
            outline = Outline(0, 0, 0, ())
        if name is not None and name not in outline.names:
            outline = Outline(outline.state, outline.count, outline.size, tuple(sorted((*outline.names, name))))
        self._outlines[project] = outline
        if not self._closed:
            read = self._reads.join(project, lambda: self._read(project, keep=False))
            read.addErrback(self._cannot_be_read, project)

    def added(self, project: str, filename: str, note: Note, *, replaced: int | None) -> None:
        """Told by who has put a file into the directory, and holds :meth:`alone` of its project.

        *replaced* is the size of the file in whose place it is, ``None`` if there was none.
        """
        self._versions[project] = self._versions.get(project, 0) + 1
        self._uploads[project] = self._uploads.get(project, 0) + 1
        folder = filename if self.folder.flat else project
        outline = self._outlines.get(project) or Outline(0, 0, 0, ())
        self._outlines[project] = Outline(
            0,  # the next look at the directory finds out
            outline.count + (replaced is None),
            outline.size + note.size - (replaced or 0),
            outline.names if folder in outline.names else tuple(sorted((*outline.names, folder))),
        )
        self._empty.discard(project)
        self._names_are_old = True
        known = self._known.get(project)
        if known is not None:
            self._known.put(project, known.with_file(filename, note))

    def removed(self, project: str, sizes: Mapping[str, int]) -> None:
        """Told by who has removed files of these *sizes*, by name, and holds :meth:`alone` of their project."""
        self._versions[project] = self._versions.get(project, 0) + 1
        self._uploads[project] = self._uploads.get(project, 0) + 1
        outline, known = self._outlines.get(project), self._known.get(project)
        if outline is not None:
            left = Outline(0, outline.count - len(sizes), outline.size - sum(sizes.values()), outline.names)
            if left.count > 0:
                self._outlines[project] = left
            else:
                del self._outlines[project]
        if known is not None:
            self._adopt(project, known.without(sizes), keep=True)
        self._names_are_old = True

    def marked(self, project: str, status: ProjectStatus | None) -> None:
        """Told by who has written the *status* of *project*, and holds :meth:`alone` of it."""
        self._versions[project] = self._versions.get(project, 0) + 1
        self._uploads[project] = self._uploads.get(project, 0) + 1
        known = self._known.get(project)
        if known is not None:
            self._known.put(project, HostedProject(self.name, project, known.notes, status))

    async def alone(self, project: str, work: Callable[[], Awaitable[T]]) -> T:
        """What *work* returns, which has the directory of *project* for itself."""
        lock = self._locks.setdefault(project, DeferredLock())
        await lock.acquire()
        try:
            return await work()
        finally:
            lock.release()
            if not lock.locked and not lock.waiting:
                self._locks.pop(project, None)

    async def scan(self) -> None:
        """Look at the whole directory, and at each project in which something has changed.  Raises StorageFailed."""
        await self._scans.join("all", self._scan)

    async def read_all(self) -> None:
        """Look at every project once: what is new is taken, digests are computed, what is gone is noted.

        Memory stays as it is.  One that cannot be read is passed over.
        """
        left = iter(sorted(self._outlines))

        async def read_next() -> None:
            for project in left:
                try:
                    await self._reads.join(project, lambda: self._read(project, keep=False))  # noqa: B023  # called at once
                except StorageFailed:
                    self._cannot_be_read(Failure(), project)

        # Most of the time goes into waiting for the disk.
        readers = [Deferred.fromCoroutine(read_next()) for _ in range(_READERS)]
        try:
            await gatherResults(readers, consumeErrors=True)
        finally:
            for each in readers:
                each.cancel()

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _have_outlines(self) -> None:
        if not self._outlined:
            await self.scan()
        if self._trouble is not None and not self._outlines:
            raise StorageFailed(f"the directory of index {self.name} cannot be read: {self._trouble}")

    async def _scan(self) -> None:
        versions = dict(self._versions)
        try:
            if not self._outlined:
                await self._disk.run(self._settling.prepare, self.folder)
            survey = await self._disk.run(self.folder.survey, dict(self._outlines))
        except OSError as error:
            self._trouble = error.strerror or str(error)
            if not self._outlined:
                raise StorageFailed(f"the directory of index {self.name} cannot be read: {self._trouble}") from error
            return
        self._trouble = None
        found, self.directories = survey.outlines, survey.directories
        self._settling.strangers(survey.strangers)
        first, self._outlined = not self._outlined, True
        for project in found.keys() | self._outlines.keys():
            before, now = self._outlines.get(project), found.get(project)
            if versions.get(project) != self._versions.get(project):
                continue  # somebody has told of it meanwhile
            if now is None:
                self.changed(project)
            elif before is None or before.state != now.state:
                self._outlines[project] = now
                if not first:
                    self.changed(project)
        self._names_are_old = True

    async def _read(self, project: str, *, keep: bool) -> HostedProject | None:
        """Read *project* until nothing changes meanwhile.

        What is found is there for clients at once, also while others go on copying, unless an upload has come in between.
        """
        while True:
            version, uploads = self._versions.get(project), self._uploads.get(project)
            outline = self._outlines.get(project)
            names = () if outline is None else outline.names
            before = await self._disk.run(self.folder.outline, project, names)
            settled = await self._read_once(project, names)
            found = settled.project
            now = await self._disk.run(self.folder.outline, project, names)
            if version == self._versions.get(project):
                break
            if uploads == self._uploads.get(project) and self._known.get(project) is not None:
                self._adopt(project, found, keep=True)
        if now is None:
            self._outlines.pop(project, None)
        elif now == before:
            self._outlines[project] = now
        else:
            # What has changed while it was read may not be in what was read: the next look at the directory finds out.
            self._outlines[project] = Outline(0, now.count, now.size, now.names)
        self._adopt(project, found, keep=keep or self._known.get(project) is not None)
        if found is not None and found.notes:
            return found
        if settled.failure is not None:
            raise settled.failure  # what cannot be stored is no file that is missing
        return None

    async def _read_once(self, project: str, names: tuple[str, ...]) -> Settled:
        try:
            settled = await self._settling.settled(project, names, self.folder, self.alone)
        except OSError as error:
            raise StorageFailed(f"the directory of {project} on index {self.name} cannot be read: {error.strerror}") from error
        if settled.again is not None and project not in self._later and not self._closed:
            self._later[project] = self._reactor.callLater(settled.again, self._look_again, project)
        return settled

    def _look_again(self, project: str) -> None:
        del self._later[project]
        self.changed(project)

    def _adopt(self, project: str, found: HostedProject | None, *, keep: bool) -> None:
        if found is None or not found.notes:
            self._known.discard(project)
            self._empty.add(project)
        else:
            self._empty.discard(project)
            if keep:
                self._known.put(project, found)
        if project not in self._outlines:
            self._empty.discard(project)
        self._names_are_old = True

    def _cannot_be_read(self, failure: Failure, project: str) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("{project} of {index} cannot be read", failure, project=project, index=self.name)
