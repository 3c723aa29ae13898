"""``pypiproxy token``: what programs log in with."""

from __future__ import annotations

import os
from typing import Any

import click

from proxy.commands.lazily import Command, LazyGroup
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.secretly import a_token
from proxy.commands.speaking import fail, note
from proxy.commands.tables import show
from proxy.core.amounts import NONE, counted, moment

COMMANDS = {
    "create": Command("proxy.commands.tokens:create", "Create a token."),
    "list": Command("proxy.commands.tokens:list_tokens", "List the valid tokens."),
    "narrow": Command("proxy.commands.tokens:narrow", "Make a token that may do less."),
    "revoke": Command("proxy.commands.tokens:revoke", "Revoke tokens."),
}
_COLUMNS = (
    ("id", False),
    ("user", False),
    ("role", False),
    ("indexes", False),
    ("projects", False),
    ("expires", False),
    ("last used", False),
)


#: The longest that a token may be valid: a hundred years.  A clock that is out of that range has no date.
_LONGEST = 36_500 * 86_400.0


def duration_option(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """The seconds in an option that is a duration."""
    from proxy.config import quantities

    if value is None:
        return None
    try:
        seconds = quantities.seconds_in(value)
    except ValueError:
        raise click.BadParameter(f'{value!r}: expected a duration such as "90d" or "12h"') from None
    if not 0 < seconds <= _LONGEST:
        raise click.BadParameter(f"{value!r}: expected a duration above 0 and of at most 36500d")
    return seconds


@click.group(cls=LazyGroup, commands=COMMANDS)
def token() -> None:
    """Create, list, revoke and narrow tokens: what programs log in with, in the place of a password.

    A token is sent as the password, with any user name, or as a Bearer token.
    """


@click.command()
@click.option("--user", required=True, help="Whose token it is: uploads are noted as those of this user.")
@click.option("--role", help="What it may do: reader, uploader, maintainer or admin.  [default: what its user may]")
@click.option("--index", "indexes", multiple=True, help="Where it has the role; may be repeated.  [default: all]")
@click.option("--projects", multiple=True, metavar="PATTERN", help="For which projects; may be repeated.  [default: all]")
@click.option(
    "--expires", callback=duration_option, metavar="DURATION", help='When it expires, such as "90d".  [default: never]'
)
@options
def create(
    place: ProxyPlace,
    user: str,
    role: str | None,
    indexes: tuple[str, ...],
    projects: tuple[str, ...],
    expires: float | None,
) -> None:
    """Create a token and print it: it is shown this once, and only what proves it is kept."""
    made = place.ask("token_create", user=user, role=role, indexes=indexes, projects=projects, expires=expires)
    if place.as_json:
        say(made)
        return
    click.echo(made["token"])
    until = "" if made["expires"] is None else f", valid until {moment(made['expires'])}"
    note(f"token {made['id']} of {made['user']}{until}: it is not shown again", err=True)
    if not made.get("bound", True) and not made.get("listed"):  # the proxy that runs may be of an earlier version
        may = "it may do what grants to user:{0} say" if role is None else "it is valid until it is revoked or expires"
        note(f"there is no user {user} in the file of users: {may.format(user)}", err=True)


@click.command("list")
@click.option("--user", help="Only those of this user.")
@options
def list_tokens(place: ProxyPlace, user: str | None) -> None:
    """List the valid tokens with their last use, which is noted once an hour.

    A token whose user is "(unknown)" was created for somebody whom neither the file of users nor the directory knows any more.
    It is refused as long as that is so; revoke it.
    """
    found = place.ask("tokens", user=user)
    if place.as_json:
        for each in found:
            say(each)
        return
    show(_COLUMNS, [_row(each) for each in found])


@click.command()
@click.argument("tokens", nargs=-1, required=True, metavar="ID...")
@options
def revoke(place: ProxyPlace, tokens: tuple[str, ...]) -> None:
    """Revoke the tokens with these IDs, which are refused from now on, as are those that were made of them by narrowing."""
    revoked = place.ask("token_revoke", tokens=tokens)
    if place.as_json:
        for each in revoked:
            say(each)
        return
    for each in revoked:
        click.echo(f"token {each['id']} of {each['user']} is revoked")
    note(f"{counted(len(revoked), 'token')} revoked")


@click.command()
@click.option("--index", "indexes", multiple=True, help="Only for this index; may be repeated.")
@click.option("--projects", multiple=True, metavar="PATTERN", help="Only for these projects; may be repeated.")
@click.option("--expires", callback=duration_option, metavar="DURATION", help='Only for so long, such as "1h".')
def narrow(indexes: tuple[str, ...], projects: tuple[str, ...], expires: float | None) -> None:
    """Make a token that may do less of one that you have, and print it.

    The token is asked for on the terminal, or read from the first line of standard input.  No proxy is asked.  The new token is
    valid no longer than the old one, and is revoked with it.
    """
    import time

    from proxy.access.roles import ALL, is_pattern
    from proxy.access.tokens import BadToken, Confinement, narrowed, read_token
    from proxy.names import normalize

    if not (indexes or projects or expires is not None):
        raise click.UsageError("nothing to confine it to; expected --index, --projects or --expires")
    for pattern in projects:
        if not is_pattern(pattern):
            raise click.UsageError(f"--projects {pattern}: expected the name of a project, in which * and ? stand for others")
    confinement = Confinement(
        indexes=indexes or (ALL,),
        projects=tuple(map(normalize, projects)) or (ALL,),
        expires=None if expires is None else time.time() + expires,
    )
    try:
        click.echo(str(narrowed(read_token(a_token()), confinement, os.urandom(32))))
    except BadToken as error:
        fail(f"the token cannot be narrowed: {error}")


def _row(each: dict[str, Any]) -> list[str]:
    is_refused = (each.get("bound") or each.get("listed")) and each.get("known") is False
    return [
        each["id"],
        f"{each['user']} (unknown)" if is_refused else each["user"],
        each["role"] or "as its user",
        NONE if each["indexes"] is None else ", ".join(each["indexes"]),
        NONE if each["projects"] is None else ", ".join(each["projects"]),
        "never" if each["expires"] is None else moment(each["expires"]),
        moment(each["used"]),
    ]
