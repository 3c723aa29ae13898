"""The credentials of one upstream: whom they are sent to, and what they are after their file has changed."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from proxy.mechanism.patience import within
from proxy.mechanism.rotating import Observing, Rotating, UnusableFile
from proxy.mechanism.secret_files import netrc_entry, one_line
from proxy.representing import repr_without
from proxy.settings import UpstreamSettings
from proxy.upstream.http.origin import origin_of

#: How long a request that was answered with 401 waits for a look at the file (seconds).
_PATIENCE = 1.0


class _Login(Struct, frozen=True):
    """A user name with a password, or a token."""

    username: str | None
    password: str | None
    token: str | None

    __repr__ = repr_without("password", "token")

    @property
    def header(self) -> str | None:
        """The value of ``Authorization``."""
        if self.token is not None:
            return f"Bearer {self.token}"
        if self.username is None:
            return None
        secret = f"{self.username}:{self.password or ''}".encode()
        return "Basic " + base64.b64encode(secret).decode("ascii")


class Credentials:
    """The credentials of the upstream of *settings*, which are read again from the file that they were read from."""

    def __init__(self, settings: UpstreamSettings, reactor: Any, observing: Observing) -> None:
        self._settings = settings
        self._reactor = reactor
        self._home = origin_of(settings.url)
        login = _Login(settings.username, settings.password, settings.token)
        files = {"password_file": settings.password_file, "token_file": settings.token_file, "netrc": settings.netrc}
        named = {f"{settings.table}.{key}": path for key, path in files.items() if path is not None}
        #: What has to be looked at regularly.
        self.rotating = Rotating(named, self._read, observing, value=login)

    def header(self, url: str) -> str | None:
        """The value of ``Authorization`` in a request for *url*: credentials are sent to the configured origin only."""
        return self.rotating.value.header if origin_of(url) == self._home else None

    async def renewed(self, url: str, refused: str | None) -> bool:
        """Whether *url* would now be asked with other credentials than *refused*, by a look at the file."""
        if not self.rotating.files or refused is None:
            return False
        await within(_PATIENCE, self.rotating.look(), self._reactor)
        return self.header(url) != refused

    def _read(self, contents: Mapping[str, bytes]) -> _Login:
        settings = self._settings
        if settings.netrc is not None:
            (key,) = contents
            try:
                return _Login(*netrc_entry(settings.netrc, self._home.host), None)
            except ValueError as error:
                raise UnusableFile(f"{key}: the file {error}") from None
        (secret,) = map(one_line, contents.values())
        if settings.token_file is not None:
            return _Login(settings.username, None, secret)
        return _Login(settings.username, secret, None)
