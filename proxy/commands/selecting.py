"""What requirement and lock files come down to among the files that are stored: resolved as warm does, without upstream.

The resolver asks a service of its own, which works on a copy of what there is, whether a proxy runs on it or not.
"""

from __future__ import annotations

import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console

from proxy.commands.directory import LOOPBACK, unclaimed
from proxy.errors import ConfigError, StorageFailed
from proxy.settings import IndexSettings, Settings
from proxy.warm.looking import Goal, Warmed, look
from proxy.warm.progress import Lines
from proxy.warm.report import WarmReport


class Selected(Struct, frozen=True):
    """The names of the files by project, and what could not be had, a sentence each."""

    files: dict[str, set[str]]
    problems: list[str]


async def select(reactor: Any, settings: Settings, index: IndexSettings, goal: Goal) -> Selected:
    """The stored files of *index* that installing *goal* takes.  Raises ConfigError."""
    # Nothing but a resolver needs the whole service.
    from proxy.service import build

    alone = replace(
        settings,
        server=replace(settings.server, listen=(LOOPBACK,)),
        upstreams=(),
        indexes=tuple(_alone(each, index.name) for each in settings.indexes if each.name in _parts(settings, index.name)),
    )
    quiet = Lines(Console(file=StringIO()))
    with unclaimed(settings.server.data_dir), tempfile.TemporaryDirectory(prefix="pypiproxy-export-") as cache:
        try:
            service = build(alone, reactor, reading=True)
        except StorageFailed as error:
            raise ConfigError(f"{settings.server.data_dir}: {error}") from error
        service.startService()
        try:
            warmed = Warmed(service.own_index_url(), service.administration.perform)
            return _selected(await look(goal, warmed, Path(cache), quiet, reactor))
        finally:
            await service.stopService()


def _parts(settings: Settings, index: str) -> frozenset[str]:
    """The index *index* with its members, and theirs."""
    members = next(each.members for each in settings.indexes if each.name == index)
    return frozenset({index}).union(*(_parts(settings, each) for each in members))


def _alone(index: IndexSettings, chosen: str) -> IndexSettings:
    """*index* as it is served without upstreams, with *chosen* as the default one."""
    return replace(index, offline=index.kind == "proxy", default=index.name == chosen)


def _selected(report: WarmReport) -> Selected:
    files: dict[str, set[str]] = {}
    problems = [str(problem) for problem in dict.fromkeys(report.problems)]
    for each in report.outcomes:
        if each.state == "failed":
            problems.append(f"{each.filename}: {each.why}")
        else:
            files.setdefault(each.project, set()).add(each.filename)
    return Selected(files, problems)
