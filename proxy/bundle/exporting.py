"""Export: what a cache holds of the projects that are asked for becomes a bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import BinaryIO

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.bundle.cache import IndexCache
from proxy.bundle.format import FORMAT, WITH_CLAIMS, WITHOUT_CLAIMS, Manifest, Section, encode
from proxy.bundle.writing import BundleWriter
from proxy.interfaces import Clock
from proxy.model import NO_BYTES, File, LedgerEntry, Page, Record, Wanted
from proxy.names import filename_of
from proxy.policy.rules import Project, Viewpoint
from proxy.repository.gate import recorded
from proxy.repository.listed import first_entry
from proxy.repository.offered import as_recorded, bytes_of, metadata_of
from proxy.simple.links import bare
from proxy.simple.parse import Malformed, parse_page

#: Projects (normalised) and the names of the files that are wanted of each; ``None``: all that are stored.
Selection = Mapping[str, Collection[str] | None]


class Exported(Struct):
    """What became of it.  ``problems`` are sentences: what was asked for and is not in the bundle.

    ``absent`` are the names of files that are recorded of whole projects and not stored, so that they are not in it either.
    """

    pages: int = 0
    files: int = 0
    size: int = 0
    claims: int = 0
    problems: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


class _Choice(Struct, frozen=True):
    """What goes into the bundle of one project: files by digest, and ledger entries by name."""

    files: Mapping[str, str]
    metadata: frozenset[str]
    entries: Mapping[str, LedgerEntry]


_NOTHING = _Choice({}, frozenset(), {})


def together(one: Selection, other: Selection) -> Selection:
    """What either wants."""
    both: dict[str, Collection[str] | None] = {**one, **other}
    for project in one.keys() & other.keys():
        mine, yours = one[project], other[project]
        both[project] = None if mine is None or yours is None else {*mine, *yours}
    return both


async def pinned_files(cache: IndexCache) -> Selection:
    """What operators pinned, so that it is never evicted."""
    found: dict[str, set[str]] = {}
    for each in await cache.pinned.files():
        if each.index == cache.name:
            found.setdefault(each.project, set()).add(each.filename)
    return found


def _silent(exported: Exported) -> None:
    """Nobody wants to know."""


async def write_bundle(
    cache: IndexCache,
    wanted: Selection | None,
    out: BinaryIO,
    clock: Clock,
    on_the_way: Callable[[Exported], None] = _silent,
) -> Exported:
    """Write what is *wanted* of *cache* to *out*; ``None``: every project that files are stored of.

    What is not there is a problem, a page that files are stored without too, and the rest is written all the same.
    *on_the_way* is told what was written so far.  Raises OSError when *out* cannot be written.
    """
    run, claims = cache.offload.run, [] if cache.claims is None else await cache.claims.all()
    version, exported = WITH_CLAIMS if claims else WITHOUT_CLAIMS, Exported()
    writer = await run(BundleWriter, out, Manifest(FORMAT, version, cache.name, clock()))
    if claims:
        await run(writer.claims, encode(claims))
        exported.claims = len(claims)
    source = ProxySource(cache, clock, on_the_way)
    if wanted is None:
        await source.write(dict.fromkeys(await source.projects()), writer, exported, picky=False)
    else:
        await source.write(wanted, writer, exported, picky=True)
    await run(writer.end)
    return exported


class ProxySource:
    """What a bundle has of a proxy index."""

    def __init__(self, cache: IndexCache, clock: Clock, on_the_way: Callable[[Exported], None] = _silent) -> None:
        self._cache = cache
        self._clock = clock
        self._on_the_way = on_the_way
        self.section = Section(cache.name, "proxy")

    async def projects(self) -> list[str]:
        """The projects that have a page here, or files."""
        found = await self._cache.pages.found()
        return [*found, *await _without_page(self._cache, set(found))]

    async def write(self, wanted: Selection, writer: BundleWriter, exported: Exported, *, picky: bool) -> None:
        """Write what is *wanted*; *picky*: a project without any file to go into the bundle is a problem."""
        await _Export(self._cache, exported, self._clock, self._on_the_way, picky=picky).run(wanted, writer)


async def _without_page(cache: IndexCache, found: Collection[str]) -> list[str]:
    """The projects that files are stored of and whose page is not among those *found*."""
    projects = [project for index, project in await cache.ledger.places() if index == cache.name and project not in found]
    return [project for project in projects if await _has_files(cache, project)]


async def _has_files(cache: IndexCache, project: str) -> bool:
    entries = await cache.ledger.peek(cache.name, project)
    digests = [entry.sha256 for name, entry in entries.items() if entry.sha256 and "/" not in name]
    return bool(await cache.files.present(digests))


class _Export:
    """One index on its way into a bundle.  *picky*: a project without any file to go into it is a problem."""

    def __init__(
        self, cache: IndexCache, exported: Exported, clock: Clock, on_the_way: Callable[[Exported], None], *, picky: bool
    ) -> None:
        self._picky = picky
        self._on_the_way = on_the_way
        self._cache = cache
        self._clock = clock
        self._exported = exported

    async def run(self, wanted: Selection, writer: BundleWriter) -> None:
        small: dict[str, str] = {}
        large: dict[str, str] = {}
        for project, names in sorted(wanted.items()):
            choice = await self._project(project, names, writer)
            small.update(dict.fromkeys(choice.metadata, f"metadata of {project}"))
            large.update(choice.files)
            self._on_the_way(self._exported)
        for sha256, name in {**small, **large}.items():
            await self._file(writer, sha256, name)
            self._on_the_way(self._exported)

    async def _project(self, project: str, names: Collection[str] | None, writer: BundleWriter) -> _Choice:
        """Write the page and the ledger entries of *project*; what files go with them."""
        record = await self._record(project)
        if record is None:
            self._problem(f"{project}: index {self._cache.name} has no page of it; fetch it first: pypiproxy warm {project}")
            return _NOTHING
        head = record.head
        try:
            page = await self._cache.offload.run(parse_page, record.body, head.content_type, head.url, project)
        except Malformed as error:
            self._problem(f"{project}: its page cannot be read ({error}); fetch it again: pypiproxy refresh {project}")
            return _NOTHING
        policy, now, view = self._cache.policy, self._clock(), Viewpoint(self._cache.name)
        hidden = policy.project(project, now, view)
        if not hidden.visible:
            self._problem(f"{project}: it is {hidden.why}, it stays here")
            return _NOTHING
        withheld = policy.files(Project(project, head.status), now, view)
        if withheld.visible:
            choice = await self._choose(page, names, Project(project, head.status))
            if not choice.files:
                return choice
        else:
            choice = _NOTHING
            self._problem(f"{project}: it is {withheld.why}, its files stay here")
        await self._cache.offload.run(writer.head, project, encode(replace(head, url=bare(head.url))), record.body)
        if choice.entries:
            entries = {name: replace(entry, url=bare(entry.url)) for name, entry in choice.entries.items()}
            await self._cache.offload.run(writer.entries, project, encode(entries))
        self._exported.pages += 1
        return choice

    async def _record(self, project: str) -> Record | None:
        head = await self._cache.pages.head(project)
        body = await self._cache.pages.body(project, head) if head is not None and head.found else None
        return Record(head, body) if head is not None and body is not None else None

    async def _choose(self, page: Page, names: Collection[str] | None, of: Project) -> _Choice:
        project, entries = page.project, await self._cache.ledger.of(self._cache.name, page.project)
        listed = {file.filename: file for file in page.files}
        known = {name: entry.sha256 for name, entry in entries.items() if "/" not in name}
        known |= {name: sha256 for name, file in listed.items() if (sha256 := bytes_of(file, entries)) is not None}
        there = await self._there((sha256 for sha256 in known.values() if sha256), entries)
        chosen = {name for name, sha256 in known.items() if sha256 in there and (names is None or name in names)}
        missing = set(names or ()) - chosen
        if names is None:
            self._exported.absent += sorted(name for name in known.keys() & entries.keys() - chosen if known[name] not in there)
        hidden = await self._cache.offload.run(
            self._hidden, [listed.get(name) or recorded(name, entries[name]) for name in chosen], entries, of
        )
        for name, why in sorted(hidden.items()):
            self._problem(f"{name}: it is {why}, it stays here")
        chosen -= hidden.keys()
        for name in sorted(missing):
            self._problem(f"{name}: index {self._cache.name} has no such file of {project}; ask the proxy for it first")
        if names is None and not chosen and self._picky:
            self._problem(f"{project}: none of its files is stored; fetch those you need first: pypiproxy warm {project}")
        companions = {name: entry for name, entry in entries.items() if "/" in name and filename_of(name) in chosen}
        digests = {entry.sha256 for entry in companions.values()}
        digests |= {sha256 for name in chosen & listed.keys() if (sha256 := metadata_of(listed[name], entries)) is not None}
        metadata = await self._there(digests - {NO_BYTES}, entries)
        taken = {name: entries.get(name) or await self._first(project, listed[name], known[name]) for name in chosen}
        taken |= {name: entry for name, entry in companions.items() if entry.sha256 in metadata or entry.sha256 == NO_BYTES}
        return _Choice({known[name]: name for name in sorted(chosen)}, metadata, dict(sorted(taken.items())))

    async def _there(self, digests: Iterable[str], entries: Mapping[str, LedgerEntry]) -> frozenset[str]:
        """Those of *digests* that are stored, and not for other indexes alone."""
        stored = await self._cache.files.present(list(digests))
        if self._cache.private is None:
            return stored
        shared = stored.difference(each.sha256 for each in entries.values())
        return stored.difference(await self._cache.private.held_of(shared))

    async def _first(self, project: str, file: File, sha256: str) -> LedgerEntry:
        """The entry of *file*, which another index has fetched: where the bundle is imported, no other one may have it."""
        source = await self._cache.files.unchecked(sha256)
        size = None if source is None else source.size
        if source is not None:
            source.close()
        wanted = Wanted(self._cache.name, project, file.filename, file.url, "", file.digest, listed=file)
        return first_entry(wanted, sha256, size or 0, self._clock())

    def _hidden(self, files: Iterable[File], entries: Mapping[str, LedgerEntry], of: Project) -> dict[str, str]:
        """The names of those of *files* that may not be seen, and why."""
        policy, now, view = self._cache.policy, self._clock(), Viewpoint(self._cache.name)
        verdicts = (
            (file.filename, policy.visible(as_recorded(file, entry), of, entry, now, view))
            for file in files
            for entry in [entries.get(file.filename)]
        )
        return {name: verdict.why for name, verdict in verdicts if not verdict.visible}

    async def _file(self, writer: BundleWriter, sha256: str, name: str) -> None:
        source = await self._cache.files.unchecked(sha256)
        if source is None:
            self._problem(f"{name}: it was removed from the store a moment ago; export again")
            return
        try:
            sound = await self._cache.offload.run(writer.file, sha256, source.fileno(), source.size)
        finally:
            source.close()
        if not sound:
            self._problem(f"{name}: the stored file is damaged; remove {sha256[:2]}/{sha256} below files/ and fetch it again")
            return
        self._exported.files += 1
        self._exported.size += source.size or 0

    def _problem(self, what: str) -> None:
        self._exported.problems.append(what)
