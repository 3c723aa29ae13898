"""What requirement and lock files come down to among the files that are stored: resolved as warm does, without upstream."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from rich.console import Console

from proxy.commands.directory import claimed
from proxy.settings import IndexSettings, Settings
from proxy.warm.choosing import Choice
from proxy.warm.fetching import Fetcher
from proxy.warm.inputs import Group
from proxy.warm.progress import Lines
from proxy.warm.resolving import Resolver, Wishes
from proxy.warm.run import Plan, Run
from proxy.warm.targets import Target

_LOOPBACK = "tcp:0:interface=127.0.0.1"
_JOBS = 4


@frozen
class Selected:
    """The names of the files by project, and what could not be had, a sentence each."""

    files: dict[str, set[str]]
    problems: list[str]


async def select(
    reactor: Any, settings: Settings, index: IndexSettings, groups: Sequence[Group], targets: Sequence[Target], wishes: Wishes
) -> Selected:
    """The stored files of *index* that installing *groups* on *targets* takes.  Raises ConfigError."""
    # Nothing but a resolver needs the whole service.
    from proxy.service import build

    alone = evolve(
        settings,
        server=evolve(settings.server, listen=(_LOOPBACK,)),
        upstreams=(),
        indexes=(evolve(index, offline=True, default=True),),
    )
    with claimed(settings.server.data_dir):
        service = build(alone, reactor)
        service.startService()
        try:
            (port,) = service.listenings[0].ports
            host: Any = port.getHost()
            return await _run(reactor, f"http://127.0.0.1:{host.port}/simple/", Plan(groups, tuple(targets), Choice()), wishes)
        finally:
            await service.stopService()


async def _run(reactor: Any, url: str, plan: Plan, wishes: Wishes) -> Selected:
    fetcher = Fetcher(url, _JOBS, reactor)
    quiet = Lines(Console(file=StringIO()))
    try:
        with tempfile.TemporaryDirectory(prefix="pypiproxy-export-") as cache:
            report = await Run(plan, fetcher, Resolver(url, Path(cache), wishes, reactor), quiet, reactor.seconds).go()
    finally:
        await fetcher.close()
    files: dict[str, set[str]] = {}
    problems = [str(problem) for problem in dict.fromkeys(report.problems)]
    for each in report.outcomes:
        if each.state == "failed":
            problems.append(f"{each.filename}: {each.why}")
        else:
            files.setdefault(each.project, set()).add(each.filename)
    return Selected(files, problems)
