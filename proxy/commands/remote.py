"""Commands for maintainers, who have no shell on the host of the proxy: what they change is asked for over HTTP (``--url``)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import click
from msgspec import Struct

from proxy import __version__
from proxy.commands.logins import Logins, ServerLogin
from proxy.commands.place import ProxyPlace
from proxy.commands.speaking import fail
from proxy.representing import repr_without

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds without a word from the proxy after which it is given up: a release is copied before it is answered.
_PATIENCE = 300.0
#: The longest answer (bytes).
_LONGEST = 64 * 1024 * 1024
_LOGINS = Logins("--url", "PYPIPROXY_PASSWORD", "PYPIPROXY_TOKEN")  # names of variables


class Performs(Protocol):
    """Where an operation is performed: here, by a running proxy, or by one on another machine."""

    @property
    def as_json(self) -> bool:
        """Whether answers are printed as JSON."""

    def ask(self, operation: str, **arguments: Any) -> Any:
        """What *operation* answers.  Exits with status 1 and a message when it fails."""


class RemotePlace(Struct, frozen=True):
    """The proxy at *url*, which somebody logs in to with *login*."""

    url: str
    as_json: bool
    login: ServerLogin

    __repr__ = repr_without("login")

    def ask(self, operation: str, **arguments: Any) -> Any:
        """What *operation* answers.  Exits with status 1 and a message when it fails."""
        index = arguments.pop("source" if operation == "promote" else "index")
        project = arguments.pop("project")
        path = f"index/{quote(index, safe='')}/projects/{quote(project, safe='')}/{operation}"
        sent = {name: value for name, value in arguments.items() if value is not None or name == "which"}
        status, reason, body = self._posted(f"{urlsplit(self.url).path.rstrip('/')}/{path}", json.dumps(sent).encode())
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if status != 200 or said is None:
            detail = said.get("detail") if isinstance(said, dict) else None
            words = f"{self.url}: {status} {reason if detail is None else detail}"
            fail("".join(each if each.isprintable() else " " for each in words))
        return said

    def _posted(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Status, reason and body of the answer to *body*, which is posted to *path*."""
        import http.client  # commands on the host do without

        parts = urlsplit(self.url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Content-Type": "application/json", "User-Agent": f"pypiproxy/{__version__}", **self._credential()}
        try:
            connection = connect(parts.hostname or "", parts.port, timeout=_PATIENCE)
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.reason, answer.read(_LONGEST)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            fail(
                f"{self.url}: {error or type(error).__name__}; is this the URL of the proxy, such as https://packages.example/?"
            )

    def _credential(self) -> dict[str, str]:
        login = self.login
        if login.token is not None:
            return {"Authorization": f"Bearer {login.token}"}
        if login.username is None:
            return {}
        said = f"{login.username}:{login.password}".encode()
        return {"Authorization": f"Basic {b64encode(said).decode()}"}


def remotely(command: F) -> F:
    """The option ``--url`` of a command that can ask a proxy on another machine; below `options`."""

    @wraps(command)
    def placed(place: ProxyPlace, url: str | None, **rest: Any) -> Any:
        return command(place=place if url is None else _remote(place, url), **rest)

    said = "The URL of a proxy on another machine, to log in to. [env: PYPIPROXY_TOKEN, PYPIPROXY_PASSWORD]"
    return click.option("--url", metavar="URL", help=said)(placed)  # type: ignore[return-value]  # as in `options`


def _remote(place: ProxyPlace, url: str) -> RemotePlace:
    if place.config is not None or place.data_dir is not None:
        raise click.UsageError("--url is for a proxy on another machine; --config and --data-dir are for one on this machine")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise click.UsageError(f"--url: {url!r} is no URL of a proxy: expected http:// or https:// and a host")
    without, login = _LOGINS.of(url)
    return RemotePlace(without, place.as_json, login)
