"""``pypiproxy serve``: what ``twistd pypiproxy`` runs, in the foreground."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import click


def _offering(*values: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What the shell completes the beginning of one of *values* to."""
    return lambda context, option, begun: [each for each in values if each.startswith(begun)]


@click.command()
@click.option("--config", "-c", metavar="FILE", help="Configuration file in TOML.")
@click.option(
    "--data-dir",
    "-d",
    metavar="DIR",
    help="Directory for all data.  [default: pypiproxy in the user's data directory]",
)
@click.option(
    "--listen",
    "-l",
    metavar="ADDRESS",
    multiple=True,
    help="Port, address:port, [IPv6]:port or Twisted endpoint to listen on; may be repeated.  [default: 127.0.0.1:3143]",
)
@click.option("--port", metavar="PORT", multiple=True, help="Port to listen on at 127.0.0.1; may be repeated.")
@click.option(
    "--upstream",
    "-u",
    metavar="URL",
    multiple=True,
    help="URL of a simple index, or a name from the configuration; may be repeated, the preferred one first.  [default: pypi]",
)
@click.option(
    "--log-format",
    metavar="FORMAT",
    shell_complete=_offering("text", "json"),
    help="text, or json for one object per line.  [default: text]",
)
@click.option(
    "--log-level",
    metavar="LEVEL",
    shell_complete=_offering("debug", "info", "warn", "error"),
    help="Least important messages to log: debug, info, warn or error.  [default: info]",
)
@click.option(
    "--access-log",
    metavar="FORM",
    shell_complete=_offering("off", "short", "full"),
    help="Line per request: off, short (about 120 characters) or full.  [default: short]",
)
def serve(**given: Any) -> None:
    """Run the proxy in the foreground, until SIGTERM or Ctrl-C.

    The options are those of "twistd pypiproxy", which can also run it as a daemon.  Exits with status 1 and one message if the
    configuration, the data directory or a port cannot be used.
    """
    gc.disable()  # as proxy.tap has it, which is about to be imported too
    # These take longer to import than any other command needs to run.
    from twisted.application.service import ServiceMaker
    from twisted.python.usage import UsageError
    from twisted.scripts import twistd

    plugin = ServiceMaker("pypiproxy", "proxy.tap", "", "pypiproxy")

    class Options(twistd.ServerOptions):  # type: ignore[name-defined,misc]  # it is documented, but not in __all__
        """Those of twistd, which knows no other service here and so need not look for any."""

        @property
        def subCommands(self) -> Iterable[tuple[str, None, Any, str]]:
            self.loadedPlugins = {plugin.tapname: plugin}
            return [(plugin.tapname, None, plugin.options, plugin.description)]

    options = Options()
    try:
        options.parseOptions(["--nodaemon", "--pidfile=", plugin.tapname, *_arguments(given)])
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    twistd.runApp(options)


def _arguments(given: dict[str, Any]) -> list[str]:
    """What was *given* to this command, as twistd's is given it."""
    return [
        f"--{name.replace('_', '-')}={each}"
        for name, value in given.items()
        for each in ((value,) if isinstance(value, str) else value or ())
    ]
