"""``[access.ldap]`` and ``[access.reverse_proxy]``: users whom somebody else knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.config import files
from proxy.config import readers as read
from proxy.config.tables import ConfigTable, Unacceptable
from proxy.expressions import expression
from proxy.settings import LdapSettings, ReverseProxySettings

#: A name of a header (RFC 9110 section 5.1), and those that mean something already.
_HEADER = expression(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_TAKEN = frozenset(
    {"authorization", "host", "cookie", "via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
)
_ATTRIBUTE = expression(r"[A-Za-z][A-Za-z0-9;-]{0,99}", re.ASCII)
#: A filter whose brackets are even (RFC 4515); the directory says what else is wrong with it.
_FILTER = expression(r"\([^\0]{1,1000}\)")


def ldap_settings(table: ConfigTable, here: files.Here, environ: Mapping[str, str]) -> LdapSettings:
    """What ``[access.ldap]`` says."""
    table.require("url", 'the URL of the directory, such as "ldaps://ldap.example"')
    table.require("base", 'where users are, such as "ou=people,dc=corp,dc=example"')
    if find_spec("ldap") is None:
        table.complain("url", "python-ldap is not installed; expected pip install 'pypiproxy[ldap]' before")
    absent: tuple[Path | None, str | None] = (None, None)
    password_file, password = table.take("bind_password_file", files.secret_file(here), absent)
    password = table.take("bind_password_env", files.secret_variable(environ), password)
    if "bind_password_file" in table and "bind_password_env" in table:
        table.complain("bind_password_env", "bind_password_file is there too; expected one of them")
    known = LdapSettings(url="")
    found = LdapSettings(
        url=table.take("url", _ldap_url, known.url),
        start_tls=table.take("start_tls", read.flag, known.start_tls),
        ca_file=table.take("ca_file", files.authorities(here), known.ca_file),
        bind_dn=table.take("bind_dn", read.text, known.bind_dn),
        bind_password=password,
        bind_password_file=password_file,
        base=table.take("base", read.text, known.base),
        user_attribute=table.take("user_attribute", _attribute, known.user_attribute),
        user_filter=table.take("user_filter", _filter, known.user_filter),
        group_base=table.take("group_base", read.text, known.group_base),
        group_filter=table.take("group_filter", _filter, known.group_filter),
        group_attribute=table.take("group_attribute", _attribute, known.group_attribute),
        timeout=table.take("timeout", read.time_span(), known.timeout),
    )
    if (found.bind_dn is None) != (found.bind_password is None):
        table.complain(
            "bind_dn",
            "a name needs a password and a password a name; expected bind_password_file or bind_password_env beside it",
        )
    if "group_base" not in table:
        for key in ("group_filter", "group_attribute"):
            if key in table:
                table.complain(key, "no groups are looked for; expected group_base beside it")
    table.done()
    return found


def reverse_proxy_settings(table: ConfigTable) -> ReverseProxySettings:
    """What ``[access.reverse_proxy]`` says."""
    table.require("user_header", 'the header that states who has logged in, such as "X-Remote-User"')
    found = ReverseProxySettings(
        user_header=table.take("user_header", _header, ""),
        groups_header=table.take("groups_header", _header, None),
    )
    if found.groups_header is not None and found.groups_header.lower() == found.user_header.lower():
        table.complain("groups_header", "it is the header of the user; expected another")
    table.done()
    return found


def _header(value: Any) -> str:
    if not isinstance(value, str) or not _HEADER.fullmatch(value) or value.lower() in _TAKEN:
        raise Unacceptable('the name of a header that means nothing else, such as "X-Remote-User"')
    return value


def _ldap_url(value: Any) -> str:
    url = read.text(value)
    expected = 'an ldaps or ldap URL with a host and no more, such as "ldaps://ldap.example"'
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("ldap", "ldaps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or re.fullmatch(r"ldaps?://[^/?#@ ]+/?", url) is None:
        raise Unacceptable(expected, read.redacted(url))
    return url.rstrip("/")


def _attribute(value: Any) -> str:
    if not isinstance(value, str) or not _ATTRIBUTE.fullmatch(value):
        raise Unacceptable('the name of an attribute, such as "uid"')
    return value


def _filter(value: Any) -> str:
    depth = 0
    sound = isinstance(value, str) and _FILTER.fullmatch(value) is not None
    for place, each in enumerate(value if sound else ""):
        depth += {"(": 1, ")": -1}.get(each, 0)
        sound = sound and (depth > 0 or place == len(value) - 1)
    if not sound or depth:
        raise Unacceptable('a filter in brackets, such as "(objectClass=person)"')
    return str(value)
