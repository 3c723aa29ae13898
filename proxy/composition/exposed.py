"""Files of secrets that every user of the machine can read: a warning at the start, and of ``check-config``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from proxy.host.listening import speaks_tls
from proxy.mechanism.secret_files import read_by_all
from proxy.settings import ServerSettings, Settings, UpstreamSettings

_log = Logger()


def exposed(settings: Settings) -> list[str]:
    """A sentence for each secret of *settings* that every user can read.  Nothing for files that cannot be looked at."""
    found = []
    for key, path in _secrets(settings):
        mode = read_by_all(path)
        if mode is not None:
            found.append(f"{key} = {path}: every user of this machine can read this secret (mode {mode:04o}): chmod o-r {path}")
    return found


def tell_exposed(settings: Settings) -> None:
    """Log what `exposed` finds."""
    for each in exposed(settings):
        _log.warn("{words}", words=each)


def _secrets(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files with secrets, by what the configuration calls them."""
    for upstream in settings.upstreams:
        for key, path in _of_upstream(upstream).items():
            if path is not None:
                yield f"{upstream.table}.{key}", path
    for issuer in () if settings.ci is None else settings.ci.issuers:
        if issuer.token_file is not None:
            yield f"ci.issuer.{issuer.name}.token_file", issuer.token_file
    ldap = settings.access.ldap
    if ldap is not None and ldap.bind_password_file is not None:
        yield "access.ldap.bind_password_file", ldap.bind_password_file
    for description in filter(speaks_tls, _listens(settings.server)):
        # Few endpoints speak TLS, and what it needs takes a while to load.
        from proxy.host.presented import keys_of

        with suppress(OSError):
            for path in keys_of(description):
                yield "server.listen: a key", path


def _listens(server: ServerSettings) -> tuple[str, ...]:
    """The endpoints at which TLS may be spoken."""
    return (*server.listen, *server.metrics_listen, *server.dashboard_listen)


def _of_upstream(upstream: UpstreamSettings) -> dict[str, Path | None]:
    # A certificate without a file for its key has the key in it.
    key = "client_key" if upstream.client_key else "client_cert"
    return {
        "password_file": upstream.password_file,
        "token_file": upstream.token_file,
        "netrc": upstream.netrc,
        key: upstream.client_key or upstream.client_cert,
    }
