"""Import: what a bundle holds goes into a cache, each thing once it is verified.

What is there already is passed over, so that the same bundle may be imported again, after an interruption too.  When a bundle
is broken, what came before the fault stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.bundle.cache import IndexCache
from proxy.bundle.format import Entry, Kind, read_claims, read_end, read_entries, read_head, read_section
from proxy.bundle.hosted_taking import HostedTaking
from proxy.bundle.reading import BundleReader
from proxy.bundle.targets import Targets, matched
from proxy.core.amounts import counted
from proxy.core.succession import goes_back
from proxy.errors import FULL, BadBundle, StorageFailed, to_make_room
from proxy.interfaces import IPartialFile
from proxy.model import Head, Record


class Imported(Struct):
    """What became of it.  ``problems`` are sentences: what is in the bundle and was not taken.

    ``claims`` are those that were not known here; ``size`` is of the ``files`` that were taken; ``read`` are bytes of files so
    far, of one that is being taken too.
    """

    index: str
    pages: int = 0
    pages_there: int = 0
    files: int = 0
    files_there: int = 0
    size: int = 0
    read: int = 0
    claims: int = 0
    problems: list[str] = field(default_factory=list)


class Import:
    """One bundle on its way into *targets*.

    *replaced* is told index and project of each page that was replaced, *stored* sha256 and size of each file; *on_the_way*
    what was taken so far, with each member and each piece of one, in the thread that reads.
    """

    def __init__(
        self,
        reader: BundleReader,
        targets: Targets,
        replaced: Callable[[str, str], None] = lambda index, project: None,
        stored: Callable[[str, int], None] = lambda sha256, size: None,
        on_the_way: Callable[[Imported], None] = lambda imported: None,
    ) -> None:
        self._on_the_way = on_the_way
        self._reader = reader
        self._run = targets.offload.run
        self._claiming = targets.claims
        self._replaced = replaced
        self._stored = stored
        self.imported = Imported(targets.name)
        self._damaged = 0
        #: Which index each section goes into.
        self._into = matched(reader.manifest, targets)
        self._targets = targets
        #: Where the present section goes; ``None`` twice: nowhere.
        self._cache: IndexCache | None = None
        self._hosted: HostedTaking | None = None
        if not reader.manifest.sections:
            self._begin(reader.manifest.index)

    async def run(self) -> Imported:
        """Take in all of it.

        Raises BadBundle when it is broken, StorageFailed when something cannot be stored; `imported` then tells what was taken.
        """
        try:
            while (entry := await self._run(self._reader.next)).kind is not Kind.END:
                await self._take(entry)
            await self._end(entry)
        except OSError as error:
            advice = f"{to_make_room(error)} and" if error.errno in FULL else ";"
            raise StorageFailed(f"cannot be stored: {error.strerror} ({error.filename}){advice} import again") from error
        return self.imported

    async def _take(self, entry: Entry) -> None:
        self._on_the_way(self.imported)
        match entry.kind:
            case Kind.CLAIMS:
                await self._claims(entry)
            case Kind.SECTION:
                data = await self._read(entry)
                if data is not None:
                    self._begin(read_section(entry, data).index)
            case _ if self._cache is None and self._hosted is None:
                pass  # it was told with its section
            case Kind.HEAD if self._cache is not None:
                await self._page(entry, self._cache)
            case Kind.PINS if self._cache is not None:
                await self._entries(entry, self._cache)
            case Kind.FILE if self._cache is not None:
                await self._file(entry, self._cache)
            case Kind.HOSTED if self._hosted is not None:
                await self._hosted_file(entry, self._hosted)
            case Kind.STATUS if self._hosted is not None:
                data = await self._read(entry)
                if data is not None:
                    await self._hosted.status(entry, data)
            case _:
                raise BadBundle(f"its {entry} is out of place: it was not made by pypiproxy export")

    def _begin(self, index: str) -> None:
        """What follows is of *index*, as the bundle calls it."""
        target = self._into.get(index)
        if target is None:
            raise BadBundle(f"it has a part of {index[:200]!r}, which it does not list: it was not made by pypiproxy export")
        self._cache = self._targets.caches.get(target.name) if target.kind == "proxy" else None
        hosted = self._targets.hosted.get(target.name) if target.kind == "hosted" else None
        self._hosted = None if hosted is None else HostedTaking(hosted, self._reader, self._run)
        if target.why is not None:
            self._damaged += 1
            self.imported.problems.append(target.why)

    async def _read(self, entry: Entry) -> bytes | None:
        """All of *entry*; ``None``, and a problem, when it is damaged."""
        data = await self._run(self._reader.read, entry)
        if data is None:
            self._problem(entry)
        return data

    def _problem(self, entry: Entry) -> None:
        self._damaged += 1
        self.imported.problems.append(
            f"{entry}: its bytes are not those it is named by, it is left out; copy or export it again"
        )

    # -- claims --------------------------------------------------------------------------------------------------------------

    async def _claims(self, entry: Entry) -> None:
        """Enter claims, held where a name is known to be served by others; what an operator has to decide is a problem."""
        data, carried = await self._read(entry), self._claiming
        if data is None or carried is None:
            return
        renamed = {name: target.name for name, target in self._into.items() if target.kind == "hosted" and target.why is None}
        claims = [replace(each, index=renamed.get(each.index, each.index)) for each in read_claims(entry, data)]
        await carried.book.read()
        for index in sorted({each.index for each in claims}):
            of_index = [each for each in claims if each.index == index]
            new = await carried.claims.enter(of_index)
            self.imported.claims += len(new)
            if index in carried.book.hosted:
                said = (carried.claims.held(index, each.project) for each in new)
                self.imported.problems += [each for each in said if each is not None]
            elif new:
                them = "it" if len(new) == 1 else "them"
                self.imported.problems.append(
                    f"{counted(len(new), 'name')} claimed by {index}, which is no hosted index here: no group with a hosted "
                    f"index serves {them}; pypiproxy claims add INDEX --from {index} gives {them} to one"
                )

    # -- pages and ledger entries ------------------------------------------------------------------------------------------

    async def _page(self, entry: Entry, cache: IndexCache) -> None:
        data = await self._read(entry)
        following = await self._run(self._reader.next)
        if (following.kind, following.project) != (Kind.PAGE, entry.project):
            raise BadBundle(f"its {entry} is not followed by a page: it was not made by pypiproxy export")
        body = await self._read(following)
        if data is None or body is None:
            return
        head = read_head(entry, data)
        if not head.found or head.digest != following.sha256:
            raise BadBundle(f"its {entry} belongs to another page: it was not made by pypiproxy export")
        known = await cache.pages.head(entry.project)
        if known is not None and known.found and await cache.pages.body(entry.project, known) is None:
            known = None  # damaged
        if known is not None and not _newer(head, known):
            self.imported.pages_there += 1
            return
        await cache.pages.keep(entry.project, Record(head, body), known)
        self.imported.pages += 1
        self._replaced(cache.name, entry.project)

    async def _entries(self, entry: Entry, cache: IndexCache) -> None:
        data = await self._read(entry)
        if data is None:
            return
        entries = read_entries(entry, data)
        known = await cache.ledger.of(cache.name, entry.project)
        await cache.ledger.add_all(cache.name, entry.project, entries)
        for name, stated in entries.items():
            if name in known and known[name].sha256 != stated.sha256 and "/" not in name:
                self.imported.problems.append(
                    f"{name}: it is here with other bytes (sha256-{known[name].sha256}), which stay; "
                    "purge it here to accept those of the bundle"
                )

    # -- files -------------------------------------------------------------------------------------------------------------

    async def _file(self, entry: Entry, cache: IndexCache) -> None:
        if await cache.files.present([entry.sha256]):
            self.imported.files_there += 1
            return
        partial = await cache.files.begin(f"sha256-{entry.sha256}", resume=False)
        try:
            if await self._run(self._store, partial, entry.sha256):
                self.imported.files += 1
                self.imported.size += partial.size
                self._stored(entry.sha256, partial.size)
            else:
                self._problem(entry)
        finally:
            partial.close()

    async def _hosted_file(self, entry: Entry, hosted: HostedTaking) -> None:
        """Take a file of a hosted index, whose bytes follow."""
        data = await self._read(entry)
        following = await self._run(self._reader.next)
        if following.kind is not Kind.FILE:
            raise BadBundle(f"its {entry} is not followed by a file: it was not made by pypiproxy export")
        if data is None:
            return
        taken = await hosted.file(entry, data, following.sha256, self._told)
        if taken.why is not None:
            self._damaged += 1
            self.imported.problems.append(taken.why)
        elif taken.new:
            self.imported.files += 1
            self.imported.size += taken.size
        else:
            self.imported.files_there += 1

    def _told(self, size: int) -> None:
        self.imported.read += size
        self._on_the_way(self.imported)

    def _store(self, partial: IPartialFile, sha256: str) -> bool:
        """Write the present member to *partial* and commit it, if it is what it is said to be.  Blocks."""
        digest = hashlib.sha256()
        try:
            for chunk in self._reader.chunks():
                digest.update(chunk)
                partial.write(chunk)
                self.imported.read += len(chunk)
                self._on_the_way(self.imported)
            sound = digest.hexdigest() == sha256
            if sound:
                partial.commit(sha256)
        except BaseException:
            partial.discard()
            raise
        if not sound:
            partial.discard()
        return sound

    async def _end(self, entry: Entry) -> None:
        data = await self._read(entry)
        if data is None:
            raise BadBundle("its end is damaged: copy it again")
        end, done = read_end(entry, data), self.imported
        seen = done.pages + done.pages_there, done.files + done.files_there
        if seen != (end.pages, end.files) and not self._damaged:
            raise BadBundle(f"it lacks some of its {end.pages} pages and {end.files} files: export it again")


async def open_bundle(
    source: BinaryIO,
    cache: IndexCache,
    replaced: Callable[[str], None] = lambda project: None,
    on_the_way: Callable[[Imported], None] = lambda imported: None,
) -> Import:
    """The bundle that *source* begins, as `Import` takes it into *cache* alone.

    *replaced* is told the project of each page that was replaced.  Raises BadBundle when it is none.
    """
    targets = Targets(cache.name, {cache.name: cache}, {}, cache.offload, cache.claims)
    reader = await cache.offload.run(BundleReader, source)
    return Import(reader, targets, lambda index, project: replaced(project), on_the_way=on_the_way)


def _newer(head: Head, known: Head) -> bool:
    """Whether *head* is of a newer page than *known*: by its serial where both have one, else by when it was last confirmed."""
    if goes_back(known, head):
        return False
    if known.found and known.serial is not None and head.serial is not None and head.serial > known.serial:
        return True
    return head.checked_at > known.checked_at
