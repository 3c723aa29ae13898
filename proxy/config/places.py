"""Where values of ``[server]`` are set: on the command line, in the environment, in a file, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from proxy.config import environment
from proxy.settings import ServerSettings


class ListenEntry(Struct, frozen=True):
    """An *endpoint* to listen at, the *key* of ``[server]`` that it belongs to, and *where* that is set."""

    key: str
    where: str
    endpoint: str


def where(key: str, path: Path | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """What sets *key* of ``[server]``: its variable, or the file at *path*; ``None`` if there is neither."""
    if key in environment.values(environment.SERVER, environ):
        return environment.variable(environment.SERVER, key)
    return None if path is None else f"{path}: server.{key}"


def listens_at(key: str, path: Path | None, environ: Mapping[str, str] = os.environ, *, given: bool) -> str:
    """As `where`, of a *key* that names endpoints: they are listed in the file at *path*, or *given* on the command line."""
    option = "--listen" if given and key == "listen" else None
    return option or where(key, path, environ) or f"defaults: server.{key}"


def listen_entries(
    server: ServerSettings, path: Path | None, environ: Mapping[str, str] = os.environ, *, given: bool
) -> list[ListenEntry]:
    """Each endpoint that *server* listens at, with arguments as for `listens_at`."""
    return [
        ListenEntry(key, listens_at(key, path, environ, given=given), each)
        for key, endpoints in (
            ("listen", server.listen),
            ("metrics_listen", server.metrics_listen),
            ("probe_listen", server.probe_listen),
            ("dashboard_listen", server.dashboard_listen),
        )
        for each in endpoints
    ]
