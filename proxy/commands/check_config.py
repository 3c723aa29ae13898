"""``pypiproxy check-config``: validate a configuration file, and list the indexes that it would serve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from proxy.commands import asking
from proxy.commands.speaking import fail, note
from proxy.composition.exposed import exposed
from proxy.composition.starting import ConfigSource
from proxy.config.effective import effective
from proxy.doctor.directory import directory_findings
from proxy.doctor.findings import Grade
from proxy.errors import ConfigError
from proxy.host.banner import served
from proxy.host.ports import port_trouble
from proxy.settings import Settings

#: Seconds for which a running proxy may be silent.
_PATIENCE = 5.0


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--config", "-c", "option", type=click.Path(path_type=Path), help="The same as FILE.")
@click.option("--show", is_flag=True, help="Print the effective configuration as TOML, with secrets masked.")
@click.option("--skip-ports", is_flag=True, help="Do not test whether the ports can be used (for another machine's file).")
def check_config(file: Path | None, option: Path | None, show: bool, skip_ports: bool) -> None:
    """Validate the configuration FILE and list the indexes it would serve (without FILE: the defaults).

    Finds every mistake that would keep the proxy from starting, and ports that are privileged or in use by another program.
    Warns of a data directory that the user who runs this command cannot use, and of files with secrets that every user of the
    machine can read.  While a proxy runs on the data directory, URLs of
    upstreams that it found to be wrong are listed too.

    Exit status: 1 if the configuration cannot be used.
    """
    # Some endpoints are made for a reactor; importing it installs one, which no other command needs.
    from twisted.internet import reactor

    if file is not None and option is not None:
        raise click.UsageError("expected either FILE or --config FILE, not both")
    file = file or option
    try:
        settings = ConfigSource(file).read(reactor)
    except ConfigError as error:
        fail(str(error))
    states = _states(settings)
    # A port of the running proxy itself is in use, as it should be.
    if states is None and not skip_ports:
        troubles = [(each, port_trouble(each.endpoint)) for each in ConfigSource(file).listens(settings)]
        if problems := [f'{each.where} = "{each.endpoint}": {why}' for each, why in troubles if why]:
            fail("\n".join(problems))
    if show:
        click.echo(effective(settings), nl=False)
        return
    note(f"{file or 'defaults'}: fine")
    for line in summary(settings, better_urls(states or ())):
        note(line)
    for each in directory_findings(settings.server.data_dir, os.geteuid()):
        if each.grade is Grade.FAULT:
            note(f"  warning: {each.seen}: {each.advice}")
    for line in exposed(settings):
        note(f"  warning: {line}")


def _states(settings: Settings) -> list[dict[str, Any]] | None:
    """The upstreams of the proxy that runs with *settings*; ``None`` when none runs.  Upstreams are not asked."""
    try:
        states: list[dict[str, Any]] = asking.ask(settings.server.data_dir, "upstreams", {}, lambda said: None, _PATIENCE)
    except asking.NotRunning:
        return None
    except asking.OperationFailed:
        return []
    return states


def better_urls(states: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The URLs that have the pages which configured ones lack, by those, of upstreams with these *states*."""
    return {state["url"]: better for state in states if (better := state.get("better_url")) is not None}


def summary(settings: Settings, better: Mapping[str, str]) -> list[str]:
    """What *settings* serve, from what, and where; one line each.  *better* is as for `better_urls`."""
    addresses = {upstream.name: upstream.url for upstream in settings.upstreams}
    lines = [f"  listens on {', '.join(settings.server.listen)}", f"  keeps data in {settings.server.data_dir}"]
    if settings.server.metrics_listen:
        lines.insert(1, f"  serves metrics on {', '.join(settings.server.metrics_listen)}")
    if settings.server.probe_listen:
        lines.insert(1, f"  answers probes on {', '.join(settings.server.probe_listen)} too")
    if settings.server.dashboard_listen:
        lines.insert(1, f"  serves the dashboard on {', '.join(settings.server.dashboard_listen)}")
    if settings.server.trusted_proxies:
        believed = ", ".join(settings.server.trusted_proxies)
        lines.append(f"  believes {believed} about the addresses of clients (trusted_proxies)")
    lines += [f"  serves {each}" for each in served(settings)]
    lines += [
        f"  warning: upstream.{name}.url = {url} has no pages, and {better[url]} has: set it to that (the running proxy found)"
        for name, url in addresses.items()
        if url in better
    ]
    lines += [
        f"  note: upstream.{name}.url = {url} does not end in /simple/, as the URLs of most indexes do; "
        f"if every project of it answers 404, set it to {url}simple/"
        for name, url in addresses.items()
        if not url.endswith("/simple/") and url not in better
    ]
    return lines
