"""Verifying the tree: every file is read again and held against its digest, every name against the tree.

A damaged file is set aside at once, so that nobody is sent it; the next client who asks for it makes it be fetched again, or a
repair does.  Bytes that no name stands for are what the loss of records leaves: pages that are kept can tell what they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from twisted.internet.task import deferLater
from twisted.logger import Logger

from proxy.administration.parts import IndexParts, Stores, Working
from proxy.administration.refetching import named_by_pages, refetch
from proxy.administration.stock import Named, by_project
from proxy.errors import BadRequest, ProxyError
from proxy.interfaces import IBytesSource, Report
from proxy.model import CommittedFile
from proxy.settings import MIB

#: Names by the sha256 that they stand for.
Names = dict[str, list[Named]]

#: Bytes that are read at a time, where no rate asks for less.
_PIECE = 4 * MIB
#: Seconds between two words on how far it is.
_SAY_EVERY = 1.0


class _Tally(Struct):
    """What was found so far; ``left`` problems are not solved."""

    files: int = 0
    bytes: int = 0
    damaged: int = 0
    missing: int = 0
    unnamed: int = 0
    unreadable: int = 0
    repaired: int = 0
    left: int = 0


class Verifying:
    """Verifications of the whole tree."""

    def __init__(self, indexes: Mapping[str, IndexParts], stores: Stores, working: Working) -> None:
        self._indexes = indexes
        self._stores = stores
        self._working = working

    async def verify(self, report: Report, repair: bool = False, rate: int | None = None) -> dict[str, int]:
        """Read every file again, at most *rate* bytes a second; with *repair* fetch again what is damaged or missing.

        *report* is told each problem and, once a second, how far it is.  Raises BadRequest.
        """
        if rate is not None and rate <= 0:
            raise BadRequest(f"a rate of {rate} bytes a second never comes to an end")
        pace = Pace(self._working.reactor, rate)
        run = _Run(self._indexes, self._stores, self._working, report, repair, pace)
        return asdict(await run.run())


class Pace:
    """At most *rate* bytes a second, ``None``: as fast as it goes."""

    def __init__(self, reactor: Any, rate: int | None) -> None:
        self._reactor = reactor
        self._rate = rate
        self._due = reactor.seconds()
        self.piece = _PIECE if rate is None else min(_PIECE, rate)

    async def read(self, count: int) -> None:
        """Wait as long as *count* bytes take."""
        if self._rate is None:
            return
        now = self._reactor.seconds()
        self._due = max(self._due, now) + count / self._rate
        await deferLater(self._reactor, self._due - now)


class _Run:
    """One verification."""

    log = Logger()

    def __init__(
        self,
        indexes: Mapping[str, IndexParts],
        stores: Stores,
        working: Working,
        report: Report,
        repair: bool,
        pace: Pace,
    ) -> None:
        self._indexes = indexes
        self._stores = stores
        self._working = working
        self._report = report
        self._repair = repair
        self._pace = pace
        self._tally = _Tally()
        self._began = working.clock()
        self._said_at = working.reactor.seconds()
        self._damaged: dict[str, str] = {}
        #: Files that may not be read, with the reason: who may has to say what is in them.
        self._unreadable: dict[str, str] = {}
        #: What could not be set aside; while it is there nothing can take its place.
        self._stuck: set[str] = set()

    async def run(self) -> _Tally:
        files = {file.sha256: file for file in await self._stores.usage.files()}
        total = sum(file.size for file in files.values())
        for number, file in enumerate(files.values()):
            where = number, len(files), total
            self._progress(*where)
            await self._check(file, where)
        known, missing, named = await self._names(files)
        for sha256, what in self._damaged.items():
            await self._problem("damaged", sha256, files[sha256].size, known.get(sha256, []), what)
        for sha256, why in self._unreadable.items():
            names = known.get(sha256, [])
            size = files[sha256].size if sha256 in files else names[0].entry.size
            self._tally.unreadable += 1
            await self._problem("unreadable", sha256, size, names, f"cannot be read ({why}); check its owner and mode")
        for sha256, those in missing.items():
            if await self._is_stored(sha256):
                continue
            self._tally.missing += 1
            await self._problem("missing", sha256, those[0].entry.size, those, "no file of that digest was found")
        told = {*named, *self._damaged, *self._unreadable}
        await self._unnamed([file for file in files.values() if file.sha256 not in told])
        return self._tally

    async def _names(self, files: Collection[str]) -> tuple[Names, Names, set[str]]:
        """The names of what is damaged or unreadable, those whose bytes are not among *files*, and which of these have a name.

        Where files are evicted, names without bytes are as it should be, but for those that are pinned.  Names that
        were recorded since the beginning are omitted: a name is recorded right before its bytes are stored.
        """
        pinned = await self._stores.pinned.digests()
        known: Names = {}
        missing: Names = {}
        named: set[str] = set()
        async for found in by_project(self._stores.ledger):
            await self._look_for_unreadable([each.entry.sha256 for each in found if each.entry.sha256 not in files])
            for each in found:
                sha256 = each.entry.sha256
                if sha256 in files:
                    named.add(sha256)
                elif sha256 in self._unreadable:
                    pass
                elif each.entry.committed_at < self._began and (not self._stores.evicting or sha256 in pinned):
                    missing.setdefault(sha256, []).append(each)
                if sha256 in self._damaged or sha256 in self._unreadable:
                    known.setdefault(sha256, []).append(each)
        return known, missing, named

    async def _look_for_unreadable(self, digests: Collection[str]) -> None:
        """Note those of *digests* that may be there and cannot be read."""
        self._unreadable.update(await self._stores.files.unreadable(digests))

    def _progress(self, number: int, files: int, total: int) -> None:
        now = self._working.reactor.seconds()
        if now - self._said_at >= _SAY_EVERY:
            self._said_at = now
            self._report({"checked": {"files": number, "bytes": self._tally.bytes}, "of": {"files": files, "bytes": total}})

    async def _check(self, file: CommittedFile, where: tuple[int, int, int]) -> None:
        try:
            source: IBytesSource | None = await self._stores.files.unchecked(file.sha256)
        except OSError as error:
            await self._set_aside(file.sha256, None, f"it cannot be opened: {error.strerror}")
            return
        if source is None:
            await self._look_for_unreadable([file.sha256])  # else it was evicted or purged meanwhile
            return
        try:
            try:
                found = await self._digest(source, where)
                what = f"its bytes are sha256-{found}"
            except OSError as error:
                found = None
                what = f"it cannot be read: {error.strerror}"
            if found == file.sha256:
                self._tally.files += 1
            else:
                await self._set_aside(file.sha256, source, what)
        finally:
            source.close()

    async def _set_aside(self, sha256: str, source: IBytesSource | None, what: str) -> None:
        """Take the damaged file that *source* is out of the tree, if it can be opened."""
        self._tally.files += 1
        self._tally.damaged += 1
        try:
            await self._stores.files.set_aside(sha256, source)
        except OSError as error:
            what += f", and it cannot be set aside: {error.strerror}"
            self._stuck.add(sha256)
        self.log.info("the stored file {sha256} is damaged: {what}", sha256=sha256, what=what)
        self._damaged[sha256] = what

    async def _digest(self, source: IBytesSource, where: tuple[int, int, int]) -> str:
        digest = hashlib.sha256()
        position = 0
        while count := await self._working.disk.run(_read, source.fileno(), position, self._pace.piece, digest):
            position += count
            self._tally.bytes += count
            await self._pace.read(count)
            self._progress(*where)
        return digest.hexdigest()

    async def _problem(self, problem: str, sha256: str, size: int, known: list[Named], what: str) -> None:
        """Report a problem, solved if that is asked for and works."""
        errors = []
        repaired = False
        for each in known if self._repair and sha256 not in self._stuck else ():
            try:
                await refetch(self._indexes, self._stores.files, each)
                repaired = True
                break
            except ProxyError as error:
                errors.append(f"{each.title}: {error}")
        self._tally.repaired += repaired
        self._tally.left += not repaired
        self._report(
            {
                "problem": problem,
                "sha256": sha256,
                "size": size,
                "names": [each.values() for each in known],
                "what": what,
                "repaired": repaired,
                "error": "; ".join(errors) or None,
            }
        )

    async def _unnamed(self, files: list[CommittedFile]) -> None:
        """Bytes that no name stands for.  They harm nobody: a client who asks for one gives it its name back."""
        unnamed = {file.sha256: file.size for file in files}
        found: dict[str, list[Named]] = {}
        if self._repair and unnamed:
            found = await named_by_pages(self._indexes, self._stores.ledger, self._working, unnamed)
        for file in files:
            if not await self._is_stored(file.sha256):
                continue
            known = found.get(file.sha256, [])
            self._tally.unnamed += 1
            self._tally.repaired += bool(known)
            self._report(
                {
                    "problem": "unnamed",
                    "sha256": file.sha256,
                    "size": file.size,
                    "names": [each.values() for each in known],
                    "what": "no ledger entry names it",
                    "repaired": bool(known),
                    "error": None if known or not self._repair else "no page that is kept lists it",
                }
            )

    async def _is_stored(self, sha256: str) -> bool:
        source: IBytesSource | None = await self._stores.files.open(sha256)
        if source is not None:
            source.close()
        return source is not None


def _read(descriptor: int, position: int, count: int, digest: Any) -> int:
    """Read up to *count* bytes into *digest*; how many there were.  Raises OSError."""
    data = os.pread(descriptor, count, position)
    digest.update(data)
    return len(data)
