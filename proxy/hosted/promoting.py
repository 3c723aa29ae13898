"""Releases that an index takes over from another one: all files of a release become visible at once, or none does.

Everything that could prevent it is looked for before anything is changed.  The bytes are copied under hidden names first; the
decision, and what a crash leaves of it, are the business of :mod:`proxy.hosted.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace
from twisted.logger import Logger

from proxy.errors import FileExists, FilesChanged, StorageFailed
from proxy.hosted.batches import Batches
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.folder import Contents
from proxy.hosted.intake import storage_failed
from proxy.hosted.notes import Note, moment_of
from proxy.hosted.ports import FirstDigests
from proxy.hosted.receiving import Receiving
from proxy.hosted.restoring import Restoring
from proxy.hosted.settling import enter
from proxy.interfaces import IBytesSource, IClaims
from proxy.mechanism.flight import uninterrupted
from proxy.model import LedgerEntry


class Promoted(Struct, frozen=True):
    """What is *new*, and the names of the files that were there before.

    *held* says why the name of the project does not belong to the index, if it does not.
    """

    new: Mapping[str, Note]
    there: tuple[str, ...]
    held: str | None = None


class _Plan(Struct, frozen=True):
    new: dict[str, Note] = field(default_factory=dict)
    there: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Promoting:
    """Gives releases of an index to others, and takes those of others into it."""

    log = Logger()

    def __init__(self, receiving: Receiving, restoring: Restoring, ledger: FirstDigests, claims: IClaims | None) -> None:
        self._receiving = receiving
        self._intake = receiving.intake
        self._restoring = restoring
        self._ledger = ledger
        self._claims = claims
        self._batches = Batches(receiving.catalogue.folder)

    @property
    def catalogue(self) -> Catalogue:
        """What the index has."""
        return self._receiving.catalogue

    async def opened(self, project: str, filename: str, note: Note) -> IBytesSource:
        """The bytes of a file of this index.  Raises StorageFailed."""
        source: IBytesSource | None = await self._intake.store.open(note.sha256)
        if source is None:
            await self._restoring.restore(project, filename, note)
            source = await self._intake.store.open(note.sha256)
        if source is None:
            raise StorageFailed(f"{filename} cannot be read from the store of {self.catalogue.name} now")
        return source

    async def take(
        self,
        project: str,
        notes: Mapping[str, Note],
        source: Promoting,
        *,
        dry: bool = False,
        agreed: Callable[[Mapping[str, Note]], bool] = lambda new: True,
    ) -> Promoted:
        """Take the files *notes* of *project* from the index *source*; with *dry* only see whether that can be done.

        Raises FileExists (which names everything that is in the way), TooMuch, FilesChanged if those that are new here are not
        *agreed*, StorageFailed; nothing has changed then.
        """
        await self.catalogue.names()
        for note in notes.values():
            self._intake.guarding.guard(note.sha256)
        try:
            return await uninterrupted(
                self.catalogue.alone(project, lambda: self._take(project, notes, source, agreed, dry=dry))
            )
        finally:
            for note in notes.values():
                self._intake.guarding.unguard(note.sha256)

    async def _take(
        self,
        project: str,
        notes: Mapping[str, Note],
        source: Promoting,
        agreed: Callable[[Mapping[str, Note]], bool],
        *,
        dry: bool,
    ) -> Promoted:
        contents = await self.catalogue.contents(project)
        entries = await self._ledger.peek(self.catalogue.name, project)
        plan = self._plan(notes, contents, entries)
        if plan.problems:
            raise FileExists(f"nothing was promoted to index {self.catalogue.name}: {'; '.join(plan.problems)}")
        if not agreed(plan.new):
            raise FilesChanged(f"the files of {project} have changed meanwhile: nothing was promoted; look at them again")
        size = sum(note.size for note in plan.new.values())
        if plan.new:
            self._receiving.require_open(project, contents.status)
            self._receiving.require_within(size, len(plan.new))
            await self._receiving.require_free(size)
        if dry or not plan.new:
            return Promoted(plan.new, tuple(plan.there))
        if self._claims is not None:
            await self._claims.claim(self.catalogue.name, project, "promote", source.catalogue.name)
        new = await self._carried_out(project, plan.new, source, entries)
        held = None if self._claims is None else self._claims.held(self.catalogue.name, project)
        return Promoted(new, tuple(plan.there), held)

    def _plan(self, notes: Mapping[str, Note], contents: Contents, entries: Mapping[str, LedgerEntry]) -> _Plan:
        plan = _Plan()
        standing = {each.filename for each in contents.files}
        for filename, note in sorted(notes.items()):
            entry = entries.get(filename)
            known = contents.notes[filename].sha256 if filename in contents.notes else None
            if entry is not None and entry.sha256 != note.sha256 and not self._receiving.settings.overwrite:
                plan.problems.append(f"{filename} is, or was, there with other bytes (sha256-{entry.sha256})")
            elif filename not in standing:
                plan.new[filename] = _with_first_time(note, entry)
            elif known == note.sha256:
                plan.there.append(filename)
            else:
                plan.problems.append(f"another file named {filename} is in its directory")
        return plan

    async def _carried_out(
        self, project: str, notes: Mapping[str, Note], source: Promoting, entries: Mapping[str, LedgerEntry]
    ) -> Mapping[str, Note]:
        opened: dict[str, IBytesSource] = {}
        run = self._intake.checking.run
        try:
            for filename, note in notes.items():
                opened[filename] = await source.opened(project, filename, note)
            staged = {filename: (opened[filename].fileno(), note) for filename, note in notes.items()}
            batch = await run(self._batches.stage, project, staged)
        except OSError as error:
            raise storage_failed(f"{project} cannot be copied into the directory of {self.catalogue.name}", error) from error
        finally:
            for each in opened.values():
                each.close()
        try:
            # Entered first: a name that is in the directory had its bytes from the beginning, whoever reads it when.
            for filename, note in batch.notes.items():
                await enter(self._ledger, self.catalogue.name, project, filename, note, entries.get(filename))
        except BaseException:
            await run(self._batches.discard, batch)
            self.catalogue.changed(project)
            raise
        try:
            await run(self._batches.put, batch)
        except OSError as error:
            self.catalogue.changed(project)
            raise storage_failed(f"{project} cannot be put into the directory of {self.catalogue.name}", error) from error
        for filename, note in batch.notes.items():  # in one go: nobody is answered in between
            self.catalogue.added(project, filename, note, replaced=None)
        self.log.info(
            "{count} files of {project} were promoted from {source} to {index}",
            count=len(notes),
            project=project,
            source=source.catalogue.name,
            index=self.catalogue.name,
        )
        return batch.notes


def _with_first_time(note: Note, entry: LedgerEntry | None) -> Note:
    """*note* with the time of the first upload, be it to this index."""
    if entry is None or entry.upload_time is None or entry.sha256 != note.sha256:
        return note
    return note if moment_of(note.upload_time) <= moment_of(entry.upload_time) else replace(note, upload_time=entry.upload_time)
