"""One run: read, resolve, choose, fetch, and what building source archives needs; the rest goes on when something fails."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from packaging.requirements import InvalidRequirement, Requirement
from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError

from proxy.names import is_project_name, normalize
from proxy.warm.choosing import Choice, PageEntry, newest, suits
from proxy.warm.explaining import explained, unfound
from proxy.warm.fetching import Fetcher, NotFetched, Unreachable
from proxy.warm.inputs import Group, Locked, Problem
from proxy.warm.progress import Quiet
from proxy.warm.report import Outcome, WarmReport
from proxy.warm.resolving import Resolver, Unresolved
from proxy.warm.targets import Target

#: Building a source archive may need what has to be built itself, and so on: this deep.
_DEPTH = 3


class Plan(Struct, frozen=True):
    """What to have and how.  ``latest``: so many of the newest versions of every named project as well."""

    groups: Sequence[Group]
    #: None: all platforms.
    targets: tuple[Target, ...]
    choice: Choice
    latest: int = 0
    dry: bool = False


class Run:
    """One run of *plan*."""

    def __init__(self, plan: Plan, fetcher: Fetcher, resolver: Resolver, progress: Quiet, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._resolver = resolver
        self._progress = progress
        self._clock = clock
        self._began = clock()
        self._asked: set[tuple[str, str]] = set()
        self._needed: set[str] = set()
        #: Requirements that cannot be met together, each with its file.
        self._impossibilities: set[tuple[str, ...]] = set()
        self.report = WarmReport(traffic=fetcher.traffic)

    async def go(self) -> WarmReport:
        """Do all of it; what was done until it is cancelled is reported.  Raises Unreachable when the proxy does not answer."""
        try:
            for group in self._plan.groups:
                self.report.problems += group.problems
                self.report.notes += group.notes
                await self._group(group)
            for _ in range(_DEPTH):
                if not self._needed:
                    break
                needed, self._needed = self._needed, set()
                await self._group(Group("to build source archives", requirements=sorted(needed)))
        except CancelledError:
            self.report.stopped = True
        finally:
            self.report.seconds = self._clock() - self._began
        return self.report

    async def _group(self, group: Group) -> None:
        wanted: dict[Locked, list[Target]] = {locked: list(self._plan.targets) for locked in group.locked}
        if group.requirements or group.project is not None:
            targets: Sequence[Target | None] = self._plan.targets or [None]
            for target in targets:
                for locked in await self._resolved(group, target):
                    wanted.setdefault(locked, []).extend([] if target is None else [target])
        if self._plan.latest:
            for locked in await self._newest(group):
                wanted[locked] = list(self._plan.targets)
        await self._fetch(wanted, frozenset(group.locked))

    async def _resolved(self, group: Group, target: Target | None) -> list[Locked]:
        self._progress.doing(f"resolving {Path(group.where).name} for {target or 'all platforms'}")
        try:
            return await self._resolver.resolve(group, target)
        except Unresolved as error:
            await self._alive()
            return await self._in_parts(group, self._resolver.requirements(group), target, error)

    async def _alive(self) -> None:
        """Raise Unreachable when it is the proxy that is the matter."""
        await self._fetcher.answers()

    async def _in_parts(
        self, group: Group, requirements: Sequence[str], target: Target | None, error: Unresolved
    ) -> list[Locked]:
        """What can be resolved of *requirements*, which cannot be as a whole: halves of them, halves of these, and so on.

        Only the smallest parts that fail are reported, so that one impossible requirement is one problem.
        """
        if len(requirements) < 2:
            await self._impossible(group, requirements, target, error)
            return []
        found: list[Locked] = []
        halves_fail = False
        middle = len(requirements) // 2
        for half in (requirements[:middle], requirements[middle:]):
            part = Group(
                group.where, [*half], group.constraints, hashes=group.hashes, prereleases=group.prereleases, deps=group.deps
            )
            try:
                found += await self._resolver.resolve(part, target)
            except Unresolved as smaller:
                halves_fail = True
                found += await self._in_parts(group, half, target, smaller)
        if not halves_fail:
            await self._impossible(group, requirements, target, error)
        return found

    async def _impossible(self, group: Group, requirements: Sequence[str], target: Target | None, error: Unresolved) -> None:
        """Report that *requirements* cannot be met together, once for all targets."""
        impossible = (group.where, *requirements)
        if impossible in self._impossibilities:
            return
        self._impossibilities.add(impossible)
        where = requirements[0] if len(requirements) == 1 else group.where
        about = [f"for {target}"] if target is not None and len(self._plan.targets) > 1 else []
        about += [f"required by {group.where}"] if group.is_file and where != group.where else []
        why = await self._why(str(error), where)
        self.report.problems.append(Problem(where, f"{why} ({', '.join(about)})" if about else why))

    async def _why(self, words: str, where: str) -> str:
        """The reason in the resolver's *words*, or in those of the proxy if it has no page.  Raises Unreachable."""
        project = unfound(words)
        if project is not None and is_project_name(project):
            project = normalize(project)
            try:
                await self._fetcher.page(project, tries=1)
            except Unreachable:
                raise
            except NotFetched as error:
                return str(error) if project in (where, normalize(_name(where))) else f"it needs {project}: {error}"
        return explained(words)

    async def _newest(self, group: Group) -> list[Locked]:
        found = []
        for text in self._resolver.requirements(group):
            requirement = Requirement(text)
            name = normalize(requirement.name)
            if (group.where, text) in self._impossibilities:
                continue  # which is reported
            try:
                page = await self._fetcher.page(name)
            except Unreachable:
                raise
            except NotFetched as error:
                self.report.problems.append(Problem(name, str(error)))
                continue
            found += [Locked(name, version) for version in newest(page["files"], requirement.specifier, self._plan.latest)]
        return found

    async def _fetch(self, wanted: Mapping[Locked, Sequence[Target]], listed: frozenset[Locked]) -> None:
        """*listed* are those of *wanted* that a lock file lists, for whatever platform."""
        chosen: list[tuple[Locked, PageEntry]] = []

        async def choose(locked: Locked, targets: Sequence[Target]) -> None:
            chosen.extend(await self._chosen(locked, targets, listed=locked in listed))

        await self._together(choose(locked, targets) for locked, targets in wanted.items())
        self._progress.expect(len(chosen), sum(entry.get("size") or 0 for _, entry in chosen))
        do = self._look if self._plan.dry else self._file
        await self._together(do(locked, entry) for locked, entry in chosen)

    async def _together(self, coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Run them all at once (the fetcher bounds what is under way); the first that raises ends the others."""
        running = [Deferred.fromCoroutine(each) for each in coroutines]
        together: Any = DeferredList(running, fireOnOneErrback=True, consumeErrors=True)
        try:
            await together
        except FirstError as error:
            for each in running:
                each.cancel()
            error.subFailure.raiseException()

    async def _chosen(self, locked: Locked, targets: Sequence[Target], *, listed: bool) -> list[tuple[Locked, PageEntry]]:
        try:
            page = await self._fetcher.page(locked.name)
        except Unreachable:
            raise
        except NotFetched as error:
            self.report.problems.append(Problem(locked.name, str(error)))
            return []
        entries = self._plan.choice.of(page["files"], locked, targets)
        if not entries and listed and self._plan.choice.is_for_others(page["files"], locked):
            self.report.notes.append(f"{locked.name} {locked.version} is locked for other platforms than these and is left out")
        elif not entries and (why := _why_none(page["files"], locked, targets)) is not None:
            self.report.problems.append(Problem(f"{locked.name} {locked.version}", why))
        new = [entry for entry in entries if (locked.name, entry["filename"]) not in self._asked]
        self._asked |= {(locked.name, entry["filename"]) for entry in new}
        return [(locked, entry) for entry in new]

    async def _look(self, locked: Locked, entry: PageEntry) -> None:
        """Say of a file what a run that is not dry would do."""
        try:
            state = "there" if await self._fetcher.has(locked.name, entry) else "wanted"
        except NotFetched as error:
            self._done(Outcome(locked.name, locked.version, entry["filename"], "failed", entry.get("size"), str(error)))
        else:
            self._done(Outcome(locked.name, locked.version, entry["filename"], state, entry.get("size")))

    async def _file(self, locked: Locked, entry: PageEntry) -> None:
        try:
            fetched = await self._fetcher.file(locked.name, entry, self._progress.told)
        except NotFetched as error:
            self._done(Outcome(locked.name, locked.version, entry["filename"], "failed", entry.get("size"), str(error)))
            return
        for text in fetched.builds_with:
            try:
                Requirement(text)
            except InvalidRequirement:
                continue
            self._needed.add(text)
        state = "there" if fetched.there else "fetched"
        self._done(Outcome(locked.name, locked.version, fetched.filename, state, fetched.size))

    def _done(self, outcome: Outcome) -> None:
        self.report.outcomes.append(outcome)
        self._progress.done(outcome)


def _name(requirement: str) -> str:
    """The project of *requirement*; empty if it is the name of a file."""
    try:
        return Requirement(requirement).name
    except InvalidRequirement:
        return ""


def _why_none(entries: Sequence[PageEntry], locked: Locked, targets: Sequence[Target]) -> str | None:
    """Why there is no file of *locked*; ``None`` when that is right: a lock file has versions for other Pythons too."""
    everything = Choice(all_files=True)
    there = everything.of(entries, Locked(locked.name, locked.version), ())
    if there:
        if locked.hashes and not everything.of(entries, locked, ()):
            return f"no file on the index has one of its {len(locked.hashes)} hashes: was it locked against another index?"
        if not any(suits(entry, target) for entry in there for target in targets):
            return None
        return "no file suits the targets: name another --python or --platform, or leave --only-binary out"
    return "the index has no file of this version"
