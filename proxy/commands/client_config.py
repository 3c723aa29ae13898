"""``pypiproxy client-config``: what to set in an installer, or in a server that mirrors the proxy."""

from __future__ import annotations

import os

import click

from proxy.config import readers as read
from proxy.config.tables import Unacceptable
from proxy.core.clients import CLIENTS, Address, printed
from proxy.core.publishing import PUBLISHERS, printed_publishing
from proxy.host.clients import past_the_proxy


class _Clients(click.Choice[str]):
    """The names of clients: listed in one line, for they are many."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """What to say where none is named."""
        return f"Choose from {', '.join(self.choices)}"


@click.command("client-config")
@click.argument("client", type=_Clients(dict.fromkeys([*CLIENTS, *PUBLISHERS])), metavar="CLIENT")
@click.option("--url", "--proxy", default="http://127.0.0.1:3143", show_default=True, help="Where CLIENT reaches the proxy.")
@click.option("--index", metavar="NAME", help="An index of the proxy.  [default: the default one]")
@click.option("--ca-file", metavar="FILE", help="What signed the proxy's certificate, unless every system trusts it.")
@click.option("--publish", is_flag=True, help="What CLIENT needs to upload to the hosted --index.")
def client_config(client: str, url: str, index: str | None, ca_file: str | None, publish: bool) -> None:
    """Print what makes CLIENT ask the proxy, or publish to it: variables, files and commands, each under a line that says
    where it goes.

    Variables and configuration files of this machine that make CLIENT use other indexes are reported on standard error.

    The variables alone, for a shell: eval "$(pypiproxy client-config pip | grep ^export)"
    """
    if publish and client not in PUBLISHERS:
        raise click.UsageError(f"{client} uploads nothing; these do: {', '.join(PUBLISHERS)}")
    if publish and index is None:
        raise click.UsageError("--publish needs --index with the name of a hosted index")
    if not publish and client not in CLIENTS:
        raise click.UsageError(f"{client} installs nothing; print what it uploads with by --publish")
    try:
        if index is not None:
            read.name(index)
        address = Address.of(url, index, ca_file)
        text = printed_publishing(client, address) if publish else printed(client, address)
    except Unacceptable as refused:
        raise click.UsageError(f"--index {index}: expected {refused.expected}") from None
    except ValueError as error:
        raise click.UsageError(f"--url {url}: {error}") from None
    click.echo(text, nl=False)
    if publish:
        return
    for problem in past_the_proxy(client, address, os.environ):
        click.echo(f"on this machine: {problem}", err=True)
