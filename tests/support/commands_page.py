"""``docs/reference/commands.md``, made from the commands: ``python -m tests.support.commands_page`` writes it anew."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from proxy.cli import COMMANDS, main
from tests.support.process import ROOT

PAGE = ROOT / "docs" / "reference" / "commands.md"

_HEAD = """\
# Commands

All commands of `pypiproxy`, as `--help` explains them. [Operations](../operations.md) describes when to use which, and
[Configuration](../configuration.md#command-line) how options, environment variables and the configuration file go together.

Every command has `--help` (`-h`), and `--quiet` (`-q`), with which it prints results and failures only. The exit status is 0
for success, 1 for a failure, which is explained on standard error, 2 for a usage error, and 130 if the command was interrupted.

| command | purpose |
|---|---|
"""
_FOOT = """
This page is generated from the definitions in the code (`python -m tests.support.commands_page`).
"""
#: What every command has.
_EVERYWHERE = {"--help", "--quiet"}


def page() -> str:
    """The text of the page."""
    context = click.Context(main, info_name="pypiproxy")
    listed = (f"| [`{name}`](#{name}) | {each.summary} |\n" for name, each in sorted(COMMANDS.items()))
    return "".join((_HEAD, *listed, *_commands(main, context, 2), _FOOT))


def _commands(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    """A section for each command of *group*, and below it for each command of that."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        below = click.Context(command, info_name=name, parent=context)
        path = below.command_path.removeprefix("pypiproxy ")
        usage = " ".join((below.command_path, *command.collect_usage_pieces(below)))
        yield f"\n{'#' * level} {path}\n\n```text\n{usage}\n```\n"
        for paragraph in (command.help or "").split("\n\n"):
            yield f"\n{_prose(paragraph)}\n"
        options = list(_options(command, below))
        if options:
            yield "\n| option | meaning |\n|---|---|\n"
            yield from options
        if isinstance(command, click.Group):
            yield from _commands(command, below, level + 1)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for each in command.get_params(context):
        record = None if _EVERYWHERE & set(each.opts) else each.get_help_record(context)
        if record is not None and record[1]:  # what an argument is, the text above says
            names, meaning = record
            yield f"| `{names.replace('|', chr(92) + '|')}` | {_prose(meaning)} |\n"


def _prose(text: str) -> str:
    """*text* in one line, without what Markdown would take for markup."""
    return re.sub(r"([*|<`])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
