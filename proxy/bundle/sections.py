"""A bundle of several indexes: which of them each project comes from, as clients of a group get it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import BinaryIO, Protocol

from proxy.bundle.cache import CarriedClaims
from proxy.bundle.exporting import Exported, Selection
from proxy.bundle.format import FORMAT, VERSION, Manifest, Section, encode
from proxy.bundle.writing import BundleWriter
from proxy.errors import NameAbandoned
from proxy.interfaces import Clock, IOffload
from proxy.repository.membership import Course


class BundleSource(Protocol):
    """What a bundle has of one index."""

    @property
    def section(self) -> Section:
        """The index."""

    async def projects(self) -> Sequence[str]:
        """The projects that it has something of."""

    async def write(self, wanted: Selection, writer: BundleWriter, exported: Exported, *, picky: bool) -> None:
        """Write what is *wanted*; *picky*: a project without any file to go into the bundle is a problem."""


async def write_sections(
    index: str,
    sources: Sequence[BundleSource],
    course: Callable[[str], Course],
    claims: CarriedClaims,
    wanted: Selection | None,
    out: BinaryIO,
    clock: Clock,
    offload: IOffload,
) -> Exported:
    """Write what is *wanted* of *index*, which consists of *sources*, to *out*; ``None``: everything.

    *course* decides which of them a project comes from.  Raises OSError, StorageFailed.
    """
    run, exported = offload.run, Exported()
    sections = tuple(each.section for each in sources)
    carried = await claims.all()
    shares = await _shares(sources, course, wanted, exported)
    writer = await run(BundleWriter, out, Manifest(FORMAT, VERSION, index, clock(), sections))
    if carried:
        await run(writer.claims, encode(carried))
        exported.claims = len(carried)
    for each in sources:
        share = shares[each.section.index]
        if share:
            await run(writer.section, each.section)
            await each.write(share, writer, exported, picky=wanted is not None)
    await run(writer.end)
    return exported


async def _shares(
    sources: Sequence[BundleSource], course: Callable[[str], Course], wanted: Selection | None, exported: Exported
) -> Mapping[str, Selection]:
    """What is *wanted* of each of *sources*."""
    there = {each.section.index: frozenset(await each.projects()) for each in sources}
    shares: dict[str, dict[str, Collection[str] | None]] = {name: {} for name in there}
    for project in sorted(frozenset().union(*there.values()) if wanted is None else wanted):
        try:
            asked = course(project)
        except NameAbandoned as error:
            exported.problems.append(str(error))
            continue
        having = [name for name in asked.members if project in there[name]]
        if asked.united and having:
            # Which of them a named file is of is not known here: all of the project goes with it.
            for name in having:
                shares[name][project] = None
        elif having or wanted is not None:
            name = (having or asked.members)[0]
            shares[name][project] = None if wanted is None else wanted[project]
    return shares
