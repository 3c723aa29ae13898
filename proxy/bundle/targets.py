"""Which index each part of a bundle goes into: the one of its name, or the only one of its kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from msgspec import Struct

from proxy.bundle.cache import CarriedClaims, IndexCache
from proxy.bundle.format import Manifest, Section
from proxy.hosted.editing import Editing
from proxy.hosted.receiving import Receiving
from proxy.interfaces import IOffload


class HostedTarget(Protocol):
    """A hosted index that files out of a bundle are put into."""

    @property
    def receiving(self) -> Receiving:
        """What takes files."""

    @property
    def editing(self) -> Editing:
        """What changes its files."""


class Targets(Struct, frozen=True):
    """The index *name* that a bundle is imported into, and what it consists of: the proxy indexes and the hosted ones.

    *offload* is where the bundle is read; claims out of it are entered beside *claims*.
    """

    name: str
    caches: Mapping[str, IndexCache]
    hosted: Mapping[str, HostedTarget]
    offload: IOffload
    claims: CarriedClaims | None


class SectionTarget(Struct, frozen=True):
    """The index *name* of the *kind* that a part of a bundle goes into; *why* it goes nowhere, if it does not."""

    name: str
    kind: str
    why: str | None = None


def matched(manifest: Manifest, targets: Targets) -> Mapping[str, SectionTarget]:
    """Where each part of the bundle with this *manifest* goes, by the name of the index that it is of."""
    sections = manifest.sections or (Section(manifest.index, "proxy"),)
    there: Mapping[str, Collection[str]] = {"proxy": targets.caches.keys(), "hosted": targets.hosted.keys()}
    found: dict[str, SectionTarget] = {}
    for kind, names in there.items():
        of_kind = [each.index for each in sections if each.kind == kind]
        found |= {index: SectionTarget(index, kind) for index in of_kind if index in names}
        others, free = [each for each in of_kind if each not in names], [name for name in names if name not in of_kind]
        if len(others) == len(free) == 1:
            found[others[0]] = SectionTarget(free[0], kind)
    return {each.index: found.get(each.index) or _nowhere(each, targets) for each in sections}


def _nowhere(section: Section, targets: Targets) -> SectionTarget:
    names = targets.caches if section.kind == "proxy" else targets.hosted
    there = f"more than one could be meant ({', '.join(sorted(names))})" if names else f"{targets.name} has none"
    return SectionTarget(
        section.index,
        section.kind,
        f"what it has of the {section.kind} index {section.index} is left out, for {there}: import it with --index and the "
        f"name of a {section.kind} index, or of a group with a member {section.index}",
    )
