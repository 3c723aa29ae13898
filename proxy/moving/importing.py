"""Taking projects over from a source: a second run skips what is there, so that one that broke off is gone on with.

Names that a later member of a group serves are told first.  Then a few files at a time are fetched, verified, checked as an
upload is, and added with the time that the source states.  A file that cannot be taken is told and passed over; an index or a
disk that is full ends the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, FirstError

from proxy.core.uploads import Uploaded, UploadForm
from proxy.errors import BadRequest, NotFound, ProxyError, StorageFailed, TooMuch
from proxy.hosted.editing import Editing
from proxy.hosted.inspection import distribution_name
from proxy.hosted.notes import Note, stamp
from proxy.hosted.receiving import Past, Receiving
from proxy.interfaces import IOwnership, Report
from proxy.mechanism.flight import uninterrupted
from proxy.moving.sources import OfferedFile, OfferedProject, ProjectSource

#: More projects than these are not imported without being named: an index that inherits from the public one lists all of it.
MOST_UNNAMED = 20_000
#: Bytes after which it is told that they have arrived.
_TELL = 4 * 1024 * 1024
_BY = "import"


class _Project(Struct):
    """A project that is being taken over; *left* are the files that are not done."""

    offered: OfferedProject
    left: int = 0


class Tally(Struct):
    """What came of a run: numbers of files, and bytes that were fetched."""

    projects: int = 0
    imported: int = 0
    there: int = 0
    failed: int = 0
    bytes: int = 0
    collisions: int = 0


class Importing:
    """One run: takes what *source* has into the index of *receiving*, *jobs* files at a time; *report* hears of everything."""

    def __init__(
        self,
        source: ProjectSource,
        receiving: Receiving,
        editing: Editing,
        claims: IOwnership | None,
        report: Report,
        jobs: int,
        *,
        dry: bool,
    ) -> None:
        self.source = source
        self.receiving = receiving
        self.editing = editing
        self.claims = claims
        self.report = report
        self.jobs = jobs
        self.dry = dry
        self.tally = Tally()
        self._names: list[str] = []
        self._files: list[tuple[_Project, OfferedFile]] = []
        self._feeding = DeferredLock()
        self._untold = 0

    async def run(self, wanted: Sequence[str]) -> Tally:
        """Take over the projects *wanted* (normalised), or all.  Raises ProxyError where it cannot go on."""
        names = list(wanted) or list(await self.source.projects())
        if not wanted and len(names) > MOST_UNNAMED:
            raise BadRequest(
                f"the source lists {len(names):,} projects: it seems to inherit from a public index.  Import from an index "
                "without bases, or name the projects"
            )
        await self.receiving.catalogue.names()
        if self.claims is not None:
            colliding = await self.claims.colliding(self.receiving.name, names)
            self.tally.collisions = len(colliding)
            for project, why in sorted(colliding.items()):
                self.report({"collision": {"project": project, "why": why}})
        self._names = names[::-1]
        workers = [Deferred.fromCoroutine(self._work()) for _ in range(self.jobs)]
        try:
            await DeferredList(workers, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            for each in workers:
                each.cancel()
        return self.tally

    async def _work(self) -> None:
        while (found := await self._next()) is not None:
            project, file = found
            await self._take(file)
            project.left -= 1
            if not project.left:
                await self._mark(project.offered)

    async def _next(self) -> tuple[_Project, OfferedFile] | None:
        async with _Held(self._feeding):
            while not self._files and self._names:
                await self._begin(self._names.pop())
            return self._files.pop() if self._files else None

    async def _begin(self, name: str) -> None:
        try:
            offered = await self.source.project(name)
        except ProxyError as error:
            if isinstance(error, StorageFailed):
                raise
            self._done(name, name, "failed", why=str(error))
            return
        self.tally.projects += 1
        for problem in offered.problems:
            self._done(name, problem.partition(": ")[0], "failed", why=problem.partition(": ")[2])
        known = await self.receiving.catalogue.of(name)
        notes = {} if known is None else known.notes
        project = _Project(offered)
        for file in offered.files:
            note = notes.get(file.filename)
            if note is None:
                project.left += 1
                self._files.append((project, file))
            elif not _is_same(file, note):
                self._done(name, file.filename, "failed", why="the index has other bytes under this name")
            else:
                if file.yanked != note.yanked and not self.dry and file.yanked:
                    await self.editing.yank(name, lambda each, file=file: each == file.filename, file.yanked)  # type: ignore[misc]
                self._done(name, file.filename, "there", size=note.size)
        self.report({"expected": {"files": project.left, "bytes": sum(each.size or 0 for _, each in self._files)}})
        self._files.reverse()
        if not project.left:
            await self._mark(offered)

    async def _take(self, file: OfferedFile) -> None:
        project, name = file.project, file.filename
        try:
            called = distribution_name(name)
            if self.dry:
                self._done(project, name, "wanted", size=file.size)
                return
            arrival, modified = await self.source.fetch(file, self.receiving.intake, self._told)
            try:
                upload_time = file.upload_time or (None if modified is None else stamp(modified))
                form = UploadForm(name, project, project, str(called.version), file.digests)
                past = Past(upload_time, file.yanked, file.attestations)
                size = arrival.size
                added = await uninterrupted(self.receiving.add(arrival, form, file.uploader or _BY, past))
            finally:
                await arrival.end()
        except (TooMuch, StorageFailed):
            raise
        except ProxyError as error:
            self._done(project, name, "failed", why=str(error))
        else:
            self.tally.bytes += size
            self._done(project, name, "fetched" if added is Uploaded.NEW else "there", size=size)

    async def _mark(self, offered: OfferedProject) -> None:
        """Let the project have the status that it has at the source."""
        if offered.status is None or self.dry:
            return
        known = await self.receiving.catalogue.of(offered.name)
        if known is not None and known.status != offered.status:
            try:
                await self.editing.mark(offered.name, offered.status)
            except NotFound:  # all of its files were deleted meanwhile
                return

    def _told(self, count: int) -> None:
        self._untold += count
        if abs(self._untold) >= _TELL:
            self.report({"arrived": self._untold})
            self._untold = 0

    def _done(self, project: str, filename: str, state: str, *, size: int | None = None, why: str | None = None) -> None:
        if state in ("there", "failed"):
            setattr(self.tally, state, getattr(self.tally, state) + 1)
        else:
            self.tally.imported += 1
        said: dict[str, Any] = {"project": project, "filename": filename, "state": state, "size": size, "why": why}
        self.report({"done": said})


class _Held:
    """A lock, held for a block."""

    def __init__(self, lock: DeferredLock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._lock.release()


def _is_same(file: OfferedFile, note: Note) -> bool:
    """Whether *file* is the one of *note*, as far as the source states anything of it."""
    known = {"sha256": note.sha256, **note.digests}
    stated = {known[name] == value.lower() for name, value in file.digests.items() if name in known}
    return all(stated) if stated else file.size in (None, note.size)
