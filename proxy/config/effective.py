"""The configuration that is in effect, as a file that would lead to it: every key with its value, and secrets masked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from proxy.config.quantities import DURATION_UNITS, SIZE_UNITS
from proxy.settings import (
    AccessSettings,
    CiRule,
    CiSettings,
    GrantSettings,
    HostedSettings,
    IndexSettings,
    IssuerSettings,
    LdapSettings,
    ReverseProxySettings,
    ServerSettings,
    Settings,
    UpstreamSettings,
    WarmSettings,
)
from proxy.simple.links import shown

#: Units from the largest, as they are written.
_DURATIONS = sorted(DURATION_UNITS.items(), key=lambda unit: -unit[1])
_SIZES = [("GB", SIZE_UNITS["gb"]), ("GiB", SIZE_UNITS["gib"]), ("MB", SIZE_UNITS["mb"]), ("MiB", SIZE_UNITS["mib"])]
_SIZES += [("kB", SIZE_UNITS["kb"]), ("KiB", SIZE_UNITS["kib"]), ("B", 1)]

#: Keys with their values; keys without one are left out.
_Keys = Iterator[tuple[str, Any]]


#: A table: its heading, its keys with their values (``None``: left out), and comments for secrets that come from no file.
EffectiveTable = tuple[str, list[tuple[str, Any]], str]


def effective(settings: Settings) -> str:
    """*settings* as TOML.  A secret is the name of its file, or a comment that says that there is one."""
    return "\n".join(f"{heading}\n{_lines(keys)}{secrets}" for heading, keys, secrets in effective_tables(settings))


def effective_tables(settings: Settings) -> list[EffectiveTable]:
    """The tables of *settings*, with every key."""
    tables: list[EffectiveTable] = [("[server]", [*_server(settings.server)], "")]
    tables += [(f"[upstream.{json.dumps(each.name)}]", [*_upstream(each)], _secrets(each)) for each in settings.upstreams]
    tables += [("[[index]]", [*_index(index)], "") for index in settings.indexes]
    if settings.warm is not None:
        tables.append(("[warm]", [*_warm(settings.warm)], ""))
    tables.append(("[access]", [*_access(settings.access)], ""))
    if settings.access.groups:
        tables.append(("[access.groups]", [*settings.access.groups.items()], ""))
    if settings.access.ldap is not None:
        tables.append(("[access.ldap]", [*_ldap(settings.access.ldap)], _ldap_secret(settings.access.ldap)))
    if settings.access.reverse_proxy is not None:
        tables.append(("[access.reverse_proxy]", [*_reverse_proxy(settings.access.reverse_proxy)], ""))
    tables += [("[[grant]]", [*_grant(each)], "") for each in settings.grants]
    if settings.ci is not None:
        tables += _ci(settings.ci)
    return tables


def _lines(keys: list[tuple[str, Any]]) -> str:
    return "".join(f"{_key(key)} = {toml_value(value)}\n" for key, value in keys if value is not None)


def _key(key: str) -> str:
    """*key* as TOML has it: one with a dot in it is quoted."""
    return json.dumps(key) if "." in key else key


def toml_value(value: Any) -> str:
    """*value* as TOML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {toml_value(each)}' for key, each in value.items())} }}"
    if isinstance(value, Path):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    unit, length = next(each for each in _DURATIONS if milliseconds % each[1] == 0 and (milliseconds or each[0] == "s"))
    return f"{milliseconds // length}{unit}"


def _size(count: int) -> str:
    unit, length = next(each for each in _SIZES if count % each[1] == 0 and (count or each[0] == "B"))
    return f"{count // length}{unit}"


def _server(server: ServerSettings) -> _Keys:
    yield "data_dir", server.data_dir
    yield "listen", server.listen
    yield "metrics_listen", server.metrics_listen or None
    yield "metrics_for", server.metrics_for or None
    yield "probe_listen", server.probe_listen or None
    yield "dashboard", server.dashboard
    yield "dashboard_listen", server.dashboard_listen or None
    yield "contact", server.contact
    yield "stop_pause", _duration(server.stop_pause)
    yield "drain_time", _duration(server.drain_time)
    yield "max_connections", server.max_connections
    yield "max_waiting", server.max_waiting
    yield "idle_timeout", _duration(server.idle_timeout)
    yield "stall_timeout", _duration(server.stall_timeout)
    yield "trusted_proxies", server.trusted_proxies or None
    yield "page_memory", _size(server.page_memory)
    yield "max_size", "unlimited" if server.max_size is None else _size(server.max_size)
    yield "min_free", "off" if server.min_free is None else _size(server.min_free)


def _upstream(upstream: UpstreamSettings) -> _Keys:
    yield "url", upstream.url
    if upstream.netrc is not None:
        yield "netrc", True
    elif upstream.password_file is not None:
        yield "username", upstream.username
    yield "password_file", upstream.password_file
    yield "token_file", upstream.token_file
    yield "ca_file", upstream.ca_file
    yield "client_cert", upstream.client_cert
    yield "client_key", upstream.client_key
    yield "outbound_proxy", None if upstream.outbound_proxy is None else shown(upstream.outbound_proxy)
    yield "connect_timeout", _duration(upstream.connect_timeout)
    yield "first_byte_timeout", _duration(upstream.first_byte_timeout)
    yield "body_idle_timeout", _duration(upstream.body_idle_timeout)
    yield "max_connections", upstream.max_connections
    yield "max_queue", upstream.max_queue
    yield "max_rate", "unlimited" if upstream.max_rate is None else upstream.max_rate
    yield "partial", upstream.partial
    yield "authoritative", upstream.authoritative
    yield "forbidden", upstream.forbidden
    yield "redirect_hosts", upstream.redirect_hosts or "none"
    yield "max_lag", "off" if upstream.max_lag is None else _duration(upstream.max_lag)
    yield "file_hosts", upstream.file_hosts or "any"
    yield "allow_private_addresses", upstream.allow_private_addresses


