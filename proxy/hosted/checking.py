"""What is wrong in the directory of a hosted index: files that are not served, and what belongs to no file.

| kind | what |
|---|---|
| refused | a file that is not served: no sound distribution, in a wrong folder, other bytes than before, unreadable |
| waiting | a file that somebody seems to be writing |
| changed | a file whose bytes are not those of its JSON file, although its size and time are (found by reading all of them) |
| duplicate | a file whose name another folder of its project has as well |
| orphan | a JSON file without a file |
| stranger | a folder whose name no project can have, and a file that is no distribution |
| status | a status of a project that cannot be read |
| held | a project whose files no group serves, because its name is held |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from proxy.errors import StorageFailed
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.folder import Folder
from proxy.hosted.notes import NOTE
from proxy.interfaces import IClaims, IOffload
from proxy.names import is_distribution, is_project_name, normalize
from proxy.settings import MIB


class Finding(Struct, frozen=True):
    """Something that is wrong: its *kind*, its place below the directory, and the reason."""

    kind: str
    place: str
    why: str


#: Told how many files there are so far that were looked at, and their bytes.
Progress = Callable[[int, int], None]


class Checking:
    """Checks the directory of *catalogue*; *claims* know which names are held, if there are any."""

    def __init__(self, catalogue: Catalogue, disk: IOffload, claims: IClaims | None) -> None:
        self._claims = claims
        self._catalogue = catalogue
        self._disk = disk

    async def check(self, progress: Progress, *, digests: bool) -> tuple[list[Finding], int]:
        """What is wrong, and how many files are served; with *digests* all bytes are read.

        New files are taken on the way.  Raises StorageFailed.
        """
        catalogue = self._catalogue
        if self._claims is not None:
            await self._claims.ready()
        await catalogue.scan()
        found: list[Finding] = []
        served = size = 0
        for project in catalogue.projects():
            try:
                known = await catalogue.look_at(project)
            except StorageFailed as error:
                found.append(Finding("refused", f"{project}/", str(error)))
                continue
            contents = await catalogue.contents(project)
            refused = {name.rpartition("/")[2] for name in catalogue.refused if name.startswith(f"{project}/")}
            notes = {} if known is None else known.notes
            served += len(notes)
            held = self._claims.held(catalogue.name, project) if self._claims is not None and notes else None
            found += [] if held is None else [Finding("held", f"{project}/", held)]
            found += [Finding("status", project, why) for name, why in contents.faults.items() if not is_distribution(name)]
            for file in contents.files:
                size += file.size
                if file.filename not in notes and file.filename not in refused:
                    found.append(Finding("waiting", self._place(file.path), "somebody seems to be writing it: check again"))
                note = contents.notes.get(file.filename)
                if digests and note is not None and file.filename in notes and file.filename not in refused:
                    why = await self._disk.run(_other_bytes, file.path, note.sha256)
                    found += [Finding("changed", self._place(file.path), why)] if why else []
            progress(served, size)
        found += [Finding("refused", place, why) for place, why in catalogue.refused.items()]
        try:
            found += await self._disk.run(lambda: list(_strays(catalogue.folder)))
        except OSError as error:
            raise StorageFailed(f"{catalogue.folder.root} cannot be read: {error.strerror}") from error
        return sorted(found, key=lambda each: (each.place, each.kind)), served

    def _place(self, path: Path) -> str:
        return str(path.relative_to(self._catalogue.folder.root))


def _other_bytes(path: Path, sha256: str) -> str | None:
    """Why the file at *path* is not the one with the digest *sha256*, if it is not."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while data := file.read(MIB):
                digest.update(data)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if digest.hexdigest() == sha256:
        return None
    return f"its bytes are sha256-{digest.hexdigest()}, and its JSON file says sha256-{sha256}: the first ones are served"


def _strays(folder: Folder) -> Iterator[Finding]:
    """What stands in *folder* and belongs to no file that could be served.  Raises OSError."""
    if not folder.root.is_dir():
        return
    if folder.flat:
        yield from _of_no_file(folder.root, "")
        return
    there: dict[tuple[str, str], str] = {}
    for entry in sorted(os.scandir(folder.root), key=lambda each: each.name):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if not is_distribution(entry.name):
                yield Finding("stranger", entry.name, "it is no distribution")
        elif not is_project_name(entry.name):
            yield Finding("stranger", f"{entry.name}/", "no project can have this name")
        else:
            yield from _of_no_file(Path(entry.path), f"{entry.name}/")
            yield from _twice(Path(entry.path), entry.name, there)


def _of_no_file(directory: Path, prefix: str) -> Iterator[Finding]:
    names = {each.name for each in os.scandir(directory)}
    for name in sorted(names):
        if name.startswith(".") or is_distribution(name):
            continue
        if not name.endswith(NOTE):
            yield Finding("stranger", f"{prefix}{name}", "it is no distribution")
        elif name.removesuffix(NOTE) not in names:
            yield Finding("orphan", f"{prefix}{name}", "the file that it is about is not there")


def _twice(directory: Path, name: str, there: dict[tuple[str, str], str]) -> Iterator[Finding]:
    for each in sorted(os.listdir(directory)):
        if is_distribution(each) and not each.startswith("."):
            first = there.setdefault((normalize(name), each), name)
            if first != name:
                yield Finding("duplicate", f"{name}/{each}", f"{first}/ has a file of that name too: only that one is served")
