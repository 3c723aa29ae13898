"""Damage to what the proxy keeps: its files, what is arriving, what was set aside, its lists, and the record database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random

from bench.damage.journal import WORLD, Journal

#: The folders below the data directory whose entries are damaged.
_FOLDERS = ("files", "files", "files", "partial", "quarantine", "lists")


class Wrecker:
    """Damages the data directory *root*, which may have other places at other times; *owner* may change modes."""

    def __init__(self, rng: Random, journal: Journal) -> None:
        self._rng = rng
        self._journal = journal
        #: What cannot be entered or written, and the mode it had.
        self._closed: dict[Path, int] = {}
        self._ballast: Path | None = None

    def entries(self, root: Path, *, running: bool) -> None:
        """Damage some entries.  While the proxy runs, ``partial/`` belongs to it alone: what is there is being written."""
        for _ in range(self._rng.randrange(1, 5)):
            folder = root / self._rng.choice([each for each in _FOLDERS if not (running and each == "partial")])
            found = sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
            if found:
                self._entry(self._rng.choice(found), root)

    def _entry(self, path: Path, root: Path) -> None:
        kinds: dict[str, Callable[[], None]] = {
            "byte flipped": lambda: self._flip(path),
            "byte flipped, times kept": lambda: self._flip(path, keep_times=True),
            "several bytes wrong": lambda: self._scribble(path),
            "truncated": lambda: os.truncate(path, self._rng.randrange(max(1, path.stat().st_size))),
            "emptied": lambda: os.truncate(path, 0),
            "lengthened": lambda: self._lengthen(path),
            "deleted": path.unlink,
            "directory in its place": lambda: self._directory(path),
            "pipe in its place": lambda: self._pipe(path),
            "link to nothing": lambda: self._link(path, path.parent / "nowhere"),
            "link to itself": lambda: self._link(path, path),
            "another file's bytes": lambda: self._exchange(path),
            "mode 000": lambda: self._close(path, 0),
            "folder deleted": lambda: self._remove_folder(path, root),
            "folder not writable": lambda: self._close(path.parent, 0o500),
            "folder closed": lambda: self._close(path.parent, 0),
        }
        kind = self._rng.choice(sorted(kinds))
        self._journal.damage[f"{path.relative_to(root).parts[0]}: {kind}"] += 1
        self._journal.note(WORLD, f"damage: {kind}: {str(path.relative_to(root))[:40]}")
        with suppress(OSError):  # a disk that is full takes no damage either
            kinds[kind]()

    def _flip(self, path: Path, *, keep_times: bool = False) -> None:
        facts = path.stat()
        if not facts.st_size:
            return
        position = self._rng.randrange(facts.st_size)
        with path.open("r+b") as file:
            file.seek(position)
            (byte,) = file.read(1)
            file.seek(position)
            file.write(bytes([byte ^ 1 << self._rng.randrange(8)]))
        if keep_times:
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def _scribble(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(self._rng.randrange(max(1, size)))
            file.write(self._rng.randbytes(min(500, max(0, size - file.tell()))))

    def _lengthen(self, path: Path) -> None:
        with path.open("ab") as file:
            file.write(self._rng.randbytes(self._rng.choice([1, 5_000])))

    def _directory(self, path: Path) -> None:
        path.unlink()
        path.mkdir()
        if self._rng.random() < 0.5:
            (path / "something").write_bytes(b"in it")

    def _pipe(self, path: Path) -> None:
        path.unlink()
        os.mkfifo(path, 0o600)

    def _link(self, path: Path, target: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    def _exchange(self, path: Path) -> None:
        others = sorted(each for each in path.parent.parent.rglob("*") if each.is_file() and not each.is_symlink())
        path.write_bytes(self._rng.choice(others).read_bytes())

    def _remove_folder(self, path: Path, root: Path) -> None:
        whole = self._rng.random() < 0.3 and path.parent.parent != root
        shutil.rmtree(path.parent.parent if whole else path.parent)

    def _close(self, path: Path, mode: int) -> None:
        self._closed.setdefault(path, path.stat().st_mode & 0o7777)
        path.chmod(mode)

    def reopen(self, *, all_of_it: bool = False) -> None:
        """Give back the modes that were taken away, of some or of all."""
        for path, mode in list(self._closed.items()):
            if all_of_it or self._rng.random() < 0.5:
                del self._closed[path]
                if path.exists() and not path.is_symlink():
                    path.chmod(mode)

    # -- the record database --------------------------------------------------------------------------------------------------

    def database(self, root: Path, *, running: bool) -> None:
        """Damage the record database."""
        folder = root / "records"
        files = sorted(each for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else []
        if not files:
            return
        main = folder / "cache.db"
        values = [each for each in files if each.suffix == ".val"]
        kinds: dict[str, Callable[[], None]] = {
            "deleted": lambda: _unlink(each for each in files if each.name.startswith("cache.db")),
            "garbage at its beginning": lambda: self._overwrite(main, 0, 4_096),
            "garbage in a page": lambda: self._overwrite(
                main, 4_096 * self._rng.randrange(1 + main.stat().st_size // 4_096), 4_096
            ),
            "all garbage": lambda: self._overwrite(main, 0, main.stat().st_size),
            "truncated": lambda: os.truncate(main, self._rng.randrange(max(1, main.stat().st_size))),
            "emptied": lambda: os.truncate(main, 0),
            "log deleted": lambda: _unlink(each for each in files if each.name.startswith("cache.db-")),
            "byte flipped": lambda: self._flip(main),
        }
        if values:
            value = self._rng.choice(values)
            kinds |= {"value flipped": lambda: self._flip(value), "value deleted": value.unlink}
        if not running:
            kinds |= {
                "folder deleted": lambda: shutil.rmtree(folder),
                "file in its place": lambda: self._file_for(folder),
                "directory in its place": lambda: self._directory(main),
            }
        if not main.is_file():
            kinds = {"folder deleted": lambda: shutil.rmtree(folder)}
        kind = self._rng.choice(sorted(kinds))
        when = "running" if running else "stopped"
        self._journal.damage[f"records ({when}): {kind}"] += 1
        self._journal.note(WORLD, f"damage ({when}): the record database: {kind}")
        with suppress(OSError):  # a disk that is full takes no damage either
            kinds[kind]()

    def _overwrite(self, path: Path, start: int, count: int) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(self._rng.randbytes(count))

    def _file_for(self, folder: Path) -> None:
        shutil.rmtree(folder)
        folder.write_bytes(b"no database")

    # -- the disk -------------------------------------------------------------------------------------------------------------

    def fill(self, root: Path) -> None:
        """Leave next to no room on the disk, or give the room back."""
        if self._ballast is not None:
            self.give_room()
            return
        self._ballast = root / "ballast"
        facts = os.statvfs(root)
        left = self._rng.choice([0, 4_096, 100_000, 2_000_000])
        self._journal.damage["disk: filled"] += 1
        self._journal.note(WORLD, f"damage: {left:,} bytes of the disk are free")
        with self._ballast.open("wb") as file:
            try:
                for _ in range(max(0, facts.f_bavail * facts.f_frsize - left) // 4_096):
                    file.write(bytes(4_096))
                    file.flush()
            except OSError:
                pass

    def give_room(self) -> None:
        """Let the disk have room, if that was taken."""
        if self._ballast is not None:
            self._ballast.unlink(missing_ok=True)
            self._ballast = None
            self._journal.note(WORLD, "damage: the disk has room again")

    def open_lists(self, root: Path) -> None:
        """Let the folders of lists be written again: a list that cannot be written anywhere is not served."""
        for folder in (root / "lists", *(root / "lists").rglob("*")):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o700)

    def empty_disk(self) -> None:
        """The disk is gone, and what was on it."""
        self._ballast = None
        self._closed.clear()


def _unlink(paths: Iterable[Path]) -> None:
    for each in paths:
        each.unlink()
