"""Stored files held against their digest: what was checked, and what is sent while it is being checked.

A file on a disk can be damaged, cut short, emptied or written over behind the proxy's back.  Small files are read, and checked,
each time they are opened.  Others are checked when they are opened for the first time since the start, and again whenever
inode, size or times are not what they were then: also the time of the last change of any kind (ctime), which nobody can set.
Up to :data:`AT_ONCE` bytes that happens before the first byte goes out; a larger file is sent while a worker thread reads it,
and its last bytes wait for the result.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec import Struct
from twisted.python.failure import Failure

from proxy.core.bounded import BoundedTable
from proxy.errors import StorageFailed
from proxy.interfaces import IBytesSource
from proxy.settings import KIB, MIB
from proxy.storage.whole import WholeFile

#: Files up to this size are read, and checked, whenever they are opened (bytes).
SMALL = 64 * KIB
#: Files up to this size are checked before they are sent: some 10 ms, once.
AT_ONCE = 16 * MIB
#: The end of what is asked for of a larger one, which waits for its check (bytes).
HOLD = 4 * KIB
#: Bytes that are read at a time, so that other work gets its turn.
_PIECE = 8 * MIB
#: Files of which it is remembered that they were checked; a file that is forgotten is checked again.
_REMEMBERED = 50_000

#: What changes with the bytes of a file: inode, size, the time at which they were written, that of the last change of any kind.
Mark = tuple[int, int, int, int]

#: As the last part of a mark: whatever it is.
_ANY = -1


def mark_of(facts: os.stat_result) -> Mark:
    """The mark of a file on disk."""
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def same_bytes(one: Mark, other: Mark) -> bool:
    """Whether no bytes were written between two marks, by all who leave times alone: links and modes may have changed."""
    return one[:3] == other[:3]


def settled(descriptor: int) -> Mark:
    """The mark of an open file, which no later write leaves as it is: clocks of file systems tick in milliseconds, so the time
    of change is moved to just before the present tick.
    """
    facts = os.fstat(descriptor)
    with suppress(OSError):  # nobody writes to a file system that is read-only
        os.utime(descriptor, ns=(facts.st_atime_ns, facts.st_mtime_ns - 1))
        facts = os.fstat(descriptor)
    return mark_of(facts)


class Damage(Struct, frozen=True):
    """What is wrong with the file of *mark* (``None``: it could not even be looked at), as the rest of a sentence."""

    what: str
    mark: Mark | None = None


class Proofs:
    """Which files are as they were when their digest was right.  May be used from any thread."""

    def __init__(self) -> None:
        #: The mark of each file, and the one that it had before its last use was noted.
        self._marks: BoundedTable[str, tuple[Mark, ...]] = BoundedTable(_REMEMBERED, lambda marks: 1)
        self._lock = threading.Lock()
        self._settling = threading.Lock()

    def note(self, sha256: str, mark: Mark) -> None:
        """The file of *mark* has that digest."""
        with self._lock:
            self._marks.put(sha256, (mark,))

    def renew(self, sha256: str, mark: Mark, written: int) -> bool:
        """Whether the file of *mark* is known to have that digest: it may then have *written* for its time as well.

        Told before that is set, and :meth:`renewed` after it: whoever looks at the file meanwhile finds a mark that is known.
        """
        with self._lock:
            known = self._is_known(sha256, mark)
            if known:
                self._marks.put(sha256, ((mark[0], mark[1], written, _ANY), mark))
        return known

    def renewed(self, sha256: str, mark: Mark, now: Mark) -> None:
        """The time of the file of *mark* was set, and it has the mark *now*; who has just looked may still have the old one."""
        with self._lock:
            self._marks.put(sha256, (now, mark) if now[:2] == mark[:2] else (mark,))

    def _is_known(self, sha256: str, mark: Mark) -> bool:
        return any(mark == each or (each[3] == _ANY and same_bytes(mark, each)) for each in self._marks.get(sha256) or ())

    def proven(self, sha256: str, descriptor: int, mark: Mark) -> Mark:
        """Note that the bytes of an open file were right while it had *mark*; the mark that it has now.

        If that is another one by now, and nobody else has noted it, it is to be looked at again.
        """
        with self._settling:
            now = mark_of(os.fstat(descriptor))
            if now == mark:
                now = settled(descriptor)
                self.note(sha256, now)
        return now

    def hold(self, sha256: str, mark: Mark) -> bool:
        """Whether the file of *mark* is known to have that digest."""
        with self._lock:
            return self._is_known(sha256, mark)


def open_checked(descriptor: int, sha256: str, size: int | None, proofs: Proofs) -> tuple[CheckedFile, Mark] | Damage:
    """The file behind *descriptor*, which it takes over, with its mark; checked as far as can be done at once.

    *size* is what it should have, if that is known.  Blocks.  Raises OSError.
    """
    facts = os.fstat(descriptor)
    mark = mark_of(facts)
    if size is not None and facts.st_size != size:
        return Damage(f"it has {facts.st_size:,} bytes instead of {size:,}", mark)
    data = None
    known = proofs.hold(sha256, mark)
    if facts.st_size <= SMALL:
        data = os.pread(descriptor, SMALL + 1, 0)
        found = hashlib.sha256(data).hexdigest()
    elif known or facts.st_size > AT_ONCE:
        return CheckedFile(descriptor, facts.st_size, sha256, mark, proofs), mark
    else:
        digest = hashlib.sha256()
        position = 0
        while count := hash_piece(descriptor, position, digest):
            position += count
        found = digest.hexdigest()
    if found != sha256:
        return Damage(f"its bytes are sha256-{found}", mark)
    if not known:
        mark = proofs.proven(sha256, descriptor, mark)
    return CheckedFile(descriptor, facts.st_size, sha256, mark, proofs, data), mark


def hash_piece(descriptor: int, position: int, digest: Any) -> int:
    """Read a piece of a file into *digest*; how many bytes there were.  Blocks.  Raises OSError."""
    data = os.pread(descriptor, _PIECE, position)
    digest.update(data)
    return len(data)


class CheckedFile(WholeFile):
    """A stored file that was right when it had *mark*."""

    def __init__(self, descriptor: int, size: int, sha256: str, mark: Mark, proofs: Proofs, data: bytes | None = None) -> None:
        super().__init__(descriptor, size, sha256, data)
        self._name = sha256
        self._mark = mark
        self._proofs = proofs

    def confirm(self) -> None:
        mark = mark_of(os.fstat(self._descriptor))
        if not same_bytes(mark, self._mark) and not self._proofs.hold(self._name, mark):
            raise StorageFailed(f"the stored file {self._name} was changed while it was sent: ask again")

    def another(self) -> IBytesSource | None:
        # A file that is removed or set aside has another time of change.
        if self._descriptor < 0 or not self._proofs.hold(self._name, mark_of(os.fstat(self._descriptor))):
            return None
        return CheckedFile(os.dup(self._descriptor), self.size, self._name, self._mark, self._proofs)


class FileBeingChecked(CheckedFile):
    """A large file that is sent while it is checked: the end of what is asked for waits for the result."""

    def __init__(self, descriptor: int, size: int, sha256: str, mark: Mark, proofs: Proofs) -> None:
        super().__init__(descriptor, size, sha256, mark, proofs)
        self._held_from = size - HOLD
        self._over = False
        self._failure: Failure | None = None
        self._changed: list[Callable[[], None]] = []

    def confine(self, start: int, stop: int) -> None:
        self._held_from = max(start, stop - HOLD)

    def extent(self) -> int:
        if self._failure is not None:
            return 0
        return self.size if self._over else self._held_from

    def ended(self) -> bool:
        if self._failure is not None:
            self._failure.raiseException()
        return self._over

    def on_change(self, listener: Callable[[], None]) -> None:
        if self._over:
            listener()
        else:
            self._changed.append(listener)

    def another(self) -> IBytesSource | None:
        return None  # what is not checked yet is opened, and checked, for each of them

    def checked(self, outcome: object) -> None:
        """The check is over: *outcome* is the Failure that readers meet, or nothing."""
        self._over = True
        self._failure = outcome if isinstance(outcome, Failure) else None
        listeners, self._changed = self._changed, []
        for listener in listeners:
            listener()

    def close(self) -> None:
        self._changed.clear()
        super().close()