def _secrets(upstream: UpstreamSettings) -> str:
    """Comments for the secrets that come from no file."""
    words = ""
    if upstream.password is not None and upstream.password_file is None and upstream.netrc is None:
        words += f"# username {json.dumps(upstream.username)} with a password, which is not shown\n"
    if upstream.token is not None and upstream.token_file is None:
        words += "# a token, which is not shown\n"
    return words


def _index(index: IndexSettings) -> _Keys:
    yield "name", index.name
    yield "kind", index.kind
    if index.hosted is not None:
        yield from _hosted(index.hosted)
    elif index.members:
        yield "members", index.members
        yield "merge", index.merge or None
    else:
        yield from _proxied(index)
    yield "default", index.default


def _hosted(hosted: HostedSettings) -> _Keys:
    yield "path", hosted.path
    yield "layout", hosted.layout
    yield "owns", hosted.owns or None
    yield "overwrite", hosted.overwrite
    yield "uploads", hosted.uploads
    yield "max_files", "unlimited" if hosted.max_files is None else hosted.max_files
    yield "max_size", "unlimited" if hosted.max_size is None else _size(hosted.max_size)


def _proxied(index: IndexSettings) -> _Keys:
    yield "upstreams", index.upstreams or None
    yield "ttl", _duration(index.limits.ttl)
    yield "soft_deadline", _duration(index.limits.soft_deadline)
    yield "stale_if_error", "unlimited" if index.limits.stale_if_error is None else _duration(index.limits.stale_if_error)
    yield "negative_ttl", _duration(index.limits.negative_ttl)
    yield "policy", index.policy
    yield "hedge_after", "off" if index.hedge_after is None else _duration(index.hedge_after)
    yield "prefetch", index.prefetch
    yield "offline", index.offline


def _warm(warm: WarmSettings) -> _Keys:
    yield "files", warm.files or None
    yield "projects", warm.projects or None
    yield "recent", "off" if warm.recent is None else _duration(warm.recent)
    yield "interval", _duration(warm.interval)
    yield "python", warm.python or None
    yield "platform", warm.platform or None
    yield "pin", warm.pin


def _access(access: AccessSettings) -> _Keys:
    yield "users_file", access.users_file
    yield "allow_plaintext_auth", access.allow_plaintext_auth
    yield "audit_size", _size(access.audit_size)
    yield "audit_files", access.audit_files


def _ldap(ldap: LdapSettings) -> _Keys:
    yield "url", ldap.url
    yield "start_tls", ldap.start_tls
    yield "ca_file", ldap.ca_file
    yield "bind_dn", ldap.bind_dn
    yield "bind_password_file", ldap.bind_password_file
    yield "base", ldap.base
    yield "user_attribute", ldap.user_attribute
    yield "user_filter", ldap.user_filter
    if ldap.group_base is not None:
        yield "group_base", ldap.group_base
        yield "group_filter", ldap.group_filter
        yield "group_attribute", ldap.group_attribute
    yield "timeout", _duration(ldap.timeout)


def _ldap_secret(ldap: LdapSettings) -> str:
    from_file = ldap.bind_password is None or ldap.bind_password_file is not None
    return "" if from_file else "# bind_dn with a password, which is not shown\n"


def _reverse_proxy(stated: ReverseProxySettings) -> _Keys:
    yield "user_header", stated.user_header
    yield "groups_header", stated.groups_header


def _grant(grant: GrantSettings) -> _Keys:
    yield "role", grant.role
    yield "indexes", grant.indexes
    yield "projects", grant.projects
    yield "principals", grant.principals


def _ci(ci: CiSettings) -> Iterator[tuple[str, list[tuple[str, Any]], str]]:
    """The tables of ``[ci]``."""
    yield "[ci]", [("audience", ci.audience)], ""
    for issuer in ci.issuers:
        token = "" if issuer.token is None or issuer.token_file is not None else "# a token, which is not shown\n"
        yield f"[ci.issuer.{json.dumps(issuer.name)}]", [*_issuer(issuer)], token
    for rule in ci.rules:
        yield "[[ci.rule]]", [*_rule(rule)], ""


def _issuer(issuer: IssuerSettings) -> _Keys:
    yield "url", issuer.url
    yield "jwks_url", issuer.jwks_url
    yield "ca_file", issuer.ca_file
    yield "token_file", issuer.token_file
    yield "outbound_proxy", None if issuer.outbound_proxy is None else shown(issuer.outbound_proxy)


def _rule(rule: CiRule) -> _Keys:
    yield "name", rule.name
    yield "issuer", rule.issuer
    yield "claims", _nested(rule.claims)
    if rule.role is not None:
        yield "role", rule.role
        yield "indexes", rule.indexes
        yield "projects", rule.projects
    yield "lifetime", _duration(rule.lifetime)


def _nested(claims: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, Any]:
    """*claims* as tables inside of one another."""
    whole: dict[str, Any] = {}
    for (*outer, name), patterns in claims:
        table = whole
        for each in outer:
            table = table.setdefault(each, {})
        table[name] = patterns
    return whole
