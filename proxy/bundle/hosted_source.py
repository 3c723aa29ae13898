"""What a bundle has of a hosted index: its files as their JSON files and the ledger have them, and statuses of projects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from proxy.bundle.exporting import Exported, Selection
from proxy.bundle.format import HostedFile, Section
from proxy.bundle.writing import BundleWriter
from proxy.hosted.folder import Contents, Folder, StandingFile
from proxy.hosted.noted import noted_files
from proxy.hosted.notes import Note
from proxy.hosted.ports import FirstDigests
from proxy.hosted.project import listed_as
from proxy.interfaces import Clock, IBytesSource, IFileStore, IOffload
from proxy.model import LedgerEntry
from proxy.policy.policy import STANDARD, Policy
from proxy.policy.rules import Project, Viewpoint
from proxy.storage.whole import open_regular


class HostedSource(Struct, frozen=True):
    """The hosted index *name* in *folder*; *on_the_way* is told what was written so far."""

    name: str
    folder: Folder
    ledger: FirstDigests
    files: IFileStore
    offload: IOffload
    clock: Clock
    on_the_way: Callable[[Exported], None]
    policy: Policy = STANDARD

    @property
    def section(self) -> Section:
        return Section(self.name, "hosted")

    async def projects(self) -> list[str]:
        """The projects that have files in the directory.  Raises OSError."""
        return sorted((await self.offload.run(self.folder.survey)).outlines)

    async def write(self, wanted: Selection, writer: BundleWriter, exported: Exported, *, picky: bool) -> None:
        """Write what is *wanted*; *picky*: a project without any file to go into the bundle is a problem.

        Raises OSError, StorageFailed.
        """
        outlines = (await self.offload.run(self.folder.survey)).outlines
        for project, names in sorted(wanted.items()):
            outline = outlines.get(project)
            contents = Contents() if outline is None else await self.offload.run(self.folder.contents, project, outline.names)
            entries = await self.ledger.peek(self.name, project)
            notes = noted_files(contents, entries)
            unserved = [each.filename for each in contents.files if each.filename not in notes]
            exported.problems += [
                f"{each}: index {self.name} does not serve it, it stays here; pypiproxy hosted check {self.name} says why"
                for each in unserved
                if names is None or each in names
            ]
            chosen = {name: note for name, note in notes.items() if names is None or name in names}
            exported.problems += [
                f"{each}: index {self.name} has no such file of {project}" for each in sorted(set(names or ()) - notes.keys())
            ]
            if picky and names is None and not chosen and not unserved:
                exported.problems.append(f"{project}: index {self.name} has no files of it")
            await self._project(project, contents, self._seen(project, contents, chosen, entries, exported), writer, exported)

    def _seen(
        self,
        project: str,
        contents: Contents,
        notes: Mapping[str, Note],
        entries: Mapping[str, LedgerEntry],
        exported: Exported,
    ) -> Mapping[str, Note]:
        """Those of *notes* whose files may be seen; the others are problems."""
        of = Project(project, None if contents.status is None else contents.status.status)
        now, view = self.clock(), Viewpoint(self.name)
        withheld = self.policy.files(of, now, view)
        if notes and not withheld.visible:
            exported.problems.append(f"{project}: it is {withheld.why}, its files stay here")
            return {}
        verdicts = {
            name: self.policy.visible(listed_as(project, name, note), of, entries[name], now, view)
            for name, note in notes.items()
        }
        exported.problems += [f"{name}: it is {each.why}, it stays here" for name, each in verdicts.items() if not each.visible]
        return {name: note for name, note in notes.items() if verdicts[name].visible}

    async def _project(
        self, project: str, contents: Contents, notes: Mapping[str, Note], writer: BundleWriter, exported: Exported
    ) -> None:
        written = 0
        for file in contents.files:
            note = notes.get(file.filename)
            if note is not None:
                written += await self._file(project, file, note, writer, exported)
                self.on_the_way(exported)
        if written and contents.status is not None:
            await self.offload.run(writer.status, project, contents.status)

    async def _file(self, project: str, file: StandingFile, note: Note, writer: BundleWriter, exported: Exported) -> bool:
        """Write one file with what is noted of it; whether that could be done."""
        source = await self._bytes_of(file, note)
        if source is None:
            exported.problems.append(
                f"{file.filename}: its bytes are neither stored nor in the directory; pypiproxy verify tells what is missing"
            )
            return False
        try:
            noted = HostedFile(file.filename, replace(note, mtime_ns=0))
            sound = await self.offload.run(writer.hosted, project, noted, source.fileno())
        finally:
            source.close()
        if not sound:
            exported.problems.append(f"{file.filename}: the stored file is damaged; pypiproxy verify --repair mends it")
            return False
        exported.files += 1
        exported.size += note.size
        return True

    async def _bytes_of(self, file: StandingFile, note: Note) -> IBytesSource | None:
        """The bytes in the store, or those in the directory; they are checked as they are written."""
        stored = await self.files.unchecked(note.sha256)
        if stored is not None and stored.size == note.size:
            return stored
        if stored is not None:
            stored.close()
        standing = await self.offload.run(open_regular, file.path)
        if standing is not None and standing.size == note.size:
            return standing
        if standing is not None:
            standing.close()
        return None
