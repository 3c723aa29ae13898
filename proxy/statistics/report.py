"""What statistics say, for people: shares, savings, and what is worth doing about it.  Pure.

Whoever reads it says whose names may be shown: a row about a project that is not to be named is left out of every table, and
what it counted stays in the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from proxy.core.agents import NOT_STATED
from proxy.core.figures import OTHERS, Bucket, Dimension, RowKey, Sums
from proxy.core.visits import FILES, PAGES
from proxy.names import kind_of, version_of

#: Whether the project (normalised) of an index may be named.
MayName = Callable[[str, str], bool]

#: A source archive that was downloaded so often is worth a wheel.
_OFTEN = 5
#: A client that requested one file so often has no cache of its own.
_REPEATED = 5
#: So many pages and not a single file is no accident.
_MANY_PAGES = 20
#: What a row of a table by each of these is about a project of; others name none.
_NAMING = frozenset({Dimension.PROJECTS, Dimension.VERSIONS, Dimension.DOWNLOADS})


class FigureReport(Struct, frozen=True):
    """The figures of *bucket*, for who may see the names that *may_name* says."""

    bucket: Bucket
    may_name: MayName = lambda index, project: True

    def total(self) -> Sums:
        """Everything."""
        return _sum(tally for _, tally in self._answers())

    def saved_seconds(self) -> float:
        """An estimate of the time that clients did not wait for upstream: pages and files of each index by themselves."""
        kinds: dict[tuple[str, str], Sums] = {}
        for (index, area, _), tally in self._answers():
            kinds.setdefault((index, area), Sums()).add(tally)
        return sum(each.saved_seconds for each in kinds.values())

    def summary(self) -> dict[str, Any]:
        """The sums: requests, the share of hits (``None`` without any answer that could have been one), and savings."""
        total = self.total()
        return {**figures_of(total), "hit_rate": hit_rate(total), "saved_seconds": self.saved_seconds()}

    def table(self, dimension: Dimension, top: int | None = None) -> list[dict[str, Any]]:
        """The rows of *dimension*, the busiest first, and the row of the others last; *top* of them."""
        found = sorted(self._rows(dimension), key=lambda row: (OTHERS in row[0], -row[1].requests, row[0]))
        named = [{**dict(zip(dimension.columns, key, strict=True)), **figures_of(tally)} for key, tally in found]
        return [{**each, "hit_rate": hit_rate(tally)} for each, (_, tally) in zip(named, found, strict=True)][:top]

    # -- what is worth doing -------------------------------------------------------------------------------------------------

    def wheels_worth_building(self, top: int = 10) -> list[dict[str, Any]]:
        """Releases that are downloaded as source archives again and again: each time, a build compiles them."""
        found: dict[tuple[str, str, str], int] = {}
        for (index, project, filename, _), tally in self._rows(Dimension.DOWNLOADS):
            if kind_of(filename) == "sdist":
                version = version_of(filename)
                key = index, project, filename if version is None else str(version)
                found[key] = found.get(key, 0) + tally.requests
        return _ranked(("index", "project", "version"), {key: n for key, n in found.items() if n >= _OFTEN}, "downloads", top)

    def repeated_requests(self, top: int = 10) -> list[dict[str, Any]]:
        """Addresses that request the same unchanged files on every run: a cache directory there would spare these requests."""
        files: dict[str, dict[str, int]] = {}
        for (address, filename), tally in self.bucket[Dimension.REQUESTERS].items():
            if OTHERS not in (address, filename) and tally.requests >= _REPEATED:
                files.setdefault(address, {})[filename] = tally.requests
        ordered = sorted(files.items(), key=lambda each: (-sum(each[1].values()), each[0]))
        return [{"address": address, "files": len(those), "requests": sum(those.values())} for address, those in ordered[:top]]

    def pages_without_files(self, top: int = 10) -> list[dict[str, Any]]:
        """Addresses that request pages and never a file: they may download past the proxy."""
        asked: dict[str, dict[str, int]] = {}
        for (address, area), tally in self.bucket[Dimension.ADDRESSES].items():
            if address != OTHERS:
                asked.setdefault(address, {})[area] = tally.requests
        pages: dict[RowKey, int] = {
            (address,): areas.get(PAGES, 0)
            for address, areas in asked.items()
            if not areas.get(FILES) and areas.get(PAGES, 0) >= _MANY_PAGES
        }
        return _ranked(("address",), pages, "pages", top)

    # -- PEP 381 -------------------------------------------------------------------------------------------------------------

    def downloads(self) -> list[tuple[str, str, str, int]]:
        """(project, file name, client, downloads), in the order of their names, as PEP 381 has them."""
        found: dict[tuple[str, str, str], int] = {}
        for (_, project, filename, agent), tally in self._rows(Dimension.DOWNLOADS):
            if filename != OTHERS:
                client = agent.removesuffix(f"/{NOT_STATED}")
                found[project, filename, client] = found.get((project, filename, client), 0) + tally.requests
        return [(*key, count) for key, count in sorted(found.items())]

    def _answers(self) -> Iterable[tuple[RowKey, Sums]]:
        return self.bucket[Dimension.ANSWERS].items()

    def _rows(self, dimension: Dimension) -> Iterable[tuple[RowKey, Sums]]:
        rows = self.bucket[dimension].items()
        if dimension not in _NAMING:
            return rows
        return [(key, tally) for key, tally in rows if key[1] == OTHERS or self.may_name(key[0], key[1])]


def hit_rate(tally: Sums) -> float | None:
    """The share of answers from the cache among those that could have been: neither refused nor failed."""
    answers = tally.hits + tally.waited
    return None if not answers else tally.hits / answers


def figures_of(tally: Sums) -> dict[str, int]:
    """The numbers that every table shows."""
    return {
        "requests": tally.requests,
        "bytes": tally.bytes,
        "hits": tally.hits,
        "saved_bytes": tally.hit_bytes,
        "stale": tally.stale,
        "failed": tally.failed,
    }


def _sum(tallies: Iterable[Sums]) -> Sums:
    total = Sums()
    for each in tallies:
        total.add(each)
    return total


def _ranked(columns: tuple[str, ...], found: Mapping[tuple[str, ...], int], what: str, top: int) -> list[dict[str, Any]]:
    ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))[:top]
    return [{**dict(zip(columns, key, strict=True)), what: count} for key, count in ordered]
