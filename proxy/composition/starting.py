"""What keeps a service from starting that no key states by itself.

These are users that do not exist, credentials that others could read, and directories of hosted indexes that are in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from proxy import config
from proxy.access.principals import EVERYBODY, PrincipalKind, subject
from proxy.accounts import users
from proxy.config.mistakes import Mistakes
from proxy.config.places import ListenEntry, listen_entries, listens_at
from proxy.core.endpoint import endpoint_of
from proxy.host.listening import endpoint, speaks_tls
from proxy.mechanism.twisted_internals import parsed_endpoint
from proxy.settings import Settings

_NOTHING_GIVEN = config.CommandLine()
#: Where a value is set that no file sets.
_DEFAULT = "defaults: server.listen"


class ConfigSource(Struct, frozen=True):
    """Where a service has its configuration from: a *file*, if there is one, the environment and the *command_line*.

    What it reads is right as a whole, at the start as when it is read again.
    """

    file: Path | None
    command_line: config.CommandLine = _NOTHING_GIVEN

    @property
    def absolute(self) -> ConfigSource:
        """The same, wherever the process goes."""
        data_dir = self.command_line.data_dir
        return ConfigSource(
            None if self.file is None else self.file.absolute(),
            replace(self.command_line, data_dir=None if data_dir is None else data_dir.absolute()),
        )

    def instead(self, file: Path | None) -> ConfigSource:
        """The same with *file*, unless that is ``None``."""
        return self if file is None else replace(self, file=file)

    def read(self, reactor: Any) -> Settings:
        """The settings.  Raises ConfigError with all that would keep a proxy from starting.  Blocks."""
        settings = config.load(self.file, self.command_line, check=partial(endpoint, reactor=reactor))
        refuse_start(settings, self.file)
        return settings

    def where(self, key: str) -> str:
        """What sets *key* of ``[server]``, one of those that name endpoints."""
        return listens_at(key, self.file, given=bool(self.command_line.listen))

    def listens(self, settings: Settings) -> list[ListenEntry]:
        """Each endpoint that *settings* listen at."""
        return listen_entries(settings.server, self.file, given=bool(self.command_line.listen))


def refuse_start(settings: Settings, file: Path | None) -> None:
    """Raise ConfigError with all that is wrong with *settings*, which were read from *file*."""
    mistakes = Mistakes()
    mistakes.add(_no_users(settings, file))
    mistakes.add(_unknown_users(settings, file))
    mistakes.add(_exposed(settings, file))
    mistakes.add(_directories_in_use(settings, file))
    mistakes.refuse()


def _users_file(settings: Settings) -> Path:
    return settings.access.users_file or settings.server.data_dir / users.NAME


def _no_users(settings: Settings, file: Path | None) -> Iterator[str]:
    """What is called as the file of users and is none."""
    path = _users_file(settings)
    if os.path.isdir(path):  # whatever else keeps it from being read is told by whoever opens it
        key = f"{path}" if settings.access.users_file is None else f'{file}: access.users_file = "{path}"'
        yield f"{key}: it is a directory; expected a file with a line name:hash for each user, as pypiproxy user add writes it"


def _unknown_users(settings: Settings, file: Path | None) -> Iterator[str]:
    """The users that are named and are not in the file of users, if that can be read and nobody else knows users."""
    if settings.access.ldap is not None or settings.access.reverse_proxy is not None:
        return
    path = _users_file(settings)
    known = users.users_in(path)
    if known is None:
        return
    named = [
        (f"grant[{number}].principals", name)
        for number, grant in enumerate(settings.grants)
        for kind, _, name in (each.partition(":") for each in grant.principals)
        if kind == PrincipalKind.USER.value
    ]
    named += [
        ("server.metrics_for", name)
        for kind, _, name in (each.partition(":") for each in settings.server.metrics_for)
        if kind == PrincipalKind.USER.value
    ]
    named += [(f"access.groups.{group}", name) for group, names in settings.access.groups.items() for name in names]
    for key, name in named:
        if name not in known:
            yield (
                f'{file}: {key}: there is no user "{name}" in {path}; expected {_one_of(known)}, '
                f"or pypiproxy user add {name} before the start"
            )
    for name in users.without_use(known):
        if any(subject(PrincipalKind.USER, name) in grant.principals for grant in settings.grants):
            yield (
                f"{path}: the user {name} cannot log in: the hash is neither argon2id nor bcrypt; expected one of them, "
                f"as pypiproxy user passwd {name} and htpasswd -B write it"
            )


def _one_of(names: dict[str, str]) -> str:
    return "one of: " + ", ".join(sorted(names)) if names else "a user"


def _exposed(settings: Settings, file: Path | None) -> Iterator[str]:
    """The addresses at which credentials would arrive unencrypted from other machines."""
    if settings.access.allow_plaintext_auth or settings.server.trusted_proxies or not _has_credentials(settings):
        return
    listens = [(config.where("listen", file) or _DEFAULT, each) for each in settings.server.listen]
    listens += [(config.where("dashboard_listen", file) or _DEFAULT, each) for each in settings.server.dashboard_listen]
    if settings.server.metrics_for:
        where = config.where("metrics_listen", file) or _DEFAULT
        listens += [(where, each) for each in settings.server.metrics_listen]
    for where, description in listens:
        if _is_plain(description):
            yield (
                f'{where} = "{description}": passwords and tokens would arrive there unencrypted from other machines; expected '
                "an ssl: or tls: endpoint, an address such as 127.0.0.1, server.trusted_proxies with the proxy that ends TLS, "
                "or access.allow_plaintext_auth = true"
            )


def _has_credentials(settings: Settings) -> bool:
    """Whether anybody can log in, as far as that is configured."""
    granted = (grant.principals for grant in settings.grants)
    of_somebody = any(each != EVERYBODY for principals in (*granted, settings.server.metrics_for) for each in principals)
    return of_somebody or settings.access.users_file is not None or bool(users.users_in(_users_file(settings)))


def _is_plain(description: str) -> bool:
    """Whether other machines reach the endpoint that *description* names, and speak plain http there."""
    if speaks_tls(description):
        return False
    try:
        (kind, *given), named = parsed_endpoint(endpoint_of(description))
    except (ValueError, StopIteration):
        return False  # nothing listens there, which is said elsewhere
    if kind == "unix":
        return False
    interface = named.get("interface", given[1] if kind in ("tcp", "tcp4", "tcp6") and len(given) > 1 else "")
    try:
        return not ip_address(interface).is_loopback
    except ValueError:
        return interface != "localhost"


def _directories_in_use(settings: Settings, file: Path | None) -> Iterator[str]:
    """The directories of hosted indexes that belong to another hosted index, or to the proxy itself.

    Two indexes with one directory would serve each other's files, to whom only one of them is open; and what a hosted index
    deletes or writes in the data directory, the proxy has lost.
    """
    data_dir = _real(settings.server.data_dir)
    used: list[tuple[Path, str, bool]] = []
    for number, index in enumerate(settings.indexes):
        if index.hosted is None:
            continue
        own = data_dir / "hosted" / index.name
        path = own if index.hosted.path is None else _real(index.hosted.path)
        key = f'{file}: index[{number}].path = "{path}"'
        has_folders = index.hosted.layout == "projects"
        if path == data_dir or (data_dir in path.parents and data_dir / "hosted" not in path.parents):
            yield f"{key}: the proxy keeps other data there ({data_dir}); expected a directory outside it"
        for other, name, other_has_folders in used:
            if path == other or (has_folders and path in other.parents) or (other_has_folders and other in path.parents):
                yield f"{key}: the index {name} has {other}; expected a directory of its own"
        used.append((path, index.name, has_folders))
        if own != path:  # the JSON files of a directory that cannot be written to
            used.append((own, index.name, True))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
