"""The operations by name: what the admin interface serves, and what commands perform themselves when no proxy runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict

from proxy.administration.parts import Parts
from proxy.administration.purging import Purging
from proxy.administration.stock import Stock
from proxy.administration.verifying import Verifying
from proxy.errors import NotFound
from proxy.interfaces import Operation, Report
from proxy.names import normalize


class Administration:
    """All operations on *parts*.  Each takes a callable for what it has to say on its way, and arguments by name.

    They raise ProxyError: BadRequest for arguments that make no sense, NotFound for what is not there.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        stock, purging = Stock(parts), Purging(parts)
        self.operations: Mapping[str, Operation] = {
            "upstreams": self.upstreams,
            "stats": stock.stats,
            "ls": stock.ls,
            "purge": purging.purge,
            "purge_unused": purging.purge_unused,
            "refresh": purging.refresh,
            "verify": Verifying(parts).verify,
            "pin": self.pin,
            "unpin": self.unpin,
            "pinned": self.pinned,
        }

    async def upstreams(self, report: Report, index: str | None = None) -> list[dict[str, Any]]:
        """How the upstreams of each index stand, in order of preference."""
        return [
            {"index": name, **asdict(state)}
            for name, each in self._parts.chosen(index).items()
            for state in each.upstreams.states()
        ]

    async def pin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, str]]:
        """Keep what is stored of *project* from eviction: all of it, or what *which* (a version or file name) means."""
        wanted = normalize(project)
        done = [
            {"index": name, "project": wanted, "filename": filename}
            for name in self._parts.chosen(index)
            for filename in await self._parts.kept.keep(name, wanted, which)
        ]
        if not done:
            raise NotFound(f"nothing of {_what(wanted, which)} is stored here: fetch it first, then pin it")
        return done

    async def unpin(
        self, report: Report, project: str, which: str | None = None, index: str | None = None
    ) -> list[dict[str, str]]:
        """Let what was pinned go again."""
        wanted = normalize(project)
        done = [
            {"index": name, "project": wanted, "filename": filename}
            for name in self._parts.chosen(index)
            for filename in await self._parts.kept.release(name, wanted, which)
        ]
        if not done:
            raise NotFound(f"nothing of {_what(wanted, which)} is pinned here")
        return done

    async def pinned(self, report: Report, index: str | None = None) -> list[dict[str, str]]:
        """All files that are pinned, whatever of them is (their metadata too)."""
        self._parts.chosen(index)
        files = {(each.index, each.project, each.filename) for each in await self._parts.kept.kept()}
        return [
            {"index": name, "project": project, "filename": filename}
            for name, project, filename in sorted(files)
            if index in (None, name)
        ]


def _what(project: str, which: str | None) -> str:
    return project if which is None else f"{which} of {project}"
