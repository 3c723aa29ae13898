"""The ``pypiproxy`` command: running the service, and what operators do besides that."""

from __future__ import annotations

import click

import proxy
from proxy.commands.lazily import Command, LazyGroup

COMMANDS = {
    "backup": Command("proxy.commands.backup:backup", "Write a copy of the data directory to a file."),
    "check-config": Command("proxy.commands.check_config:check_config", "Validate a configuration file."),
    "claims": Command("proxy.commands.claims:claims", "List and decide which index owns a name."),
    "client-config": Command("proxy.commands.client_config:client_config", "Print the settings for a client."),
    "config": Command("proxy.commands.reload:config_group", "Compare a configuration with the running one."),
    "delete": Command("proxy.commands.editing:delete", "Delete files of a hosted index."),
    "doctor": Command("proxy.commands.doctor:doctor", "Examine the host or a client, say what to do."),
    "export": Command("proxy.commands.export:export", "Write projects to a bundle file."),
    "hosted": Command("proxy.commands.hosted:hosted", "Check or fill a hosted index."),
    "import": Command("proxy.commands.import_:import_", "Add the contents of a bundle to the cache."),
    "ls": Command("proxy.commands.stock:ls", "List the projects with stored files."),
    "pin": Command("proxy.commands.pin:pin", "Protect stored files from eviction."),
    "pins": Command("proxy.commands.pin:pins", "List the pinned files."),
    "promote": Command("proxy.commands.editing:promote", "Copy a release to another hosted index."),
    "purge": Command("proxy.commands.purge:purge", "Remove projects, releases or files."),
    "refresh": Command("proxy.commands.refresh:refresh", "Ask upstream for a page now."),
    "reload": Command("proxy.commands.reload:reload", "Read the configuration again, no restart."),
    "restore": Command("proxy.commands.backup:restore", "Create a data directory from a backup."),
    "serve": Command("proxy.commands.serve:serve", "Run the proxy in the foreground."),
    "stats": Command("proxy.commands.stock:stats", "Show what is stored, and the hit rates."),
    "status": Command("proxy.commands.editing:project_status", "Show or set the status of a project."),
    "token": Command("proxy.commands.tokens:token", "Create, list, revoke and narrow tokens."),
    "unpin": Command("proxy.commands.pin:unpin", "Allow pinned files to be evicted again."),
    "unyank": Command("proxy.commands.editing:unyank", "Take back a yank."),
    "upstreams": Command("proxy.commands.upstreams:upstreams", "Show the state of each upstream."),
    "user": Command("proxy.commands.users:user", "Add and remove users, set passwords."),
    "verify": Command("proxy.commands.verify:verify", "Compare stored files with their digests."),
    "version": Command("proxy.commands.version:version", "Print the version."),
    "warm": Command("proxy.commands.warm:warm", "Prefetch packages into the cache."),
    "yank": Command("proxy.commands.editing:yank", "Mark a hosted release as withdrawn."),
}


@click.group(cls=LazyGroup, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(proxy.__version__, "-V", "--version", prog_name="pypiproxy", message="%(prog)s %(version)s")
def main() -> None:
    """Run and administer a caching proxy for Python package indexes."""
