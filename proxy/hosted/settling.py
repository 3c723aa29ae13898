"""What becomes of each file in the directory of a hosted index: it is served, it is refused with a reason, or it waits.

| the file | what is done |
|---|---|
| has a note of its size and time, and the ledger agrees | served |
| is not in the ledger, or is not what its note says | copied, checked, and held against the ledger |
| … is no distribution, or belongs to another project | refused |
| … has other bytes than its name had before | refused, the first ones are served; with ``overwrite`` it takes their place |
| is being written | waits; what was there before is served |
| is not there any more | its name keeps its bytes in the ledger, which notes when it went |
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.logger import Logger

from proxy.errors import BadUpload, StorageFailed
from proxy.hosted.batches import Batches
from proxy.hosted.folder import Contents, Folder, StandingFile, project_in
from proxy.hosted.inspection import spelled_otherwise
from proxy.hosted.intake import Arrived, BeingWritten, IncomingFile, Intake
from proxy.hosted.notes import Note, stamp
from proxy.hosted.ports import FirstDigests
from proxy.hosted.project import HostedProject, hosted_entry
from proxy.interfaces import Clock, IClaims
from proxy.model import EMPTY, LedgerEntry
from proxy.names import companion_name

T = TypeVar("T")
_Mark = tuple[int, int, int]

#: Who has put a file there that came over no upload.
DROPPED = "the drop directory"
#: For so long a file must not have changed where nobody can tell whether it is being written (seconds).
_SETTLES = 0.5
#: Seconds after which a project is looked at again that has a file which is being written, or could not be stored.
_LOOK_AGAIN, _RETRY = 0.6, 30.0


class Alone(Protocol):
    """Does *work* while nobody else changes the directory of *project*."""

    async def __call__(self, project: str, work: Callable[[], Awaitable[T]]) -> T: ...


class Settled(Struct, frozen=True):
    """A project as it is now, ``None`` without files; it has to be looked at again after *again* seconds (``None``: never).

    *failure* is why a file that may be right cannot be served.
    """

    project: HostedProject | None
    again: float | None
    failure: StorageFailed | None = None


class _Refusal(Struct, frozen=True):
    mark: _Mark | None
    why: str


class _Found(Struct):
    """What was found so far of one project."""

    contents: Contents
    #: ``None`` while the ledger cannot be read.
    entries: Mapping[str, LedgerEntry] | None
    notes: dict[str, Note] = field(default_factory=dict)
    again: float | None = None
    failure: StorageFailed | None = None

    def look_again(self, seconds: float) -> None:
        """Something is not settled yet."""
        self.again = seconds if self.again is None else min(self.again, seconds)


class Settling:
    """Decides for the index *name*.  *overwrite* is whether other bytes may take the place of a file.

    *steady* tells a time that never jumps, *clock* the wall time.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        intake: Intake,
        ledger: FirstDigests,
        claims: IClaims | None,
        clock: Clock,
        steady: Callable[[], float],
        *,
        overwrite: bool,
    ) -> None:
        self.name = name
        self.overwrite = overwrite
        self._intake = intake
        self._ledger = ledger
        self._claims = claims
        self._clock = clock
        self._steady = steady
        #: By project; what belongs to none has no name of one.
        self._refused: dict[str, dict[str, _Refusal]] = {}
        #: When a file was first seen as it was then.
        self._seen: dict[str, dict[str, tuple[_Mark, float]]] = {}

    @property
    def refused(self) -> Mapping[str, str]:
        """The files that are not served, each with the reason."""
        return {
            f"{project}/{name}".lstrip("/"): each.why
            for project, refused in sorted(self._refused.items())
            for name, each in sorted(refused.items())
        }

    def prepare(self, folder: Folder) -> None:
        """Put releases in place that had been decided for.  Blocks; raises OSError."""
        Batches(folder).finish()

    def strangers(self, found: Mapping[str, str]) -> None:
        """Told of the files that belong to no project, each with the reason."""
        self._keep_refused("", found)
        for name, why in found.items():
            self._refuse("", name, None, why)

    async def settled(self, project: str, names: tuple[str, ...], folder: Folder, alone: Alone) -> Settled:
        """*project* as it is now.  Raises OSError, StorageFailed."""

        async def known() -> _Found:
            return await self._known(project, await self._intake.disk.run(folder.contents, project, names))

        found = await alone(project, known)
        new = [file for file in found.contents.files if file.filename not in found.notes]
        claimed = await self._claimed_for(project, new, found)
        for file in new:
            if claimed:
                await self._look_at(project, file, found, folder, alone)
            else:
                self._keep_serving(project, file.filename, found)
        self._forget(project, found)
        if not found.contents.files:
            return Settled(None, found.again)
        whole = HostedProject(self.name, project, found.notes, found.contents.status)
        return Settled(whole, found.again, found.failure)

    # -- what is known already ---------------------------------------------------------------------------------------------

    async def _known(self, project: str, contents: Contents) -> _Found:
        try:
            entries: Mapping[str, LedgerEntry] | None = await self._ledger.peek(self.name, project)
        except StorageFailed:
            entries = None  # the directory is the truth; the ledger is held against it later
        found = _Found(contents, entries)
        for file in contents.files:
            note = contents.notes.get(file.filename)
            if note is None or (note.size, note.mtime_ns) != (file.size, file.mtime_ns) or file.filename in contents.faults:
                continue
            entry = (entries or EMPTY).get(file.filename)
            if entry is None or entry.sha256 != note.sha256:
                continue  # a note that nobody here has made may name the bytes of any file in the store
            found.notes[file.filename] = note
            self._refused.get(project, {}).pop(file.filename, None)
            if entry.gone_at is not None:
                await self._ledger.put(self.name, project, file.filename, replace(entry, gone_at=None))
        there = {file.filename for file in contents.files}
        for name, entry in (entries or EMPTY).items():
            if "/" not in name and name not in there and entry.gone_at is None:
                await self._ledger.put(self.name, project, name, replace(entry, gone_at=self._clock()))
                self.log.info("{filename} was removed from {index}", filename=name, index=self.name)
        return found

    # -- what is new -------------------------------------------------------------------------------------------------------

    async def _claimed_for(self, project: str, new: Collection[StandingFile], found: _Found) -> bool:
        """Claim *project* for its *new* files, before it is known whether they are whole and right; whether they may be taken.

        A group asks nobody else for a name of which a file is on its way: it would tell a private name, and get another's file.
        """
        if self._claims is None or not any(project_in(file.filename) == project for file in new):
            return True
        try:
            await self._claims.claim(self.name, project, DROPPED)
        except StorageFailed as error:
            # Nobody sees a file whose name is not known to be its own.
            found.look_again(_RETRY)
            found.failure = error
            return False
        return True

    async def _look_at(self, project: str, file: StandingFile, found: _Found, folder: Folder, alone: Alone) -> None:
        before = self._refused.get(project, {}).get(file.filename)
        fault = found.contents.faults.get(file.filename)
        if fault is not None:
            self._refuse(project, file.filename, None, fault)
        elif before is None or before.mark != file.mark:
            try:
                arrived, arrival = await self._intake.take(file, settled=self._is_settled(project, file))
                try:
                    note = await self._accepted(project, file, arrived, arrival, found, folder, alone)
                finally:
                    await arrival.end()
            except BadUpload as error:
                self._refuse(project, file.filename, file.mark, str(error))
            except BeingWritten:
                found.look_again(_LOOK_AGAIN)
            except StorageFailed as error:
                found.look_again(_RETRY)
                found.failure = error
                self.log.error("{name} of {index} waits: {error}", name=file.filename, index=self.name, error=error)
            else:
                self._refused.get(project, {}).pop(file.filename, None)
                found.notes[file.filename] = note
                return
        self._keep_serving(project, file.filename, found)

    def _keep_serving(self, project: str, filename: str, found: _Found) -> None:
        """Serve the first bytes of a file that others were written over: they are in the store."""
        note, entry = found.contents.notes.get(filename), (found.entries or EMPTY).get(filename)
        if note is not None and entry is not None and entry.sha256 == note.sha256 and entry.gone_at is None:
            found.notes[filename] = note

    def _is_settled(self, project: str, file: StandingFile) -> bool:
        """Whether *file* was as it is now for a while."""
        seen = self._seen.setdefault(project, {})
        mark, since = seen.setdefault(file.filename, (file.mark, self._steady()))
        if mark == file.mark:
            return self._steady() - since >= _SETTLES
        seen[file.filename] = file.mark, self._steady()
        return False

    async def _accepted(
        self,
        project: str,
        file: StandingFile,
        arrived: Arrived,
        arrival: IncomingFile,
        found: _Found,
        folder: Folder,
        alone: Alone,
    ) -> Note:
        """Take the file that has *arrived*.  Raises BadUpload, StorageFailed."""
        of = arrived.inspected.project
        if of != project:
            raise BadUpload(f"it belongs to {of}, and stands in the directory of {project}")
        self._intake.guarding.guard(arrived.sha256)
        try:
            return await alone(project, lambda: self._enter(project, file, arrived, arrival, found, folder))
        finally:
            self._intake.guarding.unguard(arrived.sha256)

    async def _enter(
        self, project: str, file: StandingFile, arrived: Arrived, arrival: IncomingFile, found: _Found, folder: Folder
    ) -> Note:
        entries = await self._ledger.peek(self.name, project)
        entry = entries.get(file.filename)
        for each in await self._intake.disk.run(spelled_otherwise, file.filename, entries.keys()):
            # Installers take any of them, so that other bytes under another spelling take the place of a file, too.
            if entries[each].sha256 != arrived.sha256 and not (self.overwrite and entries[each].gone_at is not None):
                raise BadUpload(
                    f"it is {each} by another spelling, which has, or had, other bytes (sha256-{entries[each].sha256}): "
                    "it is not served; give it another version or build number"
                )
        if entry is not None and entry.sha256 != arrived.sha256 and not self.overwrite:
            raise BadUpload(
                f"its bytes are sha256-{arrived.sha256}, and this name had sha256-{entry.sha256} before: "
                "they are not served; give it another version or build number, or set overwrite = true"
            )
        await arrival.commit()
        before = found.contents.notes.get(file.filename)
        note = _note_of(file, arrived, before, entry)
        await enter(self._ledger, self.name, project, file.filename, note, entry)
        try:
            await self._intake.disk.run(folder.write_note, project, file.path, note)
        except OSError as error:
            self.log.error("what is known of {path} cannot be written: {error}", path=file.path, error=error)
        self.log.info("{filename} was added to {index}", filename=file.filename, index=self.name)
        return note

    # -- what is refused ---------------------------------------------------------------------------------------------------

    def _refuse(self, project: str, name: str, mark: _Mark | None, why: str) -> None:
        refused = self._refused.setdefault(project, {})
        if name not in refused or refused[name].why != why:
            self.log.error("{name} of {index} is not served: {why}", name=name, index=self.name, why=why)
        refused[name] = _Refusal(mark, why)

    def _forget(self, project: str, found: _Found) -> None:
        """Forget what was noted of files that are not there any more."""
        self._keep_refused(project, {file.filename for file in found.contents.files})
        if found.again is None:
            self._seen.pop(project, None)

    def _keep_refused(self, project: str, names: Collection[str]) -> None:
        kept = {name: each for name, each in self._refused.get(project, {}).items() if name in names}
        self._refused[project] = kept
        if not kept:
            del self._refused[project]


