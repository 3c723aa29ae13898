"""The gate of one index: what of its upstream's pages, and which of its files, may be seen at this moment.

``policy`` decides and is pure; this module brings together what the decision is about (page, ledger, time) and remembers until
when it holds.  Whoever is behind the gate reads pages through it, so that no route can forget to ask.

Only a rule that looks at single files makes a page be gone through.  What comes of that is remembered by page: which files are
hidden, and the moment up to which that stays so unless the ledger changes.  Both are part of what names a rendering, so that a
hot page costs a look-up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol
from weakref import ref

from msgspec import Struct
from msgspec.structs import replace

from proxy.cache.entries import Entries
from proxy.cache.ledger import Ledger
from proxy.cache.refreshed import Served
from proxy.core.bounded import BoundedTable, DividedTable
from proxy.core.views import Moment
from proxy.errors import NotFound, ProxyError
from proxy.interfaces import Clock, IOffload
from proxy.mechanism.flight import Flights
from proxy.model import File, Head, LedgerEntry, Page
from proxy.names import normal_version, version_of
from proxy.policy.policy import Policy
from proxy.policy.rules import Project, Viewpoint
from proxy.policy.verdicts import Verdict, earliest
from proxy.repository.offered import as_recorded, find, listed
from proxy.settings import MIB

#: What may be remembered of verdicts on projects, pages and files, and what one weighs besides its text (bytes).
_PROJECTS, _PAGES, _FILES, _WEIGHT = 8 * MIB, 4 * MIB, 8 * MIB, 400
#: The same for projects without a page, of which clients can name any number.
_UNKNOWN = 1 * MIB


class KnownPages(Protocol):
    """The pages of an index without anything hidden, as :class:`proxy.cache.pages.PageCache` has them."""

    async def get(self, project: str, *, no_cache: bool = False) -> Served:
        """The head of a page, and how it was come by.  Raises NotFound, UpstreamFailed, StorageFailed."""

    async def remembered(self, project: str) -> Head | None:
        """The head of a page, whatever its age, without asking anybody; ``None`` where none is known."""

    async def parsed(self, project: str, head: Head) -> Page:
        """The page of *head*.  Raises ProxyError."""


class Seen(Struct, frozen=True):
    """A page without what is hidden; ``until`` is the next moment at which it may change, ``None``: never.

    ``hidden`` is the same where the same files of a page are hidden.
    """

    page: Page
    until: float | None
    hidden: str = ""


def seen(policy: Policy, page: Page, entries: Mapping[str, LedgerEntry], now: float, view: Viewpoint) -> Seen:
    """*page* as *policy* lets it be seen.  Takes some microseconds a file where rules look at single files."""
    project = _project(page.project, (page.status or {}).get("status"))
    of_all = policy.files(project, now, view)
    if not of_all.visible:
        return Seen(replace(page, files=(), unverifiable=()), of_all.until, "all")
    if not policy.judges_files:
        return Seen(page, of_all.until)
    until, hidden = of_all.until, set[str]()
    for file in listed(page, entries):
        entry = entries.get(file.filename)
        verdict = policy.visible_among(of_all, as_recorded(file, entry), project, entry, now, view)
        until = earliest(until, verdict.until)
        if not verdict.visible:
            hidden.add(file.filename)
    if not hidden:
        return Seen(page, until)
    files = tuple(file for file in page.files if file.filename not in hidden)
    unverifiable = tuple(file for file in page.unverifiable if file.filename not in hidden)
    left = {version_of(file.filename) for file in (*files, *unverifiable)}
    withheld = frozenset(str(version) for name in hidden if (version := version_of(name)) is not None and version not in left)
    versions = page.versions and tuple(each for each in page.versions if normal_version(each) not in withheld)
    page = replace(page, files=files, unverifiable=unverifiable, versions=versions, withheld=withheld)
    return Seen(page, until, hashlib.sha256("\n".join(sorted(hidden)).encode()).hexdigest()[:16])


class _ProjectVerdict(Struct, frozen=True):
    """What was said at *moment* of the project whose page has this *head*: whether it exists, and what of all its files.

    ``lasting`` is whether they may be seen and that will not change.
    """

    head: Head | None
    exists: bool
    verdict: Verdict
    lasting: bool
    moment: Moment


class _PageVerdict(Struct, frozen=True):
    """From *since* until *until*, nothing changed or changes on the page *digest* beside these *entries*: *hidden* is."""

    digest: str
    entries: ref[Entries]
    since: float
    until: float | None
    hidden: str


class _FileVerdict(Struct, frozen=True):
    """What was said at *since* of a file on the page *digest*, whose bytes are those of *entry*."""

    digest: str
    entry: LedgerEntry | None
    since: float
    verdict: Verdict


def _verdicts(limit: int) -> BoundedTable[str, _ProjectVerdict]:
    return BoundedTable(limit, lambda verdict: _WEIGHT, len)


class Gate:
    """What of the index *name* may be seen; *clock* tells when."""

    def __init__(self, policy: Policy, name: str, pages: KnownPages, ledger: Ledger, offload: IOffload, clock: Clock) -> None:
        self.policy = policy
        self._judges_files = policy.judges_files
        self._view = Viewpoint(name)
        self._pages = pages
        self._ledger = ledger
        self._offload = offload
        self._clock = clock
        self._of_projects: DividedTable[str, _ProjectVerdict] = DividedTable(
            _verdicts(_PROJECTS), _verdicts(_UNKNOWN), lambda verdict: verdict.head is not None and verdict.head.found
        )
        self._of_pages: BoundedTable[str, _PageVerdict] = BoundedTable(_PAGES, lambda verdict: _WEIGHT, len)
        self._of_files: BoundedTable[tuple[str, str], _FileVerdict] = BoundedTable(
            _FILES, lambda each: _WEIGHT + len(each.verdict.why), lambda key: len(key[0]) + len(key[1])
        )

        self._walks: Flights[_PageVerdict] = Flights()

    def close(self) -> None:
        """Stop what is under way."""
        self._walks.close()

    # -- projects ------------------------------------------------------------------------------------------------------------

    def require_project(self, project: str) -> None:
        """Raise NotFound for a project that is hidden: nobody else need be asked."""
        if self.policy.judges_projects:
            verdict = self.policy.project(project, self._clock(), self._view)
            if not verdict.visible:
                raise NotFound(f"no project named {project} on index {self._view.index}: it is {verdict.why}")

    async def visible_of(self, projects: Sequence[str]) -> Sequence[str]:
        """Those of *projects* that are not hidden now."""
        if not self.policy.judges_projects:
            return projects
        return await self._offload.run(_visible_of, projects, self.policy, self._clock(), self._view)

    # -- pages ---------------------------------------------------------------------------------------------------------------

    async def get(self, project: str, *, no_cache: bool = False) -> Served:
        """As :meth:`PageCache.get`, of what may be seen."""
        self.require_project(project)
        return await self._pages.get(project, no_cache=no_cache)

    async def remembered(self, project: str) -> Head | None:
        """As :meth:`PageCache.remembered`."""
        return await self._pages.remembered(project)

    async def parsed(self, project: str, head: Head) -> Page:
        """As :meth:`PageCache.parsed`, of what may be seen."""
        return (await self.seen(project, head, self._clock(), await self._ledger.of(self._view.index, project))).page

    async def seen(self, project: str, head: Head, now: float, entries: Entries) -> Seen:
        """The page of *head* as it may be seen at *now*.  Raises as :meth:`PageCache.parsed`."""
        page = await self._pages.parsed(project, head)
        if not self._judges_files:
            return seen(self.policy, page, entries, now, self._view)
        return await self._offload.run_first(seen, self.policy, page, entries, now, self._view)

    async def moment(self, project: str, head: Head, entries: Entries) -> Moment:
        """This moment for the page of *head*.  Raises as :meth:`PageCache.parsed`."""
        moment = self.moment_at_hand(project, head, entries)
        if moment is not None:
            return moment
        for _ in range(2):  # one that was under way may not hold any more
            # Many ask for a page that has just changed; its entries are the same object for all of them.
            verdict = await self._walks.join(
                (project, head.digest, id(entries)), lambda: self._gone_through(project, head, entries, self._clock())
            )
            now = self._clock()
            if _holds(verdict.since, now, verdict.until):
                return self._moment(now, verdict.until, verdict.hidden)
        return self._moment(verdict.since, verdict.until, verdict.hidden)

    async def _gone_through(self, project: str, head: Head, entries: Entries, now: float) -> _PageVerdict:
        seen = await self.seen(project, head, now, entries)
        verdict = _PageVerdict(head.digest, ref(entries), now, seen.until, seen.hidden)
        self._of_pages.put(project, verdict)
        return verdict

    def moment_at_hand(self, project: str, head: Head, entries: Entries) -> Moment | None:
        """What :meth:`moment` would return if it need not go through the page, else ``None``: for hidden projects too."""
        of_all = self._of_project(project, head)
        if not self._judges_files:
            return of_all.moment if of_all.exists else None
        known, now = self._of_pages.get(project), self._clock()
        if not of_all.exists or known is None or known.digest != head.digest or known.entries() is not entries:
            return None
        return self._moment(now, known.until, known.hidden) if _holds(known.since, now, known.until) else None

    # -- files ---------------------------------------------------------------------------------------------------------------

    async def require(self, project: str, filename: str, name: str) -> Moment:
        """Raise NotFound if a file is hidden, as *name*; else return until when it is visible.

        It is judged by what is known of it without asking anybody: the page that is kept, else the ledger.  A file of which
        nothing is known is visible.
        """
        head = await self._pages.remembered(project)
        entries = await self._ledger.of(self._view.index, project)
        verdict = self._at_once(project, filename, head, entries)
        if verdict is None:
            file = await self._file(project, filename, head, entries)
            now, entry = self._clock(), entries.get(filename)
            of = _project(project, _status(head))
            if file is None:
                verdict = self.policy.files(of, now, self._view)  # not kept: clients can name any number of such files
            else:
                verdict = self.policy.visible(file, of, entry, now, self._view)
                self._of_files.put((project, filename), _FileVerdict(_digest(head), entry, now, verdict))
        return self._passed(verdict, project, head, name)

    def require_listed(self, project: str, head: Head, file: File, entries: Entries) -> Moment:
        """As :meth:`require`, for a *file* that the page of *head* lists."""
        of, entry = _project(project, head.status), entries.get(file.filename)
        verdict = self.policy.visible(file, of, entry, self._clock(), self._view)
        return self._passed(verdict, project, head, file.filename)

    def lastingly_visible(self, project: str, filename: str, head: Head | None, entries: Entries) -> bool:
        """Whether it is known without waiting that a file may be seen until its page or entry changes."""
        if not self._judges_files:
            return self._of_project(project, head).lasting
        verdict = self._at_once(project, filename, head, entries)
        return verdict is not None and verdict.visible and verdict.until is None

    # -- inside --------------------------------------------------------------------------------------------------------------

    def _of_project(self, project: str, head: Head | None) -> _ProjectVerdict:
        """What is said of *project* and all its files together.  Every hot request asks: what never changes is looked up."""
        known = self._of_projects.get(project)
        if known is not None and known.head is head and known.moment.until is None:
            return known
        now = self._clock()
        itself = self.policy.project(project, now, self._view)
        files = self.policy.files(_project(project, _status(head)), now, self._view)
        moment = self._moment(now, earliest(itself.until, files.until))
        known = _ProjectVerdict(head, itself.visible, files, files.visible and files.until is None, moment)
        self._of_projects.put(project, known)
        return known

    def _moment(self, now: float, until: float | None, hidden: str = "") -> Moment:
        return Moment(now, until, f"{self.policy.name}@{until}/{hidden}" if hidden else f"{self.policy.name}@{until}")

    def _at_once(self, project: str, filename: str, head: Head | None, entries: Entries) -> Verdict | None:
        if not self._judges_files:
            return self._of_project(project, head).verdict
        known, now = self._of_files.get((project, filename)), self._clock()
        if known is None or known.digest != _digest(head) or known.entry is not entries.get(filename):
            return None
        return known.verdict if _holds(known.since, now, known.verdict.until) else None

    async def _file(self, project: str, filename: str, head: Head | None, entries: Entries) -> File | None:
        """What is known of a file: what the page of *head* says of it, else what is in the ledger."""
        entry = entries.get(filename)
        if head is not None and head.found:
            try:
                file = find(await self._pages.parsed(project, head), filename, entries)
            except ProxyError:
                file = None  # the page is damaged and cannot be had again now
            if file is not None:
                return file
        return None if entry is None else recorded(filename, entry)

    def _passed(self, verdict: Verdict, project: str, head: Head | None, name: str) -> Moment:
        """Until when a file is visible by *verdict*.  Raises NotFound when it is not, and says what is hidden with it."""
        if verdict.visible:
            return Moment(self._clock(), verdict.until)
        self.require_project(project)
        of_all = self.policy.files(_project(project, _status(head)), self._clock(), self._view)
        if not of_all.visible:
            raise NotFound(f"{name}: project {project} is {of_all.why}, none of its files is served")
        raise NotFound(f"{name} is not served: it is {verdict.why}")


def _visible_of(projects: Sequence[str], policy: Policy, now: float, view: Viewpoint) -> list[str]:
    return [name for name in projects if policy.project(name, now, view).visible]


def recorded(filename: str, entry: LedgerEntry) -> File:
    """The file *filename* as the ledger knows it."""
    return File(
        filename,
        entry.url,
        {**entry.stated, "sha256": entry.sha256},
        size=entry.size,
        requires_python=entry.requires_python,
        upload_time=entry.upload_time,
        yanked=entry.yanked,
    )


def _project(name: str, status: object) -> Project:
    return Project(name, status if isinstance(status, str) else None)


def _status(head: Head | None) -> str | None:
    return None if head is None or not head.found else head.status


def _digest(head: Head | None) -> str:
    return "" if head is None else head.digest


def _holds(since: float, now: float, until: float | None) -> bool:
    """Whether what was said at *since* and may change at *until* holds at *now*.  A clock may have been set back."""
    return since <= now and (until is None or now < until)
