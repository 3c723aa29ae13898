"""Secrets that are typed or come on standard input: never an argument, which every user of the machine could read."""

from __future__ import annotations

import sys

import click

from proxy.commands.speaking import fail


def new_password(user: str) -> str:
    """A new password for *user*: asked for twice on a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        password: str = click.prompt(f"Password of {user}", hide_input=True, confirmation_prompt=True, err=True)
        return password
    return _line("a password")


def a_token() -> str:
    """A token: asked for on a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        token: str = click.prompt("Token", hide_input=True, err=True)
        return token.strip()
    return _line("a token").strip()


def _line(what: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        fail(f"nothing on standard input; expected {what} as its first line")
    return line
