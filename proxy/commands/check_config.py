"""``pypiproxy check-config``: whether a configuration file can be used, and what would be served with it."""

from __future__ import annotations

from pathlib import Path

import click

from proxy import config, listening
from proxy.errors import ConfigError
from proxy.settings import IndexSettings, Settings


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Say whether FILE can be used and what would be served with it (without FILE: with the defaults).

    Exits with status 1 and the message that the start would give when it cannot.  Looks at the file alone: whether a port
    is free and the data directory can be written shows at the start.
    """
    # Some endpoints are made for a reactor; importing it installs one, which no other command needs.
    from twisted.internet import reactor

    try:
        settings = config.load(file)
        for description in settings.server.listen:
            try:
                listening.endpoint(description, reactor)
            except ConfigError as error:
                raise ConfigError(f"{file}: server.listen = {error}") from error
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(f"{file or 'defaults'}: fine")
    for line in summary(settings):
        click.echo(line)


def summary(settings: Settings) -> list[str]:
    """What *settings* serve, from what, and where; a line each."""
    addresses = {upstream.name: upstream.url for upstream in settings.upstreams}
    lines = [f"  listens on {', '.join(settings.server.listen)}", f"  keeps data in {settings.server.data_dir}"]
    for index in settings.indexes:
        named = ", ".join(f"{name} <{addresses[name]}>" for name in index.upstreams if not index.offline)
        sources = "what is stored alone: it is offline" if index.offline else named
        lines.append(f"  serves {' and '.join(_paths(index))} from {sources}")
    lines += [
        f"  note: upstream.{name}.url = {url} does not end in /simple/, as the URLs of most indexes do; "
        f"if every project of it answers 404, set it to {url}simple/"
        for name, url in addresses.items()
        if not url.endswith("/simple/")
    ]
    return lines


def _paths(index: IndexSettings) -> list[str]:
    """Where clients find *index*."""
    named = f"/index/{index.name}/simple/"
    return ["/simple/", named] if index.default else [named]
