"""Which files of a version are fetched: what an installer on each target would take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from proxy.names import build_and_tags, is_wheel, packing_of, tags_of, version_of
from proxy.warm.inputs import Locked
from proxy.warm.targets import Target

#: A file as the proxy's page states it (PEP 691).
PageEntry = Mapping[str, Any]


class Choice(Struct, frozen=True):
    """What is taken of a version."""

    only_binary: bool = False
    sdists: bool = False
    all_files: bool = False

    def of(self, entries: Iterable[PageEntry], locked: Locked, targets: Sequence[Target]) -> list[PageEntry]:
        """The files of *locked* for *targets* (none named: the wheels of all platforms); empty when there are none."""
        version = Version(locked.version)
        there = [entry for entry in entries if version_of(entry["filename"]) == version and _may_be_taken(entry, locked)]
        if self.all_files:
            return there
        wheels = [entry for entry in there if is_wheel(entry["filename"])]
        sources = [] if self.only_binary else [entry for entry in there if not is_wheel(entry["filename"])]
        if not targets:
            everywhere = any((tags_of(entry["filename"]) or "").endswith("-any") for entry in wheels)
            return wheels + (sources if self.sdists or not everywhere else [])
        chosen = []
        for target in targets:
            wheel = _best(wheels, target)
            if wheel is not None:
                chosen.append(wheel)
            if wheel is None or self.sdists:
                chosen += _preferred([entry for entry in sources if suits(entry, target)])
        return list({entry["filename"]: entry for entry in chosen}.values())

    def is_for_others(self, entries: Iterable[PageEntry], locked: Locked) -> bool:
        """Whether *locked* has wheels alone, so that a target without one has no use for it (as Linux has none for pywin32)."""
        there = Choice(all_files=True).of(entries, locked, ())
        return bool(there) and all(is_wheel(entry["filename"]) for entry in there)


def _may_be_taken(entry: PageEntry, locked: Locked) -> bool:
    stated = {f"{algorithm}:{value}" for algorithm, value in entry["hashes"].items()}
    return not locked.hashes or bool(stated & locked.hashes)


def _best(wheels: Sequence[PageEntry], target: Target) -> PageEntry | None:
    """The wheel that an installer on *target* would take."""
    ranks = target.ranks()

    def rank(entry: PageEntry) -> tuple[int, tuple[int, str]] | None:
        named = build_and_tags(entry["filename"])
        if named is None:
            return None
        build, tags = named
        accepted = [ranks[tag] for tag in tags if tag in ranks]
        return (-min(accepted), build or (-1, "")) if accepted and suits(entry, target) else None

    ranked = [(found, entry) for entry in wheels if (found := rank(entry)) is not None]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def suits(entry: PageEntry, target: Target) -> bool:
    """Whether the target's Python is among those that the file asks for."""
    try:
        return SpecifierSet(entry.get("requires-python") or "").contains(f"{target.python[0]}.{target.python[1]}.99")
    except InvalidSpecifier:
        return True


def _preferred(sources: Sequence[PageEntry]) -> list[PageEntry]:
    """One source archive: ``.tar.gz`` before others."""
    return sorted(sources, key=lambda entry: packing_of(entry["filename"]) != "tar.gz")[:1]


def newest(entries: Iterable[PageEntry], specifier: SpecifierSet, count: int) -> list[str]:
    """The newest *count* versions within *specifier*, yanked ones and (unless there is nothing else) pre-releases left out."""
    versions: set[Version] = set()
    for entry in entries:
        try:
            version = version_of(entry["filename"])
        except InvalidVersion:
            continue
        if version is not None and entry.get("yanked", False) is False:
            versions.add(version)
    return [str(each) for each in sorted(specifier.filter(versions), reverse=True)[:count]]
