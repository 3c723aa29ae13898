"""``pypiproxy reload`` and ``pypiproxy config diff``: have a changed configuration take effect, or see what it would change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from proxy.commands.lazily import Command, LazyGroup
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import note

_NOT_RUNNING = ": start it, and it reads its configuration"


@click.command()
@options
def reload(place: ProxyPlace) -> None:
    """Have the running proxy read its configuration again, without a restart.

    The proxy reads the file and the environment that it was started with; the options of this command only say which proxy is
    meant.  The file is checked as a whole: if it has a mistake, nothing changes.  Prints what has changed, what changes with
    the next restart only, and what happens to indexes that were added, removed or renamed.  No request fails meanwhile.

    Exit status: 1 if the configuration was refused.
    """
    answer = place.ask("reload", running=_NOT_RUNNING)
    if place.as_json:
        say(answer)
        return
    if not answer["changes"]:
        note("the configuration was read again: nothing to change")
    _show(answer, "takes effect when the proxy is restarted")


@click.group(
    "config",
    cls=LazyGroup,
    commands={"diff": Command("proxy.commands.reload:config_diff", "Show what a reload would change.")},
)
def config_group() -> None:
    """Compare a configuration file with the configuration of the running proxy."""


@click.command("diff")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@options
def config_diff(place: ProxyPlace, file: Path | None) -> None:
    """Show what a reload would change if the configuration were that in FILE (without FILE: the proxy's own file as it is now).

    The running proxy reads FILE, with its own environment and command-line options.  Without --config and --data-dir it is the
    proxy with the data directory of FILE.  Secrets are not shown.

    Exit status: 0 if nothing would change, 1 if anything would, 2 if FILE is wrong or no proxy runs.
    """
    if place.config is None and place.data_dir is None:
        place = ProxyPlace(file, None, place.as_json)
    given = None if file is None else str(file.absolute())
    try:
        answer = place.ask(
            "config_diff", running=": there is nothing to compare with; pypiproxy check-config validates a file", file=given
        )
    except SystemExit as error:
        raise SystemExit(2 if error.code == 1 else error.code) from None
    if place.as_json:
        say(answer)
    else:
        _show(answer, "would take effect when the proxy is restarted")
    if answer["changes"]:
        raise SystemExit(1)


def _show(answer: dict[str, Any], later: str) -> None:
    """Print what an *answer* says has changed; *later* is said of what needs a restart."""
    for each in answer["changes"]:
        old, new = ("none" if value is None else value for value in (each["old"], each["new"]))
        click.echo(f"{each['key']}: {old} -> {new}" + (f" ({later})" if each["needs_restart"] else ""))
    for words in answer["notes"]:
        note(words)
