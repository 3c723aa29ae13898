"""``pypiproxy check-config``: whether a configuration file can be used, and what would be served with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from proxy import config
from proxy.commands import asking
from proxy.composition.exposed import exposed
from proxy.errors import ConfigError
from proxy.host import listening
from proxy.host.banner import paths, sources
from proxy.settings import Settings

#: Seconds for which a running proxy may be silent.
_PATIENCE = 5.0


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Say whether FILE can be used and what would be served with it (without FILE: with the defaults).

    Exits with status 1 and the message that the start would give when it cannot.  Does not look whether a port is free and
    the data directory can be written.  Warns of files with secrets that every user of the machine can read.  If a proxy runs on
    that directory, says which URLs of upstreams it found to be wrong.
    """
    # Some endpoints are made for a reactor; importing it installs one, which no other command needs.
    from twisted.internet import reactor

    try:
        settings = config.load(file)
        for description in settings.server.listen:
            try:
                listening.endpoint(description, reactor)
            except ConfigError as error:
                raise ConfigError(f"{config.where('listen', file)} = {error}") from error
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(f"{file or 'defaults'}: fine")
    for line in summary(settings, better_urls(settings)):
        click.echo(line)
    for line in exposed(settings):
        click.echo(f"  warning: {line}")


def better_urls(settings: Settings) -> dict[str, str]:
    """The URLs that have the pages which configured ones lack, by those, as found by the proxy that runs with *settings*.

    Nothing when none runs or it does not answer soon: upstreams are not asked.
    """
    try:
        states = asking.ask(settings.server.data_dir, "upstreams", {}, lambda said: None, _PATIENCE)
    except (asking.NotRunning, asking.OperationFailed):
        return {}
    return {state["url"]: better for state in states if (better := state.get("better_url")) is not None}


def summary(settings: Settings, better: Mapping[str, str]) -> list[str]:
    """What *settings* serve, from what, and where; a line each.  *better* is as for `better_urls`."""
    addresses = {upstream.name: upstream.url for upstream in settings.upstreams}
    lines = [f"  listens on {', '.join(settings.server.listen)}", f"  keeps data in {settings.server.data_dir}"]
    if settings.server.trusted_proxies:
        believed = ", ".join(settings.server.trusted_proxies)
        lines.append(f"  believes {believed} about the addresses of clients (trusted_proxies)")
    lines += [f"  serves {' and '.join(paths(index))} from {sources(index, addresses)}" for index in settings.indexes]
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
