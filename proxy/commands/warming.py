"""One run of ``pypiproxy warm``, or one look after another: finding the proxy or being it, telling what came of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from msgspec import Struct
from rich.console import Console
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread

from proxy import config
from proxy.commands import asking
from proxy.commands.directory import LOOPBACK
from proxy.commands.speaking import note, quiet
from proxy.errors import ConfigError
from proxy.host import datadir
from proxy.host.listening import speaks_tls
from proxy.host.ports import reached_at
from proxy.settings import Settings
from proxy.simple.links import bare, shown
from proxy.warm.fetching import Fetcher, NoTls, Unreachable
from proxy.warm.following import follow
from proxy.warm.looking import Goal, Warmed, look
from proxy.warm.progress import Bar, Lines, Quiet
from proxy.warm.report import WarmReport


class Where(Struct, frozen=True):
    """Which proxy: the one at *url* if that was *named*, or if no data directory is; else the one that works on the directory.

    If none does, that is this process.
    """

    url: str
    named: bool
    config: Path | None
    data_dir: Path | None

    def settings(self, listen: tuple[str, ...] = ()) -> Settings:
        """What a proxy would use that is started with the same options.  Raises ConfigError."""
        return config.load(self.config, config.CommandLine(listen=listen, data_dir=self.data_dir))

    def listening(self) -> str:
        """An option's value: the URL at which a proxy with this configuration is reached; empty where that is not known."""
        if self.config is None:
            return ""
        plain = (reached_at(each) for each in self.settings().server.listen if not speaks_tls(each))
        reached = next((each for each in plain if each is not None), None)
        if reached is None:
            return ""
        host, port = reached
        return f" http://[{host}]:{port}" if ":" in host else f" http://{host}:{port}"

    async def running(self) -> str | None:
        """The index to be warmed of the proxy that runs on the data directory, ``None`` if none does.

        Raises asking.OperationFailed.
        """
        try:
            url: str = await deferToThread(asking.ask, self.settings().server.data_dir, "warm", {}, lambda said: None)
        except asking.NotRunning:
            return None
        except asking.OperationFailed as error:
            raise asking.OperationFailed(f"{error}; name the proxy that runs, with --proxy{self.listening()}") from error
        return url

    async def perform(self, operation: str, **arguments: Any) -> Any:
        """Have the running proxy perform *operation*, through the admin socket in its data directory.

        Raises asking.OperationFailed.
        """
        data_dir = self.settings().server.data_dir
        try:
            return await deferToThread(asking.ask, data_dir, operation, arguments, lambda said: None)
        except asking.NotRunning as error:
            raise asking.OperationFailed(
                f"{error}: --pin and --recent need the data directory of the proxy at {shown(self.url)}; "
                "name it with --data-dir"
            ) from error


class Asked(Struct, frozen=True):
    """What the options say."""

    goal: Goal
    #: Between two looks (seconds); ``None``: one look.
    interval: float | None
    report_file: Path | None


async def warm_up(reactor: Any, where: Where, asked: Asked) -> int:
    """Do what is *asked* and say what came of it; the exit status."""
    console, remote = Console(), ""

    def tell(report: WarmReport) -> bool:
        """Whether the report could be written."""
        for failure in report.failures:
            click.echo(f"failed: {failure}", err=True)
        if not quiet():
            for line in report.lines(dry=asked.goal.dry, proxy=remote):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if asked.report_file is not None:
            try:
                asked.report_file.write_text(json.dumps(report.document(), indent=1) + "\n", "utf-8")
            except OSError as error:
                click.echo(f"pypiproxy warm: --report {asked.report_file}: cannot be written: {error.strerror}", err=True)
                return False
        return True

    try:
        async with _proxy(reactor, where) as found:
            remote = shown(bare(found.url)) if found.remote else ""
            with tempfile.TemporaryDirectory(prefix="pypiproxy-warm-") as cache:

                async def one_look() -> WarmReport:
                    progress = Quiet() if quiet() else Bar(console) if console.is_terminal else Lines(console)
                    return await look(asked.goal, found, Path(cache), progress, reactor)

                if asked.interval is None:
                    report = await one_look()
                else:
                    report = await follow(one_look, asked.interval, reactor, tell)
    except CancelledError:
        return 130  # between two looks
    except (Unreachable, ConfigError, asking.OperationFailed) as error:
        click.echo(f"pypiproxy warm: {error}", err=True)
        return 1
    if not tell(report):
        return report.status or 1
    return report.status


async def _index_url(reactor: Any, where: Where) -> str | None:
    """The index that is warmed of the proxy that runs there, also where the proxy's address alone was named.

    ``None`` when none runs there.  Raises Unreachable when none does and it was named.
    """
    fetcher = Fetcher(where.url, 1, reactor)
    try:
        await fetcher.answers()
        below = None if where.url.endswith("/simple/") else await fetcher.index_below()
    except NoTls:
        raise
    except Unreachable as error:
        if where.named:
            raise Unreachable(f"{error}; start the proxy there, or leave --proxy out to work on the data directory") from error
        return None
    finally:
        await fetcher.close()
    return below or where.url


@asynccontextmanager
async def _proxy(reactor: Any, where: Where) -> AsyncIterator[Warmed]:
    """The proxy to be warmed: the one that runs, or this very process if none does."""
    # A data directory that was named alone is meant, whatever proxy of other data runs at the usual address.
    if where.named or (where.config is None and where.data_dir is None):
        url = await _index_url(reactor, where)
        if url is not None:
            yield Warmed(url, where.perform, remote=True)
            return
    url = await where.running()
    if url is not None:
        yield Warmed(url, where.perform, remote=True)
        return
    from proxy.service import build

    settings = where.settings(listen=(LOOPBACK,))
    try:
        claim = datadir.claim(settings.server.data_dir)
    except ConfigError as error:
        running = f"name the proxy that runs, with --proxy{where.listening()}"
        raise ConfigError(f"{running}; or else, data directory {error}") from error
    try:
        service = build(settings, reactor)
        service.startService()
        try:
            text = f"no proxy runs: working on {settings.server.data_dir} directly"
            note(text)
            yield Warmed(service.own_index_url(), service.administration.perform)
        finally:
            await service.stopService()
    finally:
        claim.release()
