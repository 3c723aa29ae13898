"""Which files of a version are fetched: what an installer on each target would take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from proxy.simple.legacy import version_of
from proxy.warm.inputs import Locked
from proxy.warm.targets import Target

#: A file as the proxy's page states it (PEP 691).
Entry = Mapping[str, Any]


@frozen
class Choice:
    """What is taken of a version."""

    only_binary: bool = False
    sdists: bool = False
    all_files: bool = False

    def of(self, entries: Iterable[Entry], locked: Locked, targets: Sequence[Target]) -> list[Entry]:
        """The files of *locked* for *targets* (none named: the wheels of all platforms); empty when there are none."""
        version = Version(locked.version)
        there = [entry for entry in entries if version_of(entry["filename"]) == version and _may_be_taken(entry, locked)]
        if self.all_files:
            return there
        wheels = [entry for entry in there if entry["filename"].endswith(".whl")]
        sources = [] if self.only_binary else [entry for entry in there if not entry["filename"].endswith(".whl")]
        if not targets:
            return wheels + (sources if self.sdists or not wheels else [])
        chosen = []
        for target in targets:
            wheel = _best(wheels, target)
            if wheel is not None:
                chosen.append(wheel)
            if wheel is None or self.sdists:
                chosen += _preferred([entry for entry in sources if suits(entry, target)])
        return list({entry["filename"]: entry for entry in chosen}.values())


def _may_be_taken(entry: Entry, locked: Locked) -> bool:
    stated = {f"{algorithm}:{value}" for algorithm, value in entry["hashes"].items()}
    return not locked.hashes or bool(stated & locked.hashes)


def _best(wheels: Sequence[Entry], target: Target) -> Entry | None:
    """The wheel that an installer on *target* would take."""
    ranks = target.ranks()

    def rank(entry: Entry) -> tuple[int, tuple[int, str]] | None:
        try:
            _, _, build, tags = parse_wheel_filename(entry["filename"])
        except InvalidWheelFilename:
            return None
        accepted = [ranks[tag] for tag in tags if tag in ranks]
        return (-min(accepted), build or (-1, "")) if accepted and suits(entry, target) else None

    ranked = [(found, entry) for entry in wheels if (found := rank(entry)) is not None]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def suits(entry: Entry, target: Target) -> bool:
    """Whether the target's Python is among those that the file asks for."""
    try:
        return SpecifierSet(entry.get("requires-python") or "").contains(f"{target.python[0]}.{target.python[1]}.99")
    except InvalidSpecifier:
        return True


def _preferred(sources: Sequence[Entry]) -> list[Entry]:
    """One source archive: ``.tar.gz`` before others."""
    return sorted(sources, key=lambda entry: not entry["filename"].endswith(".tar.gz"))[:1]


def newest(entries: Iterable[Entry], specifier: SpecifierSet, count: int) -> list[str]:
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
