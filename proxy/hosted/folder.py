"""The directory of a hosted index: which files stand there, and the JSON file beside each.

In the layout ``projects`` each project has a directory; in ``flat`` all files stand in one.  Where the directory is read-only,
the JSON files are in the data directory.  Names that begin with a dot belong to nobody: what is being copied, and what is being
written here.  Everything here blocks and runs in a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.errors import BadUpload
from proxy.hosted.inspection import distribution_name
from proxy.hosted.notes import LARGEST_NOTE, NOTE, Note, ProjectStatus, read_note, read_status, written_note
from proxy.hosted.placing import Placing, appear, sync_folder, unlink
from proxy.model import EMPTY
from proxy.names import is_distribution, is_project_name, normalize
from proxy.storage.copying import copy_bytes

#: What a directory that takes nothing says.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_STATUS = "project.json"


class StandingFile(Struct, frozen=True):
    """A file as it stands in the directory."""

    filename: str
    path: Path
    size: int
    mtime_ns: int
    ctime: float
    inode: int

    @property
    def mark(self) -> tuple[int, int, int]:
        """What changes when other bytes stand there."""
        return self.inode, self.size, self.mtime_ns


class Outline(Struct, frozen=True):
    """How much a project has, by the directory alone: another *state*, other files."""

    state: int
    count: int
    size: int
    #: The names of its directories; in the flat layout those of its files.
    names: tuple[str, ...]


class Survey(Struct, frozen=True):
    """What stands in the whole directory: the projects that have files, what belongs to none with the reason, and the names
    of all directories of projects.
    """

    outlines: Mapping[str, Outline] = EMPTY
    strangers: Mapping[str, str] = EMPTY
    directories: frozenset[str] = frozenset()


class Contents(Struct, frozen=True):
    """What stands in the directory for a project, with what is noted of it; *faults* are notes that cannot be read."""

    files: tuple[StandingFile, ...] = ()
    notes: Mapping[str, Note] = EMPTY
    status: ProjectStatus | None = None
    faults: Mapping[str, str] = EMPTY


def project_in(filename: str) -> str | None:
    """The project that *filename* names, ``None`` for what is no name of a distribution that is taken."""
    try:
        return distribution_name(filename).project
    except BadUpload:
        return None


class Folder:
    """The directory *root* in its *layout*.

    *spare*, below the data directory, which *prepare* makes, is where JSON files are that *root* does not take.  Where it is
    *root* itself it is made when it is missing; another one may be a volume that is not mounted.
    """

    def __init__(self, root: Path, layout: str, spare: Path, prepare: Callable[[Path], None]) -> None:
        self.root = root
        self._own = root == spare
        self.flat = layout == "flat"
        self._spare = spare
        self._prepare = prepare
        self.placing = Placing()

    # -- looking -----------------------------------------------------------------------------------------------------------

    def survey(self, known: Mapping[str, Outline] = EMPTY) -> Survey:
        """Look at names, sizes and times of all files; what was *known* before need not be found out again.

        Raises OSError where the directory cannot be read.
        """
        if self._own and not self.root.is_dir():
            return Survey()
        return self._flat_survey(known) if self.flat else self._survey_of_folders()

    def _survey_of_folders(self) -> Survey:
        names: dict[str, list[str]] = {}
        strangers = {}
        for entry in _entries(self.root):
            if entry.is_dir() and is_project_name(entry.name):
                names.setdefault(normalize(entry.name), []).append(entry.name)
            elif is_distribution(entry.name):
                project = project_in(entry.name)
                where = "a directory of its project" if project is None else f"{project}/"
                strangers[entry.name] = f"it stands beside the directories of projects: move it to {where}"
        found = {project: self.outline(project, tuple(sorted(folders))) for project, folders in names.items()}
        outlines = {project: each for project, each in found.items() if each is not None}
        return Survey(outlines, strangers, frozenset(name for folders in names.values() for name in folders))

    def _flat_survey(self, known: Mapping[str, Outline]) -> Survey:
        # Reading a name takes longer than looking at its file.
        projects = {name: project for project, each in known.items() for name in each.names}
        by_project: dict[str, list[os.DirEntry[str]]] = {}
        strangers = {}
        for entry in _entries(self.root):
            file = entry.name.removesuffix(NOTE)
            if entry.name.startswith(".") and entry.name.endswith(f".{_STATUS}"):
                by_project.setdefault(normalize(entry.name[1:].removesuffix(f".{_STATUS}")), []).append(entry)
            elif file in projects:
                by_project.setdefault(projects[file], []).append(entry)
            elif is_distribution(file) and not entry.name.startswith("."):
                try:
                    project = projects[file] = distribution_name(file).project
                    by_project.setdefault(project, []).append(entry)
                except BadUpload as error:
                    strangers[file] = str(error)
        found = {}
        for project in list(by_project):
            # An entry keeps what is said of its file from now on: those of one project are let go of before the next one's.
            outline = _outlined(by_project.pop(project), None)
            if outline is not None:
                found[project] = outline
        return Survey(found, strangers)

    def outline(self, project: str, names: tuple[str, ...]) -> Outline | None:
        """The outline of one *project*, whose directories (files, in the flat layout) are *names*; ``None`` if it is empty."""
        if self.flat:
            beside = self.status_paths(project)[0].name
            paths = [self.root / each for name in names for each in (name, f"{name}{NOTE}")] + [self.root / beside]
            return _summed(((path.name, facts) for path in paths if (facts := _facts(path)) is not None), None)
        return _outlined((entry for name in names for entry in _entries(self.root / name, missing=True)), names)

    def contents(self, project: str, names: Iterable[str]) -> Contents:
        """All that stands there for *project*, whose directories (files, in the flat layout) are *names*."""
        paths = [self.root / each for each in names]
        if not self.flat:
            paths = [Path(each.path) for folder in paths for each in _entries(folder, missing=True)]
        files: dict[str, StandingFile] = {}
        notes: dict[str, Note] = {}
        faults: dict[str, str] = {}
        for path in paths:
            facts = _facts(path) if is_distribution(path.name) else None
            if facts is None or path.name in files:
                continue
            files[path.name] = _standing(path, facts)
            try:
                note = self.note(project, files[path.name])
            except ValueError as error:
                faults[path.name] = f"its JSON file cannot be read ({error}): mend or remove it"
            else:
                if note is not None:
                    notes[path.name] = note
        try:
            status = self.status(project)
        except ValueError as error:
            status = None
            faults[_STATUS] = f"the status of {project} cannot be read ({error})"
        return Contents(tuple(files.values()), notes, status, faults)

    def standing(self, project: str, filename: str) -> StandingFile | None:
        """The file *filename* where an upload would put it, if there is one."""
        path = self.place(project, filename)
        facts = _facts(path)
        return None if facts is None else _standing(path, facts)

    def note(self, project: str, file: StandingFile) -> Note | None:
        """What is noted of *file*.  Raises ValueError."""
        for path in self._note_paths(project, file.path):
            data = _read(path)
            if data is not None:
                return read_note(data)
        return None

    def status(self, project: str) -> ProjectStatus | None:
        """The status of *project*.  Raises ValueError."""
        for path in self.status_paths(project):
            data = _read(path)
            if data is not None:
                return read_status(data)
        return None

    # -- places ------------------------------------------------------------------------------------------------------------

    def place(self, project: str, filename: str) -> Path:
        """Where an upload puts *filename*."""
        return self.root / filename if self.flat else self.root / project / filename

    def status_paths(self, project: str) -> tuple[Path, Path]:
        """Where the status of *project* may be."""
        beside = self.root / (f".{project}.{_STATUS}" if self.flat else f"{project}/.{_STATUS}")
        return beside, self._spare / project / f".{_STATUS}"

    def _note_paths(self, project: str, path: Path) -> tuple[Path, Path]:
        return path.with_name(path.name + NOTE), self._spare / project / (path.name + NOTE)

    # -- writing -----------------------------------------------------------------------------------------------------------

    def write_note(self, project: str, path: Path, note: Note) -> None:
        """Write what is noted of the file at *path*: beside it, or in the data directory where that takes nothing."""
        self._write_either(self._note_paths(project, path), written_note(note))

    def write_status(self, project: str, status: ProjectStatus) -> None:
        """Write the status of *project*.  Raises OSError."""
        self._write_either(self.status_paths(project), msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n")

    def _write_either(self, paths: tuple[Path, Path], data: bytes) -> None:
        beside, spare = paths
        try:
            self.placing.write(beside, data)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            self._prepare(spare.parent)
            self.placing.write(spare, data)

    def add(self, project: str, filename: str, source: int, note: Note, *, instead: bool) -> Note:
        """Put the file behind the descriptor *source* into the directory, with *note* beside it; the note with its time.

        It appears whole, and with *instead* in place of another one.  Raises FileExistsError, OSError; nothing is left then.
        """
        path = self.place(project, filename)
        if not self._own:
            os.stat(self.root)
        self.placing.make(path.parent)
        temporary = self.placing.temporary(path.parent)
        noted = False
        try:
            note = copied_file(source, temporary, note)
            if not instead and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            self.write_note(project, path, note)
            noted = True
            appear(temporary, path, instead=instead)
        except BaseException:
            unlink(temporary)
            if noted and not instead and not os.path.lexists(path):
                for each in self._note_paths(project, path):
                    unlink(each)
            raise
        sync_folder(path.parent)
        return note

    def remove_same(self, project: str, file: StandingFile) -> bool:
        """As `remove`, of *file* as it was found; nothing is removed if another one is in its place now, which is returned."""
        facts = _facts(file.path)
        if facts is not None and _standing(file.path, facts).mark != file.mark:
            return False
        self.remove(project, file.path)
        return True

    def remove(self, project: str, path: Path) -> None:
        """Remove a file and what is noted of it.  Raises OSError."""
        path.unlink(missing_ok=True)
        for each in self._note_paths(project, path):
            with suppress(FileNotFoundError, NotADirectoryError):
                each.unlink()
        sync_folder(path.parent)

    def sweep(self) -> None:
        """Remove what a crash left of files that were being written."""
        self.placing.sweep(self.root)
        if not self.flat:
            for entry in _entries(self.root, missing=True):
                if entry.is_dir():
                    self.placing.sweep(Path(entry.path))

    def make(self) -> None:
        """Make the directory if it is part of the data directory.  Raises OSError."""
        if self._own:
            self._prepare(self.root)


def copied_file(source: int, path: Path, note: Note) -> Note:
    """Copy the bytes of *note* from the descriptor *source* to *path*, which nobody has; the note with the time of the copy.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        count = copy_bytes(source, descriptor, 0, note.size)
        if count != note.size:
            raise OSError(errno.EIO, f"only {count:,} of {note.size:,} bytes could be copied", str(path))
        os.fsync(descriptor)
        return msgspec.structs.replace(note, mtime_ns=os.fstat(descriptor).st_mtime_ns)
    finally:
        os.close(descriptor)


