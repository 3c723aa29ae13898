"""The ``pypiproxy`` command: running the service, and what an operator does beside that."""

from __future__ import annotations

import click

import proxy
from proxy.commands.lazily import Command, LazyGroup

COMMANDS = {
    "backup": Command("proxy.commands.backup:backup", "Write a copy of the data directory to a file."),
    "check-config": Command("proxy.commands.check_config:check_config", "Check a configuration file."),
    "client-config": Command("proxy.commands.client_config:client_config", "Print the settings for a client."),
    "export": Command("proxy.commands.export:export", "Write projects to a bundle file."),
    "import": Command("proxy.commands.import_:import_", "Take over the contents of a bundle file."),
    "ls": Command("proxy.commands.stock:ls", "List stored projects, or files of one."),
    "pin": Command("proxy.commands.pin:pin", "Protect stored files from eviction."),
    "pins": Command("proxy.commands.pin:pins", "List the pinned files."),
    "purge": Command("proxy.commands.purge:purge", "Remove projects, releases or files."),
    "refresh": Command("proxy.commands.refresh:refresh", "Ask upstream for a page now."),
    "restore": Command("proxy.commands.backup:restore", "Make a data directory out of a backup."),
    "serve": Command("proxy.commands.serve:serve", "Run the proxy in the foreground."),
    "stats": Command("proxy.commands.stock:stats", "Show sizes and hit rates."),
    "unpin": Command("proxy.commands.pin:unpin", "End the protection from eviction."),
    "upstreams": Command("proxy.commands.upstreams:upstreams", "Show the state of the upstreams."),
    "verify": Command("proxy.commands.verify:verify", "Check stored files against their digests."),
    "version": Command("proxy.commands.version:version", "Print the version."),
    "warm": Command("proxy.commands.warm:warm", "Fill the cache from requirement files."),
}


@click.group(cls=LazyGroup, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(proxy.__version__, "-V", "--version", prog_name="pypiproxy", message="%(prog)s %(version)s")
def main() -> None:
    """Run and look after a caching proxy for Python package indexes."""