async def enter(ledger: FirstDigests, index: str, project: str, filename: str, note: Note, before: LedgerEntry | None) -> None:
    """Enter the bytes of *note* under *filename*, which had those of *before*: these stay as history.  Raises StorageFailed."""
    entry = hosted_entry(filename, note)
    if before is None:
        await ledger.add_all(index, project, {filename: entry})
    elif before.sha256 != note.sha256:
        history = companion_name(f"sha256-{before.sha256}", filename, "")
        await ledger.add_all(index, project, {history: replace(before, gone_at=before.gone_at or entry.committed_at)})
        await ledger.put(index, project, filename, entry)
    elif before.gone_at is not None:
        await ledger.put(index, project, filename, replace(before, gone_at=None))


def _note_of(file: StandingFile, arrived: Arrived, before: Note | None, entry: LedgerEntry | None) -> Note:
    """What is to be noted of a file: what was noted of the same bytes before stays."""
    kept = before if before is not None and before.sha256 == arrived.sha256 else None
    recorded = entry if entry is not None and entry.sha256 == arrived.sha256 else None
    upload_time = stamp(file.ctime) if recorded is None or recorded.upload_time is None else recorded.upload_time
    note = note_of(arrived, upload_time if kept is None else kept.upload_time, file.mtime_ns)
    if kept is None:
        return note
    return replace(
        note,
        uploader=kept.uploader,
        yanked=kept.yanked,
        attestations=kept.attestations,
        others=kept.others,
    )


def note_of(arrived: Arrived, upload_time: str, mtime_ns: int) -> Note:
    """What is to be noted of the file that has *arrived*."""
    inspected = arrived.inspected
    return Note(
        arrived.sha256,
        arrived.size,
        mtime_ns,
        upload_time,
        digests=arrived.digests,
        requires_python=inspected.requires_python,
        metadata=hashlib.sha256(inspected.metadata).hexdigest() if inspected.wheel else None,
    )