def _outlined(entries: Iterable[os.DirEntry[str]], names: tuple[str, ...] | None) -> Outline | None:
    facts = []
    for entry in entries:
        with suppress(OSError):
            facts.append((entry.name, entry.stat()))
    return _summed(facts, names)


def _summed(facts: Iterable[tuple[str, os.stat_result]], names: tuple[str, ...] | None) -> Outline | None:
    """The outline of the files with these *facts*, notes among them; *names* are those of their directories."""
    there = sorted((name, each.st_size, each.st_mtime_ns, each.st_ino) for name, each in facts if stat.S_ISREG(each.st_mode))
    files = [(name, size) for name, size, _, _ in there if is_distribution(name) and not name.startswith(".")]
    if not files:
        return None
    state = int.from_bytes(hashlib.blake2b(repr(there).encode(), digest_size=8).digest())
    names = tuple(name for name, _ in files) if names is None else names
    return Outline(state, len(files), sum(size for _, size in files), names)


def _entries(folder: Path, *, missing: bool = False) -> list[os.DirEntry[str]]:
    """What stands in *folder* for everybody, and notes; of one that is *missing* and may be, nothing.  Raises OSError."""
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".") or entry.name.endswith(f".{_STATUS}")]
    except (FileNotFoundError, NotADirectoryError):
        if missing:
            return []
        raise


def _standing(path: Path, facts: os.stat_result) -> StandingFile:
    return StandingFile(path.name, path, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns / 1e9, facts.st_ino)


def _facts(path: Path) -> os.stat_result | None:
    """What is to be said of the regular file at *path*, or that a link leads to; ``None`` if there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read(path: Path) -> bytes | None:
    """The small file at *path*, ``None`` if there is none.  Raises ValueError."""
    try:
        # Whoever opens a pipe waits for its writer, unless he says that he does not.
        with open(path, "rb", opener=_opened) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("it is no regular file")
            data = file.read(LARGEST_NOTE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if len(data) > LARGEST_NOTE:
        raise ValueError(f"it has more than {LARGEST_NOTE:,} bytes")
    return data
