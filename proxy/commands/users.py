"""``pypiproxy user``: who may log in with a password."""

from __future__ import annotations

import click

from proxy.commands.lazily import Command, LazyGroup
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.secretly import new_password
from proxy.commands.speaking import note
from proxy.commands.tables import show
from proxy.core.amounts import counted

COMMANDS = {
    "add": Command("proxy.commands.users:add_user", "Add a user."),
    "list": Command("proxy.commands.users:list_users", "List the users."),
    "passwd": Command("proxy.commands.users:passwd", "Set another password for a user."),
    "remove": Command("proxy.commands.users:remove", "Remove a user, and revoke the user's tokens."),
}
_COLUMNS = (("user", False), ("tokens", True), ("can log in", False))


@click.group(cls=LazyGroup, commands=COMMANDS)
def user() -> None:
    """Add and remove users, and set their passwords.

    They are in users_file (default: users in the data directory), with hashes of their passwords.  Passwords are asked for on
    the terminal, or read from the first line of standard input.
    """


@click.command("add")
@click.argument("name")
@options
def add_user(place: ProxyPlace, name: str) -> None:
    """Add the user NAME, who has no rights until a grant names NAME, or a group that NAME is in."""
    place.ask("user_add", user=name, password=new_password(name), new=True)  # a start refuses grants for users that are unknown
    note(f"{name} is added")


@click.command()
@click.argument("name")
@options
def passwd(place: ProxyPlace, name: str) -> None:
    """Set another password for the user NAME.  The one before is refused from now on; tokens of NAME stay valid."""
    place.ask("user_passwd", user=name, password=new_password(name))
    note(f"{name} has another password")


@click.command()
@click.argument("name")
@options
def remove(place: ProxyPlace, name: str) -> None:
    """Remove the user NAME, and revoke all tokens of NAME.  Grants that name NAME have to be removed before the next start."""
    removed = place.ask("user_remove", user=name)
    if place.as_json:
        say(removed)
        return
    for each in removed["revoked"]:
        click.echo(f"token {each} is revoked")
    note(f"{name} is removed, with {counted(len(removed['revoked']), 'token')}")


@click.command("list")
@options
def list_users(place: ProxyPlace) -> None:
    """List the users.  Who cannot log in has a hash that is neither argon2id nor bcrypt: set another password."""
    users = place.ask("users")
    if place.as_json:
        for each in users:
            say(each)
        return
    show(_COLUMNS, [[each["user"], str(each["tokens"]), "yes" if each["usable"] else "no"] for each in users])
