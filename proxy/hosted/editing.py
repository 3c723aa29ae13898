"""Changes that operators make to what a hosted index has: yanked files (PEP 592), deleted ones, statuses of projects (PEP 792).

A change is made in the directory first, then in the ledger, then in memory: the next request sees it.  A deleted file's name
keeps its bytes in the ledger, so that other bytes cannot take its place, and the claim of the project's name stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace
from twisted.logger import Logger

from proxy.errors import NotFound
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.folder import StandingFile
from proxy.hosted.intake import storage_failed
from proxy.hosted.notes import Note, ProjectStatus
from proxy.hosted.ports import FirstDigests
from proxy.hosted.project import HostedProject
from proxy.interfaces import Clock, IOffload
from proxy.mechanism.flight import uninterrupted

#: Whether a file is meant, by its name.
WantedFile = Callable[[str], bool]


class Editing:
    """Changes what *catalogue* has.  *clock* tells the wall time."""

    log = Logger()

    def __init__(self, catalogue: Catalogue, ledger: FirstDigests, disk: IOffload, clock: Clock) -> None:
        self.catalogue = catalogue
        self._ledger = ledger
        self._disk = disk
        self._clock = clock

    async def project(self, project: str) -> HostedProject:
        """What is served of *project*.  Raises NotFound, StorageFailed."""
        found = await self.catalogue.of(project)
        if found is None:
            raise NotFound(f"there is no project {project} on index {self.catalogue.name}")
        return found

    async def yank(self, project: str, wanted: WantedFile, yanked: bool | str) -> dict[str, Note]:
        """Let the files that are *wanted* be *yanked*: ``False``, ``True`` or the reason.  What is noted of each now.

        Raises NotFound for a project without files, StorageFailed.
        """
        served = (await self.project(project)).notes

        async def changed() -> dict[str, Note]:
            contents = await self.catalogue.contents(project)
            notes = {
                each.filename: replace(contents.notes.get(each.filename, served[each.filename]), yanked=yanked)
                for each in contents.files
                if each.filename in served and wanted(each.filename)
            }
            entries = await self._ledger.peek(self.catalogue.name, project)
            try:
                for file in contents.files:
                    if (note := notes.get(file.filename)) is not None:
                        await self._disk.run(self.catalogue.folder.write_note, project, file.path, note)
                        self.catalogue.added(project, file.filename, note, replaced=note.size)
            except OSError as error:
                raise storage_failed(f"what is known of the files of {project} cannot be written", error) from error
            for filename in notes:
                if (entry := entries.get(filename)) is not None:
                    await self._ledger.put(self.catalogue.name, project, filename, replace(entry, yanked=yanked))
            return notes

        notes = await uninterrupted(self.catalogue.alone(project, changed))
        if notes:
            done = "unyanked" if yanked is False else "yanked"
            self.log.info(
                "{count} files of {project} were {done} on {index}",
                count=len(notes),
                project=project,
                done=done,
                index=self.catalogue.name,
            )
        return notes

    async def files(self, project: str) -> dict[str, StandingFile]:
        """Each file of *project* in the directory by its name, also of those that are not served.  Raises StorageFailed."""
        await self.catalogue.names()
        return {each.filename: each for each in (await self.catalogue.contents(project)).files}

    async def delete(self, project: str, wanted: WantedFile) -> dict[str, StandingFile]:
        """Delete the files of *project* that are *wanted*; each by its name.  Raises StorageFailed."""
        await self.catalogue.names()

        async def changed() -> dict[str, StandingFile]:
            gone: dict[str, StandingFile] = {}
            try:
                for file in (await self.catalogue.contents(project)).files:
                    if wanted(file.filename):
                        await self._disk.run(self.catalogue.folder.remove, project, file.path)
                        gone[file.filename] = file
            except OSError as error:
                raise storage_failed(f"a file of {project} cannot be deleted", error) from error
            finally:
                self.catalogue.removed(project, {name: file.size for name, file in gone.items()})
                await self._note_gone(project, gone)
            return gone

        return await uninterrupted(self.catalogue.alone(project, changed))

    async def _note_gone(self, project: str, gone: Iterable[str]) -> None:
        index = self.catalogue.name
        entries = await self._ledger.of(index, project)
        for filename in gone:
            self.log.info("{filename} was deleted from {index}", filename=filename, index=index)
            entry = entries.get(filename)
            if entry is not None and entry.gone_at is None:
                await self._ledger.put(index, project, filename, replace(entry, gone_at=self._clock()))

    async def mark(self, project: str, status: ProjectStatus) -> None:
        """Let *project* have *status*.  Raises NotFound, StorageFailed."""
        await self.project(project)

        async def changed() -> None:
            try:
                await self._disk.run(self.catalogue.folder.write_status, project, status)
            except OSError as error:
                raise storage_failed(f"the status of {project} cannot be written", error) from error
            self.catalogue.marked(project, status)

        await uninterrupted(self.catalogue.alone(project, changed))
        self.log.info("{project} is {status} on {index}", project=project, status=status.status, index=self.catalogue.name)
