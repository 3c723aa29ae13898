"""What a command logs in with at another server: from the environment, netrc or the terminal, never from its arguments."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import click
from msgspec import Struct

from proxy.commands.speaking import fail
from proxy.mechanism.secret_files import netrc_entry
from proxy.representing import repr_without


class ServerLogin(Struct, frozen=True):
    """A user name with a password, a token, or nothing."""

    username: str | None = None
    password: str | None = None
    token: str | None = None

    __repr__ = repr_without("password", "token")


class Logins(Struct, frozen=True):
    """Where the credential for a URL is that is given with *option*: environment variables called *password* and *token*."""

    option: str
    password: str
    token: str

    def of(self, given: str) -> tuple[str, ServerLogin]:
        """The URL without credentials, and these.  Exits with a message for what cannot be used."""
        try:
            parts = urlsplit(given)
            host = parts.hostname or ""
        except ValueError:
            raise click.UsageError(f"{self.option}: {given!r} is no URL") from None
        if parts.password is not None:
            raise click.UsageError(
                f"{self.option}: everybody on this machine can see a password on the command line; put it into "
                f"{self.password} or netrc"
            )
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        if token := os.environ.get(self.token):
            return url, ServerLogin(token=token)
        username = parts.username
        if username is not None and (password := os.environ.get(self.password)):
            return url, ServerLogin(username, password)
        found = _of_netrc(host)
        if found is not None and username in (None, found[0]):
            return url, ServerLogin(*found)
        if username is None:
            return url, ServerLogin()
        if not sys.stdin.isatty():
            fail(f"no password for {username} at {host}: put it into {self.password} or netrc")
        return url, ServerLogin(username, click.prompt(f"Password for {username} at {host}", hide_input=True, err=True))


def _of_netrc(host: str) -> tuple[str, str] | None:
    given = os.environ.get("NETRC")
    try:
        return netrc_entry(Path(given) if given else Path.home() / ".netrc", host)
    except OSError:
        return None
    except ValueError:
        return None  # it has no entry for this host, or cannot be understood
