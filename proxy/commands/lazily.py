"""A group of commands that imports the module of one when that one is run, and none to list them.

All commands have ``--quiet``, and end with status 130 when they are interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem
from msgspec import Struct

from proxy.commands.speaking import interrupted, quiet_option
from proxy.core.near import suggested

_QUIET = "--quiet"


class Command(Struct, frozen=True):
    """Where a command is defined, as ``module:name``, and what the list of commands says of it (at most 45 characters)."""

    place: str
    summary: str


class LazyGroup(click.Group):
    """A group of *commands*, by name."""

    def __init__(self, *args: Any, commands: Mapping[str, Command], **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = self._places.get(cmd_name)
        if found is None:
            return None
        module, _, name = found.place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        if not any(_QUIET in each.opts for each in command.params):
            command.params.append(quiet_option())
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._places and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}{suggested(name, self._places)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            interrupted()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._places[name].summary) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [
            CompletionItem(name, help=self._places[name].summary)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]
