"""``[access]`` and ``[[grant]]``: who may log in, and who may do what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from proxy.access.principals import in_group
from proxy.access.roles import ALL, Role
from proxy.config import files
from proxy.config import readers as read
from proxy.config.directories import ldap_settings, reverse_proxy_settings
from proxy.config.tables import ConfigTable, Unacceptable
from proxy.settings import AccessSettings, GrantSettings, IndexSettings

#: How a group of a directory is named among the users of a group.
_GROUP = in_group("")


def access_settings(table: ConfigTable, here: files.Here, environ: Mapping[str, str]) -> AccessSettings:
    """What ``[access]`` says."""
    known = AccessSettings()
    found = AccessSettings(
        users_file=table.take("users_file", files.path(here), known.users_file),
        allow_plaintext_auth=table.take("allow_plaintext_auth", read.flag, known.allow_plaintext_auth),
        audit_size=table.take("audit_size", read.room, known.audit_size),
        audit_files=table.take("audit_files", read.whole_number(1), known.audit_files),
        groups=dict(_groups(table.table("groups"))),
        ldap=ldap_settings(table.table("ldap"), here, environ) if "ldap" in table else None,
        reverse_proxy=reverse_proxy_settings(table.table("reverse_proxy")) if "reverse_proxy" in table else None,
    )
    table.done()
    return found


def _groups(table: ConfigTable) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in table:
        try:
            read.name(name)
        except Unacceptable as problem:
            table.complain(name, f"the group's name is to be {problem.expected}")
        yield name, table.take(name, read.several(_member), ())


def _member(value: Any) -> str:
    """A user, or ``group:`` and the name of a group of a directory, which may be any text."""
    group = value.removeprefix(_GROUP) if isinstance(value, str) and value.startswith(_GROUP) else None
    if group is None:
        return read.user_name(value)
    if not group.strip() or not group.isprintable():
        raise Unacceptable('"group:" and the name of a group as the directory or the reverse proxy states it')
    return str(value)


def grant_settings(table: ConfigTable) -> GrantSettings:
    """What one ``[[grant]]`` says."""
    roles = tuple(each.value for each in Role)
    table.require("role", " or ".join(f'"{each}"' for each in roles))
    table.require("principals", 'a list such as ["user:alice", "group:web", "authenticated"]')
    known = GrantSettings(role=Role.READER.value, principals=())
    found = GrantSettings(
        role=table.take("role", read.choice(*roles), known.role),
        indexes=table.take("indexes", read.several(read.text), known.indexes),
        projects=table.take("projects", read.several(read.project_pattern), known.projects),
        principals=table.take("principals", read.several(read.principal), known.principals),
    )
    table.done()
    return found


def wrong_access(source: str, access: AccessSettings, trusted_proxies: Sequence[str]) -> list[str]:
    """What *access* relies on that there is not."""
    mistakes = []
    if access.reverse_proxy is not None and not trusted_proxies:
        mistakes.append(
            f"{source}: access.reverse_proxy: nobody is believed; expected server.trusted_proxies with their addresses"
        )
    if access.ldap is None and access.reverse_proxy is None:
        mistakes += [
            f'{source}: access.groups.{name}: nobody states "{each}"; expected a table [access.ldap] or [access.reverse_proxy]'
            for name, members in access.groups.items()
            for each in members
            if each.startswith(_GROUP)
        ]
    return mistakes


def wrong_grants(
    source: str,
    grants: Sequence[GrantSettings],
    groups: Mapping[str, object],
    indexes: Sequence[IndexSettings],
    jobs: Collection[str],
) -> list[str]:
    """What *grants* name that there is not; *jobs* are the names of the rules for CI jobs."""
    granted = {index.name: index for index in indexes if not index.members}
    of_groups = {index.name: index for index in indexes if index.members}
    mistakes = []
    for number, grant in enumerate(grants):
        key = f"{source}: grant[{number}]"
        for name in grant.indexes:
            if name in of_groups:
                members = ", ".join(of_groups[name].members)
                mistakes.append(
                    f'{key}.indexes: "{name}" is a group, in which the rights on its members count; expected one of: {members}'
                )
            elif name != ALL and name not in granted:
                there = ", ".join(sorted(granted))
                mistakes.append(f'{key}.indexes: there is no index "{name}"; expected one of: {there}, or "{ALL}" for all')
        mistakes += wrong_principals(f"{key}.principals", grant.principals, groups, jobs)
    return mistakes


def wrong_principals(key: str, principals: Sequence[str], groups: Mapping[str, object], jobs: Collection[str]) -> list[str]:
    """What *principals*, the value of *key*, name that there is not; *jobs* are the names of the rules for CI jobs."""
    mistakes = []
    for each in principals:
        kind, _, name = each.partition(":")
        if kind == "group" and name not in groups:
            there = f"one of: {', '.join(sorted(groups))}" if groups else "a list in [access.groups]"
            mistakes.append(f'{key}: there is no group "{name}"; expected {there}')
        elif kind == "ci" and name not in jobs:
            there = f"one of: {', '.join(sorted(jobs))}" if jobs else f'a table [[ci.rule]] with name = "{name}"'
            mistakes.append(f'{key}: there is no rule "{name}" for CI jobs; expected {there}')
    return mistakes
