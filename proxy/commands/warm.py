"""``pypiproxy warm``: have in the cache what builds will ask for."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from attrs import frozen
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from proxy import config, datadir
from proxy.errors import ConfigError
from proxy.warm.choosing import Choice
from proxy.warm.fetching import Fetcher, Unreachable
from proxy.warm.inputs import read, read_arguments
from proxy.warm.progress import Bar, Lines
from proxy.warm.report import Report
from proxy.warm.resolving import Resolver, Wishes
from proxy.warm.run import Plan, Run
from proxy.warm.targets import BadTarget, targets

DEFAULT_PROXY = "http://127.0.0.1:3143/simple/"
_LOOPBACK = "tcp:0:interface=127.0.0.1"


@frozen
class _Where:
    """Which proxy: the one at *url*; or, if nobody is there and it was not named, one of our own over the data directory."""

    url: str
    named: bool
    config: Path | None
    data_dir: Path | None


@click.command()
@click.argument("requirements", nargs=-1)
@click.option(
    "-r",
    "--requirement",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="requirements.txt, pyproject.toml, uv.lock, poetry.lock, pdm.lock, Pipfile.lock or pylock.toml; may be repeated.",
)
@click.option(
    "-c",
    "--constraint",
    "constraints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Constraints on what is resolved; may be repeated.",
)
@click.option("--extra", "extras", multiple=True, help="Extra of a pyproject.toml to include; may be repeated.")
@click.option("--group", "groups", multiple=True, help="Dependency group of a pyproject.toml to include; may be repeated.")
@click.option("--proxy", "url", help=f"Index URL of the running proxy.  [default: {DEFAULT_PROXY}]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Configuration, for when no proxy runs.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory, for when no proxy runs.")
@click.option(
    "--python", "pythons", multiple=True, metavar="3.X", help="Python to fetch for; may be repeated.  [default: this one]"
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    metavar="TAG",
    help="Platform tag to fetch for, such as manylinux_2_28_x86_64; may be repeated.  [default: this one]",
)
@click.option("--implementation", default="cp", show_default=True, help="cp (CPython) or pp (PyPy).")
@click.option("--universal", is_flag=True, help="For all platforms and Python versions.")
@click.option("--no-deps", is_flag=True, help="Only what is named.")
@click.option("--only-binary", is_flag=True, help="No source archives.")
@click.option("--sdists", is_flag=True, help="Source archives as well, not only where no wheel fits.")
@click.option("--latest", type=click.IntRange(min=1), metavar="N", help="The newest N versions of each named project as well.")
@click.option("--all-files", is_flag=True, help="All files of each version.")
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Requests at once.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write what came of it to this file, as JSON.")
@click.option("--dry-run", is_flag=True, help="Resolve and choose, but fetch no file.")
def warm(
    requirements: tuple[str, ...],
    files: tuple[Path, ...],
    constraints: tuple[Path, ...],
    extras: tuple[str, ...],
    groups: tuple[str, ...],
    url: str | None,
    config_file: Path | None,
    data_dir: Path | None,
    pythons: tuple[str, ...],
    platforms: tuple[str, ...],
    implementation: str,
    universal: bool,
    no_deps: bool,
    only_binary: bool,
    sdists: bool,
    latest: int | None,
    all_files: bool,
    jobs: int,
    report_file: Path | None,
    dry_run: bool,
) -> None:
    """Have in the proxy's cache all that installing REQUIREMENTS and the files given with -r will ask for.

    Works on the proxy that runs at --proxy; when none runs there and --proxy was not given, on the data directory itself.
    Exits with status 0 when all is there, 1 when something failed (the rest is fetched all the same), 2 on wrong usage and
    130 when it was stopped.
    """
    if not requirements and not files:
        raise click.UsageError("nothing to warm: name requirements, or files with -r")
    if universal and (pythons or platforms):
        raise click.UsageError("--universal means all platforms and versions: it excludes --python and --platform")
    try:
        wanted = () if universal else tuple(targets(pythons, platforms, implementation))
    except BadTarget as error:
        raise click.UsageError(str(error)) from error
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise click.UsageError(f"--proxy {url}: expected the URL of an index, such as {DEFAULT_PROXY}")
    read_groups = [read_arguments(requirements)] if requirements else []
    read_groups += [read(file) for file in files]
    plan = Plan(read_groups, wanted, Choice(only_binary, sdists, all_files), latest or 0, dry_run)
    wishes = Wishes(not no_deps, only_binary, universal, extras, groups, constraints)
    where = _Where(_slashed(url or DEFAULT_PROXY), url is not None, config_file, data_dir)

    async def work(reactor: Any) -> int:
        return await _warm(reactor, where, plan, wishes, jobs, report_file)

    _react(work)


def _slashed(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"


def _react(work: Callable[[Any], Awaitable[int]]) -> None:
    """Run *work* on the reactor and exit with the status it gives.  SIGINT and SIGTERM cancel it."""

    def begin(reactor: Any) -> Deferred[None]:
        running: Deferred[int] = Deferred.fromCoroutine(_status(work, reactor))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(running.cancel))
        return running.addCallback(_exit)

    react(begin)


async def _status(work: Callable[[Any], Awaitable[int]], reactor: Any) -> int:
    return await work(reactor)


def _exit(status: int) -> None:
    raise SystemExit(status)


async def _warm(reactor: Any, where: _Where, plan: Plan, wishes: Wishes, jobs: int, report_file: Path | None) -> int:
    console = Console(stderr=False)
    try:
        async with _proxy(reactor, where, console) as url:
            with tempfile.TemporaryDirectory(prefix="pypiproxy-warm-") as cache:
                report = await _run(reactor, url, plan, wishes, jobs, Path(cache), console)
    except (Unreachable, ConfigError) as error:
        click.echo(f"pypiproxy warm: {error}", err=True)
        return 1
    for line in report.lines(dry=plan.dry):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report_file is not None:
        report_file.write_text(json.dumps(report.document(), indent=1) + "\n", "utf-8")
    return report.status


async def _run(reactor: Any, url: str, plan: Plan, wishes: Wishes, jobs: int, cache: Path, console: Console) -> Report:
    fetcher = Fetcher(url, jobs, reactor)
    progress = Bar(console) if console.is_terminal else Lines(console)
    try:
        with progress:
            return await Run(plan, fetcher, Resolver(url, cache, wishes, reactor), progress, reactor.seconds).go()
    finally:
        await fetcher.close()


@asynccontextmanager
async def _proxy(reactor: Any, where: _Where, console: Console) -> Any:
    """The index URL of the proxy to be warmed, served by this very process if nobody else does."""
    fetcher = Fetcher(where.url, 1, reactor)
    try:
        await fetcher.answers()
        yield where.url
        return
    except Unreachable as error:
        if where.named:
            raise Unreachable(f"{error}; start the proxy there, or leave --proxy out to work on the data directory") from error
    finally:
        await fetcher.close()
    from proxy.service import build

    settings = config.load(where.config, config.CommandLine(listen=(_LOOPBACK,), data_dir=where.data_dir))
    claim = datadir.claim(settings.server.data_dir)
    try:
        service = build(settings, reactor)
        service.startService()
        try:
            (port,) = service.listenings[0].ports
            host: Any = port.getHost()
            console.print(
                f"no proxy runs at {where.url}: working on {settings.server.data_dir} directly",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            yield f"http://127.0.0.1:{host.port}/simple/"
        finally:
            await service.stopService()
    finally:
        claim.release()
