"""Files on the local disk: ``files/<aa>/<sha256>``, content-addressed.

What is arriving stands under ``partial/``, what was found damaged under ``quarantine/``.

Commit is fsync, rename, fsync of the directory: after a crash a file is there whole or not at all.  The time of a committed
file (mtime) is its last use: its bytes never change, so nothing else needs that field, and it is lost with no record.
Everything here that touches the disk runs in a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger
from zope.interface import implementer

from proxy.core.events import Incident, Notice
from proxy.errors import StorageFailed, is_of_the_disk
from proxy.expressions import expression
from proxy.interfaces import IBytesSource, IFileStore, IOffload, IPartialFile, IRecorder
from proxy.mechanism.flight import Flights, owned, uninterrupted
from proxy.model import CommittedFile
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.checked import (
    AT_ONCE,
    CheckedFile,
    Damage,
    FileBeingChecked,
    Mark,
    Proofs,
    hash_piece,
    mark_of,
    open_checked,
    same_bytes,
)
from proxy.storage.memory import resumable
from proxy.storage.partial import MARKS, LocalPartial
from proxy.storage.whole import WholeFile

_SHA256 = expression(r"[0-9a-f]{64}")
#: What opening or reading a file fails with that is damaged, or no file.  All else speaks of its owner, a mount, this process.
_OF_DAMAGE = (errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ELOOP, errno.ENXIO, errno.ENOTDIR)
#: Large files that are checked at one time, in the background.
_CHECKS = 2


class FailureListener(Protocol):
    """Told in any thread that the file *path* could not be written, for *needed* bytes in all, or read (with *reading*)."""

    def __call__(self, error: OSError, path: Path, needed: int = 0, *, reading: bool = False) -> None: ...


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _not_noted(error: OSError, path: Path, needed: int = 0, *, reading: bool = False) -> None:
    """What is done about failures unless somebody wants to know."""


@implementer(IFileStore)
class LocalFiles:
    """The tree under *root* (created with mode 0700).  *recorder* is told what is worth counting.

    *prepare* makes a directory where it is missing, or raises OSError where nothing may be written.
    """

    log = Logger()

    def __init__(
        self,
        root: Path,
        offload: IOffload,
        recorder: IRecorder = UNRECORDED,
        prepare: Callable[[Path], None] = _make,
        failed: FailureListener = _not_noted,
    ) -> None:
        self.prepare = prepare
        self.failed = failed
        self._files = root / "files"
        self._partial = root / "partial"
        self._quarantine = root / "quarantine"
        self._offload = offload
        self._recorder = recorder
        self._being_written: set[Path] = set()
        self._extra = itertools.count()
        self._changes = itertools.count(1)
        self.changes = 0
        self._proofs = Proofs()
        self._checks: Flights[None] = Flights()
        self._checking = DeferredSemaphore(_CHECKS)
        #: Held while a file takes the place of another, or is taken out of it.
        self._moving = threading.Lock()
        for directory in (self._files, self._partial):
            with suppress(OSError):  # it is tried again when it is needed
                prepare(directory)

    def path(self, sha256: str) -> Path:
        """Where the committed file *sha256* stands.  ValueError for what is no digest."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a sha256: {sha256!r}")
        return self._files / sha256[:2] / sha256

    async def open(self, sha256: str, size: int | None = None) -> IBytesSource | None:
        return await self.open_first([(sha256, size)])

    async def open_first(self, candidates: Sequence[tuple[str, int | None]]) -> IBytesSource | None:
        return await owned(self._open_first([(self.path(sha256), size) for sha256, size in candidates]))

    async def _open_first(self, candidates: Sequence[tuple[Path, int | None]]) -> WholeFile | None:
        while candidates:
            count, found = await self._offload.run(self._first_opened, candidates)
            path, _ = candidates[count - 1]
            if found is None:
                return None
            if not isinstance(found, Damage):
                source, mark = found
                # What was looked at as it was opened is right, also where somebody has noted another use of it since.
                if source.size <= AT_ONCE or self._proofs.hold(path.name, mark):
                    return source
                return self._being_checked(source, path.name, mark)
            await self._damaged(path.name, found)
            candidates = candidates[count:]
        return None

    def _first_opened(
        self, candidates: Sequence[tuple[Path, int | None]]
    ) -> tuple[int, tuple[CheckedFile, Mark] | Damage | None]:
        """The first of *candidates* that is there, good or damaged, and how many of them were looked at."""
        for count, (path, size) in enumerate(candidates, start=1):
            if (found := self._opened(path, size)) is not None:
                return count, found
        return len(candidates), None

    def _opened(self, path: Path, size: int | None) -> tuple[CheckedFile, Mark] | Damage | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._unreadable(error, path)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                found: tuple[CheckedFile, Mark] | Damage = Damage("it is no file")
            else:
                found = open_checked(descriptor, path.name, size, self._proofs)
        except OSError as error:
            os.close(descriptor)
            return self._unreadable(error, path)
        except BaseException:
            os.close(descriptor)
            raise
        if isinstance(found, Damage):
            os.close(descriptor)
        return found

    def _unreadable(self, error: OSError, path: Path) -> Damage | None:
        """What is the matter with a file that gave *error*; ``None`` for one that counts as missing and is left where it is."""
        if not is_of_the_disk(error):
            raise error
        if error.errno in _OF_DAMAGE:
            return Damage(f"it cannot be read: {error.strerror}")
        self.failed(error, path, reading=True)
        return None

    async def _damaged(self, sha256: str, damage: Damage) -> None:
        """Take a damaged file away.  Where that is impossible it is as good as gone: whoever wants it fetches it again."""
        try:
            if not await self._offload.run(self._set_aside, self.path(sha256), damage.mark):
                return  # it has been replaced meanwhile
            what = "it was set aside (quarantine/) and is fetched again when a client asks for it"
        except OSError as error:
            what = f"it cannot be set aside ({error.strerror}) and is replaced when a client asks for it"
        self.log.error("the stored file {sha256} is damaged, {why}: {what}", sha256=sha256, why=damage.what, what=what)
        self._recorder.record(Notice(Incident.FILE_DAMAGED))

    def _being_checked(self, source: CheckedFile, sha256: str, mark: Mark) -> FileBeingChecked:
        """*source*, whose end waits until all of it has been read and its digest was right."""
        held = FileBeingChecked(source.fileno(), source.size, sha256, mark, self._proofs)
        try:
            check = self._checks.join((sha256, mark[:3]), lambda: self._check(sha256, os.dup(held.fileno()), mark))
        except BaseException:
            held.close()
            raise
        check.addBoth(held.checked)
        return held

    async def _check(self, sha256: str, descriptor: int, mark: Mark) -> None:
        digest = hashlib.sha256()
        try:
            await self._checking.acquire()
            try:
                position = 0
                while count := await uninterrupted(self._offload.run(hash_piece, descriptor, position, digest)):
                    position += count
            finally:
                self._checking.release()
            found = digest.hexdigest()
            damage = None if found == sha256 else Damage(f"its bytes are sha256-{found}", mark)
            if damage is None:
                await self._offload.run(self._proofs.proven, sha256, descriptor, mark)
        except OSError as error:
            damage = Damage(f"it cannot be read: {error.strerror}", mark)
        finally:
            os.close(descriptor)
        if damage is not None:
            await self._damaged(sha256, damage)
            raise StorageFailed(f"the stored file {sha256} is damaged and was set aside: ask again, and it is fetched again")

    async def unchecked(self, sha256: str) -> WholeFile | None:
        return await owned(self._offload.run(self._open_unchecked, self.path(sha256)))

    def _open_unchecked(self, path: Path) -> WholeFile | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if not is_of_the_disk(error):
                raise
            self.failed(error, path, reading=True)  # what cannot be read counts as missing: it is fetched again
            return None
        return WholeFile(descriptor, os.fstat(descriptor).st_size, path.name)

    async def present(self, digests: Collection[str]) -> frozenset[str]:
        return await self._offload.run(self._present, digests)

    def _present(self, digests: Collection[str]) -> frozenset[str]:
        return frozenset(sha256 for sha256 in digests if os.path.isfile(self.path(sha256)))

    async def unreadable(self, digests: Collection[str]) -> Mapping[str, str]:
        return await self._offload.run(self._unreadable_among, digests)

    def _unreadable_among(self, digests: Collection[str]) -> Mapping[str, str]:
        found = {}
        for sha256 in digests:
            try:
                os.close(os.open(self.path(sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if not is_of_the_disk(error):
                    raise
                found[sha256] = error.strerror or str(error)
        return found

    def place(self, arrived: Path, target: Path, descriptor: int, mark: Mark) -> bool:
        """Make the partial file *arrived* the committed file *target*, unless it has another *mark* by now; whether it is.

        Called in a worker thread.
        """
        with self._moving:
            if not same_bytes(mark_of(os.fstat(descriptor)), mark):
                return False  # what stands there may be good
            os.rename(arrived, target)
            placed = mark_of(os.fstat(descriptor))
            if not same_bytes(placed, mark):
                os.unlink(target)
                self.changed()
                return False
            self._proofs.note(target.name, placed)
        self.changed()
        return True

    def proven(self, sha256: str, mark: Mark) -> bool:
        """Whether the committed file of *mark* was right when it was looked at."""
        return self._proofs.hold(sha256, mark)

    def changed(self) -> None:
        """Told by whoever committed or removed a file, after that."""
        self.changes = next(self._changes)

    async def begin(self, key: str, *, resume: bool) -> IPartialFile:
        path = self._partial / key
        while path in self._being_written:
            path, resume = self._partial / f"extra.{next(self._extra)}", False
        self._being_written.add(path)
        return await owned(self._begun(path, resume))

    async def _begun(self, path: Path, resume: bool) -> LocalPartial:
        try:
            return await self._offload.run(self._begin, path, resume)
        except BaseException:
            self.written(path)
            raise

    def written(self, path: Path) -> None:
        """Told by the partial file at *path* that it is closed."""
        self._being_written.discard(path)

    def _begin(self, path: Path, resume: bool) -> LocalPartial:
        try:
            self.prepare(self._partial)
            return LocalPartial(self, path, resume=resume)
        except OSError as error:
            self.failed(error, path)
            raise

    async def delete(self, sha256: str) -> bool:
        path = self.path(sha256)
        try:
            return await self._offload.run(self._delete, path)
        except OSError as error:
            raise StorageFailed(
                f"{path} cannot be removed: {error.strerror}; check its owner, its mode and the mount"
            ) from error
        finally:
            self.changed()

    def _delete(self, path: Path) -> bool:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except IsADirectoryError:
            return self._set_aside(path, None)
        except OSError as error:
            self.failed(error, path)
            raise
        return True

    async def set_aside(self, sha256: str, source: IBytesSource | None = None) -> None:
        mark = None if source is None else mark_of(os.fstat(source.fileno()))
        await self._offload.run(self._set_aside, self.path(sha256), mark)

    def _set_aside(self, path: Path, mark: Mark | None) -> bool:
        """Take *path* out of the tree, unless it is another file than that of *mark* by now; whether it was."""
        with suppress(FileNotFoundError), self._moving:
            if mark is not None and os.stat(path).st_ino != mark[0]:
                return False
            self.prepare(self._quarantine)
            target = self._quarantine / path.name
            if os.path.lexists(target) and (target.is_dir() or path.is_dir()):
                # No directory takes the place of a file, and no file that of a directory.
                target = target.with_name(f"{target.name}.{time.time_ns()}")
            os.rename(path, target)
            self.changed()
            return True
        return False

    async def walk(self) -> list[tuple[str, int]]:
        return await self._offload.run(self._walk)

    def _walk(self) -> list[tuple[str, int]]:
        return sorted((file.sha256, file.size) for file in self._inventory())

    async def inventory(self) -> list[CommittedFile]:
        return await self._offload.run(self._inventory)

    def _inventory(self) -> list[CommittedFile]:
        found = []
        for directory in self._entries(self._files):
            if os.path.isdir(directory):
                entries = self._entries(Path(directory.path))
                there = [(entry.name, _facts(entry)) for entry in entries if _SHA256.fullmatch(entry.name)]
                found += [CommittedFile(name, facts.st_size, facts.st_mtime) for name, facts in there if facts is not None]
        return found

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What is in *folder*; nothing when it cannot be read."""
        try:
            return list(os.scandir(folder))
        except OSError as error:
            self.failed(error, folder / "*", reading=True)
            return []

    async def touch(self, times: Mapping[str, float]) -> None:
        await self._offload.run(self._touch, times)

    def _touch(self, times: Mapping[str, float]) -> None:
        failed: OSError | None = None
        for sha256, used in times.items():
            path = self.path(sha256)
            try:
                mark = mark_of(os.stat(path))
                if (sha256, mark[:3]) in self._checks:
                    continue  # its time tells whether it is written to meanwhile
                written = int(used * 1e9)
                sound = self._proofs.renew(sha256, mark, written)
                try:
                    os.utime(path, ns=(written, written))
                finally:
                    if sound:
                        self._proofs.renewed(sha256, mark, mark_of(os.stat(path)))
            except FileNotFoundError:
                pass
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    async def sweep(self) -> int:
        left = await self._offload.run(self._left)
        doomed = [path for path, facts in left if not resumable(path.name.removesuffix(MARKS))]
        return len(await self._remove_left(doomed))

    def capacity(self) -> int | None:
        """Bytes that the file system has in all, ``None`` when it does not say.  Blocks."""
        try:
            facts = self._file_system()
        except OSError:
            return None
        return facts.f_blocks * facts.f_frsize

    async def free(self) -> int:
        try:
            facts = await self._offload.run(self._file_system)
        except OSError as error:
            raise StorageFailed(f"the file system of {self._files} cannot be looked at: {error.strerror}") from error
        return facts.f_bavail * facts.f_frsize

    def _file_system(self) -> os.statvfs_result:
        try:
            return os.statvfs(self._files)
        except FileNotFoundError:
            return os.statvfs(self._files.parent)  # it is made when it is needed

    async def abandon(self, before: float) -> int:
        left = await self._offload.run(self._left)
        sizes = {path: facts.st_size for path, facts in left if facts.st_mtime < before}
        return sum(sizes[path] for path in await self._remove_left(sizes))

    def _left(self) -> list[tuple[Path, os.stat_result]]:
        found = [(Path(entry.path), _facts(entry)) for entry in self._entries(self._partial)]
        return [(path, facts) for path, facts in found if facts is not None]

    async def _remove_left(self, doomed: Iterable[Path]) -> list[Path]:
        """Remove partial files, and the marks of some, but for those that are being written; returns which were removed."""
        going = [path for path in doomed if path.with_name(path.name.removesuffix(MARKS)) not in self._being_written]
        return list(await uninterrupted(self._remove_all(going)))

    async def _remove_all(self, going: Collection[Path]) -> list[Path]:
        # Whoever begins one of them now gets a file of its own.
        self._being_written.update(going)
        try:
            return await self._offload.run(self._removed, going)
        finally:
            self._being_written.difference_update(going)

    def _removed(self, paths: Iterable[Path]) -> list[Path]:
        """Those of *paths* that could be removed, or had gone; one that cannot is no reason to leave the others."""
        removed = []
        for path in paths:
            try:
                _remove_anything(path)
            except OSError as error:
                self.failed(error, path)
                self.log.warn("{path} cannot be removed: {error}", path=path, error=error.strerror)
            else:
                removed.append(path)
        return removed

    async def close(self) -> None:
        self._checks.close()


def _facts(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What stands in the directory about a file; ``None`` when it has just gone, or cannot be read."""
    try:
        return entry.stat()
    except OSError:
        return None


def _remove_anything(path: Path) -> None:
    """Remove what is at *path*, be it a directory, if anything is.  Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path)
