"""Changes that operators make to what a hosted index has: yanked files (PEP 592), deleted ones, statuses of projects (PEP 792).

A change is made in the directory first, then in the ledger, then in memory: the next request sees it.  A deleted file's name
keeps its bytes in the ledger, so that other bytes cannot take its place, and the claim of the project's name stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace
from twisted.logger import Logger

from proxy.core.amounts import counted
from proxy.errors import FilesChanged, NotFound
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
#: Whether files, by their names, are those that somebody has agreed to.
AgreedFiles = Callable[[Mapping[str, StandingFile]], bool]

#: Names that are listed in a message.
_LISTED = 5


class Editing:
    """Changes what *catalogue* has.  *clock* tells the wall time.

    Which files are wanted is found out in the threads *work*: a project may have ten thousands, and a version takes 30 µs.
    """

    log = Logger()

    def __init__(self, catalogue: Catalogue, ledger: FirstDigests, disk: IOffload, work: IOffload, clock: Clock) -> None:
        self.catalogue = catalogue
        self._ledger = ledger
        self._disk = disk
        self._work = work
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
            there = [each.filename for each in contents.files if each.filename in served]
            notes = {
                name: replace(contents.notes.get(name, served[name]), yanked=yanked)
                for name in await self._work.run(_meant, there, wanted)
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

    async def delete(
        self, project: str, wanted: WantedFile, agreed: AgreedFiles = lambda files: True
    ) -> dict[str, StandingFile]:
        """Delete the files of *project* that are *wanted*; each by its name.  They are looked at once, before the first goes.

        Raises FilesChanged, and deletes nothing, if these files are not *agreed*; the same if one is replaced while others are
        deleted, and that one is left.  Raises StorageFailed.
        """
        await self.catalogue.names()

        async def changed() -> dict[str, StandingFile]:
            gone: dict[str, StandingFile] = {}
            left: list[str] = []
            files = (await self.catalogue.contents(project)).files
            going = await self._work.run(_agreed, project, files, wanted, agreed)
            try:
                for file in going:
                    if await self._disk.run(self.catalogue.folder.remove_same, project, file):
                        gone[file.filename] = file
                    else:
                        left.append(file.filename)
            except OSError as error:
                raise storage_failed(f"a file of {project} cannot be deleted", error) from error
            finally:
                self.catalogue.removed(project, {name: file.size for name, file in gone.items()})
                await self._note_gone(project, gone)
            if left:
                self.catalogue.changed(project)
                names = ", ".join(left[:_LISTED]) + (", …" if len(left) > _LISTED else "")
                raise FilesChanged(
                    f"replaced meanwhile, and not deleted: {names} of {project}; {counted(len(gone), 'other file')} deleted"
                )
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


def _meant(names: Iterable[str], wanted: WantedFile) -> list[str]:
    """Those of *names* that are *wanted*."""
    return [name for name in names if wanted(name)]


def _agreed(project: str, files: Sequence[StandingFile], wanted: WantedFile, agreed: AgreedFiles) -> list[StandingFile]:
    """Those of *files* that are *wanted*.  Raises FilesChanged unless they are *agreed*."""
    going = {each.filename: each for each in files if wanted(each.filename)}
    if not agreed(going):
        raise FilesChanged(f"the files of {project} have changed meanwhile: nothing was deleted; look at them again")
    return list(going.values())
