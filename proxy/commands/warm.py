"""``pypiproxy warm``: have in the cache what builds will ask for."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from attrs import frozen
from rich.console import Console
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from proxy import config, datadir
from proxy.commands import asking
from proxy.config import quantities
from proxy.errors import ConfigError, ProxyError
from proxy.settings import LEAST_INTERVAL, Settings
from proxy.warm.choosing import Choice
from proxy.warm.fetching import Fetcher, Unreachable
from proxy.warm.following import follow as follow_up
from proxy.warm.inputs import Problem, lately, read, read_arguments
from proxy.warm.progress import Bar, Lines
from proxy.warm.report import Report
from proxy.warm.resolving import Resolver, Wishes
from proxy.warm.run import Plan, Run
from proxy.warm.targets import BadTarget, Target, targets

DEFAULT_PROXY = "http://127.0.0.1:3143/simple/"
_LOOPBACK = "tcp:0:interface=127.0.0.1"


@frozen
class _Where:
    """Which proxy: the one at *url*; or, if nobody is there and it was not named, one of our own over the data directory."""

    url: str
    named: bool
    config: Path | None
    data_dir: Path | None

    def settings(self, listen: tuple[str, ...] = ()) -> Settings:
        """What a proxy would use that is started with the same options.  Raises ConfigError."""
        return config.load(self.config, config.CommandLine(listen=listen, data_dir=self.data_dir))

    async def perform(self, operation: str, **arguments: Any) -> Any:
        """Have the running proxy perform *operation*, through the admin socket in its data directory.  Raises asking.Failed."""
        data_dir = self.settings().server.data_dir
        try:
            return await deferToThread(asking.ask, data_dir, operation, arguments, lambda said: None)
        except asking.NotRunning as error:
            raise asking.Failed(
                f"{error}: --pin and --recent need the data directory of the proxy at {self.url}; name it with --data-dir"
            ) from error


@frozen
class _Asked:
    """What the options say."""

    requirements: tuple[str, ...]
    files: tuple[Path, ...]
    recent: float | None
    targets: tuple[Target, ...]
    choice: Choice
    latest: int
    dry: bool
    pin: bool
    wishes: Wishes
    jobs: int
    #: Between two looks (seconds); ``None``: one look.
    interval: float | None
    report_file: Path | None


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return quantities.duration(value)
    except ValueError:
        raise click.BadParameter(f'{value!r}: expected a duration such as "90s", "1h" or "30d"') from None


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
@click.option("--data-dir", "-d", type=click.Path(path_type=Path), help="Data directory, for when no proxy runs.")
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
@click.option("--pin", is_flag=True, help="What was fetched never makes room for other files (see pypiproxy pin).")
@click.option("--follow", is_flag=True, help="Go on looking for new versions until it is stopped.")
@click.option("--interval", default="1h", show_default=True, callback=_duration, help="Pause between two looks of --follow.")
@click.option(
    "--recent",
    metavar="TIME",
    callback=_duration,
    help="The newest version of every project that was asked for within this time as well, such as 30d.",
)
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
    pin: bool,
    follow: bool,
    interval: float,
    recent: float | None,
) -> None:
    """Have in the proxy's cache all that installing REQUIREMENTS and the files given with -r will ask for.

    Works on the proxy that runs at --proxy; when none runs there and --proxy was not given, on the data directory itself.
    Exits with status 0 when all is there, 1 when something failed (the rest is fetched all the same), 2 on wrong usage and
    130 when it was stopped.
    """
    if not requirements and not files and recent is None:
        raise click.UsageError("nothing to warm: name requirements, files with -r, or a time with --recent")
    if follow and (dry_run or interval < LEAST_INTERVAL):
        raise click.UsageError(f"--follow goes with an --interval of at least {LEAST_INTERVAL:g}s, and not with --dry-run")
    if universal and (pythons or platforms):
        raise click.UsageError("--universal means all platforms and versions: it excludes --python and --platform")
    try:
        wanted = () if universal else tuple(targets(pythons, platforms, implementation))
    except BadTarget as error:
        raise click.UsageError(str(error)) from error
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise click.UsageError(f"--proxy {url}: expected the URL of an index, such as {DEFAULT_PROXY}")
    asked = _Asked(
        requirements,
        files,
        recent,
        wanted,
        Choice(only_binary, sdists, all_files),
        latest or 0,
        dry_run,
        pin,
        Wishes(not no_deps, only_binary, universal, extras, groups, constraints),
        jobs,
        interval if follow else None,
        report_file,
    )
    where = _Where(_slashed(url or DEFAULT_PROXY), url is not None, config_file, data_dir)
    _react(lambda reactor: _warm(reactor, where, asked))


def _slashed(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"


def _react(work: Callable[[Any], Awaitable[int]]) -> None:
    """Run *work* on the reactor and exit with the status it gives.  SIGINT and SIGTERM cancel it."""

    def begin(reactor: Any) -> Deferred[None]:
        running: Deferred[int] = Deferred.fromCoroutine(_status(work, reactor))

        def heed() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: reactor.callFromThread(running.cancel))

        reactor.callWhenRunning(heed)  # when the reactor runs it has just set handlers of its own
        return running.addCallback(_exit)

    react(begin)


async def _status(work: Callable[[Any], Awaitable[int]], reactor: Any) -> int:
    return await work(reactor)


def _exit(status: int) -> None:
    raise SystemExit(status)


async def _warm(reactor: Any, where: _Where, asked: _Asked) -> int:
    console = Console()

    def tell(report: Report) -> bool:
        """Whether the report could be written."""
        for line in report.lines(dry=asked.dry):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if asked.report_file is not None:
            try:
                asked.report_file.write_text(json.dumps(report.document(), indent=1) + "\n", "utf-8")
            except OSError as error:
                click.echo(f"pypiproxy warm: --report {asked.report_file}: cannot be written: {error.strerror}", err=True)
                return False
        return True

    try:
        async with _proxy(reactor, where, console) as found:
            with tempfile.TemporaryDirectory(prefix="pypiproxy-warm-") as cache:

                async def look() -> Report:
                    return await _look(reactor, found, asked, Path(cache), console)

                if asked.interval is None:
                    report = await look()
                else:
                    report = await follow_up(look, asked.interval, reactor, tell)
    except CancelledError:
        return 130  # between two looks
    except (Unreachable, ConfigError, asking.Failed) as error:
        click.echo(f"pypiproxy warm: {error}", err=True)
        return 1
    if not tell(report):
        return report.status or 1
    return report.status


async def _look(reactor: Any, found: _Found, asked: _Asked, cache: Path, console: Console) -> Report:
    groups = [read_arguments(asked.requirements)] if asked.requirements else []
    groups += [read(file) for file in asked.files]
    if asked.recent is not None:
        names = await found.perform("recent", seconds=asked.recent)
        groups += [lately(names)] if names else []
    plan = Plan(groups, asked.targets, asked.choice, asked.latest, asked.dry)
    fetcher = Fetcher(found.url, asked.jobs, reactor)
    progress = Bar(console) if console.is_terminal else Lines(console)
    try:
        with progress:
            report = await Run(plan, fetcher, Resolver(found.url, cache, asked.wishes, reactor), progress, reactor.seconds).go()
    finally:
        await fetcher.close()
    if asked.pin and not asked.dry:
        await _pin(found, report)
    return report


async def _pin(found: _Found, report: Report) -> None:
    for outcome in report.there:
        try:
            await found.perform("pin", project=outcome.project, which=outcome.filename)
        except (ProxyError, asking.Failed) as error:
            report.problems.append(Problem(outcome.filename, f"cannot be pinned: {error}"))


@frozen
class _Found:
    """The proxy that is warmed: its index, and how to have operations performed (see :mod:`proxy.administration`)."""

    url: str
    perform: Callable[..., Awaitable[Any]]


async def _answers(reactor: Any, where: _Where) -> bool:
    """Whether a proxy runs there.  Raises Unreachable when it does not and was named."""
    fetcher = Fetcher(where.url, 1, reactor)
    try:
        await fetcher.answers()
    except Unreachable as error:
        if where.named:
            raise Unreachable(f"{error}; start the proxy there, or leave --proxy out to work on the data directory") from error
        return False
    finally:
        await fetcher.close()
    return True


@asynccontextmanager
async def _proxy(reactor: Any, where: _Where, console: Console) -> AsyncIterator[_Found]:
    """The proxy to be warmed: the one that runs, or this very process if none does."""
    # A data directory that was named alone is meant, whatever proxy of other data runs at the usual address.
    if (where.named or (where.config is None and where.data_dir is None)) and await _answers(reactor, where):
        yield _Found(where.url, where.perform)
        return
    from proxy.service import build

    settings = where.settings(listen=(_LOOPBACK,))
    try:
        claim = datadir.claim(settings.server.data_dir)
    except ConfigError as error:
        raise ConfigError(f"data directory {error}; or name the proxy that runs, with --proxy") from error
    try:
        service = build(settings, reactor)
        service.startService()

        async def perform(operation: str, **arguments: Any) -> Any:
            return await service.administration.operations[operation](lambda said: None, **arguments)

        try:
            text = f"no proxy runs: working on {settings.server.data_dir} directly"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            yield _Found(f"{service.listenings[0].local_url()}simple/", perform)
        finally:
            await service.stopService()
    finally:
        claim.release()
