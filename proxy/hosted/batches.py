"""Several files that appear in the directory of a hosted index together or not at all, also when the process is killed.

They are written into a hidden directory first.  The decision is one rename of that directory, to another hidden name: from then
on its files belong to the index.  Then each is moved to its place.  What a crash leaves before the decision is swept; what it
leaves after it is moved when the directory is read next, before anybody sees anything of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from proxy.hosted.folder import Folder, copied_file
from proxy.hosted.notes import NOTE, Note, written_note
from proxy.hosted.placing import appear, sync_folder, unlink

#: The names of directories whose files belong to the index begin so.
_DECIDED = ".pypiproxy.decided-"


class Batch(Struct, frozen=True):
    """Files of *project* in the hidden directory *path*, with what is noted of each."""

    path: Path
    project: str
    notes: Mapping[str, Note]


class Batches:
    """Puts files into *folder*.  Everything here blocks; one batch of a project is put there at a time."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def stage(self, project: str, files: Mapping[str, tuple[int, Note]]) -> Batch:
        """Copy *files* (by name: the descriptor of the bytes, and the note) beside the others.

        Raises OSError; nothing is left then.
        """
        self._folder.make()
        path = self._folder.placing.temporary(self._folder.root)
        inner = path / project
        notes = {}
        try:
            os.makedirs(inner, mode=0o755)
            for filename, (source, note) in files.items():
                notes[filename] = _copied_with_note(source, inner / filename, note)
            sync_folder(inner)
            sync_folder(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return Batch(path, project, notes)

    def put(self, batch: Batch) -> None:
        """Decide for *batch*, and move its files to their places.  Raises OSError; nothing of it is there then."""
        decided = batch.path.with_name(batch.path.name.replace(".pypiproxy-", _DECIDED, 1))
        moved: list[Path] = []
        try:
            os.rename(batch.path, decided)
            batch = replace(batch, path=decided)
            sync_folder(self._folder.root)
            for filename in sorted(batch.notes):
                moved.append(self._move(batch.path / batch.project / filename, batch.project))  # noqa: PERF401  # may fail
            self._clear(batch.path, batch.project)
        except BaseException:
            self._undo(batch, moved)
            raise

    def discard(self, batch: Batch) -> None:
        """Leave nothing of a *batch* that was not decided for."""
        shutil.rmtree(batch.path, ignore_errors=True)

    def finish(self) -> None:
        """Move what a crash left of batches that had been decided for.  Raises OSError."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for batch in [Path(each.path) for each in os.scandir(self._folder.root) if each.name.startswith(_DECIDED)]:
                for inner in [Path(each.path) for each in os.scandir(batch)]:
                    for filename in sorted({each.name.removesuffix(NOTE) for each in os.scandir(inner)}):
                        with suppress(FileExistsError):  # of two that want one name, the one that is there stays
                            self._move(inner / filename, inner.name)
                    self._clear(batch, inner.name)
                with suppress(FileNotFoundError):
                    batch.rmdir()

    def _move(self, path: Path, project: str) -> Path:
        """Move the file at *path*, and its note before it, to their place; what was moved already stays."""
        place = self._folder.place(project, path.name)
        self._folder.placing.make(place.parent)
        with suppress(FileNotFoundError):
            os.rename(path.with_name(path.name + NOTE), place.with_name(place.name + NOTE))
        try:
            appear(path, place, instead=False)
        except FileNotFoundError:
            if not place.exists():
                raise
        except FileExistsError:
            if not path.samefile(place):
                raise
            unlink(path)
        return place

    def _clear(self, batch: Path, project: str) -> None:
        sync_folder(self._folder.place(project, NOTE).parent)
        shutil.rmtree(batch)
        sync_folder(self._folder.root)

    def _undo(self, batch: Batch, moved: list[Path]) -> None:
        # Taking things away needs no room on a disk that has none.  What cannot be undone is finished at the next start.
        with suppress(OSError):
            for place in moved:
                self._folder.remove(batch.project, place)
            for filename in batch.notes.keys() - {place.name for place in moved}:
                place = self._folder.place(batch.project, filename)
                if not place.exists():
                    unlink(place.with_name(place.name + NOTE))
            shutil.rmtree(batch.path)


def _copied_with_note(source: int, path: Path, note: Note) -> Note:
    """Copy the bytes of *note* from *source* to *path*, with a note of the copy beside it.  Raises OSError."""
    note = copied_file(source, path, note)
    with open(path.with_name(path.name + NOTE), "xb") as file:
        file.write(written_note(note))
        file.flush()
        os.fsync(file.fileno())
    return note
