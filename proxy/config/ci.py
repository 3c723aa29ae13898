"""``[ci]``: who vouches for CI jobs, and what these are given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.access.claims import ClaimCondition, literal
from proxy.access.roles import ALL, Role
from proxy.config import files
from proxy.config import readers as read
from proxy.config.tables import ConfigTable, Unacceptable
from proxy.settings import CiRule, CiSettings, IndexSettings, IssuerSettings

#: Of a pattern: its characters, and those that stand for others.  Comparing takes their product times the claim.
_LONGEST, _MOST_WILD = 256, 8
#: Of a token: what PEP 807 lets it live (seconds).
_SHORTEST_LIFE, _LONGEST_LIFE = 900.0, 21_600.0
_AUDIENCE = re.compile(r"[!#-\[\]-~]{1,200}")
#: Issuers that vouch for everybody's jobs, and the claims of which one has to say whose job it is.
_SHARED: Mapping[str, Sequence[str]] = {
    "https://token.actions.githubusercontent.com": (
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "sub",
    ),
    "https://gitlab.com": ("project_path", "project_id", "namespace_path", "namespace_id", "sub"),
    "https://agent.buildkite.com": ("organization_slug", "organization_id"),
}


def ci_settings(table: ConfigTable, here: files.Here) -> CiSettings:
    """What ``[ci]`` says."""
    known = CiSettings()
    found = CiSettings(
        audience=table.take("audience", _audience, known.audience),
        issuers=tuple(_issuer(name, each, here) for name, each in table.tables("issuer")),
        rules=tuple(_rule(each) for each in table.array("rule")),
    )
    table.done()
    return found


def _issuer(name: str, table: ConfigTable, here: files.Here) -> IssuerSettings:
    try:
        read.name(name)
    except Unacceptable as problem:
        table.complain("NAME", f"the table's name is to be {problem.expected}")
    table.require("url", "the issuer as its ID tokens have it in iss, an https URL")
    absent: tuple[Path | None, str | None] = (None, None)
    token_file, token = table.take("token_file", files.secret_file(here), absent)
    found = IssuerSettings(
        name=name,
        url=table.take("url", _issuer_url, ""),
        jwks_url=table.take("jwks_url", _issuer_url, None),
        ca_file=table.take("ca_file", files.authorities(here), None),
        token=token,
        token_file=token_file,
        outbound_proxy=table.take("outbound_proxy", read.outbound_proxy, None),
    )
    table.done()
    return found


def _rule(table: ConfigTable) -> CiRule:
    table.require("name", "a name for the jobs that it fits: grants and the audit log call them ci:NAME")
    table.require("issuer", "the NAME of a table [ci.issuer.NAME]")
    table.require("claims", 'a table of claims and patterns, such as { repository = "acme/widgets" }')
    roles = [each.value for each in (Role.READER, Role.UPLOADER, Role.MAINTAINER)]
    known = CiRule(name="", issuer="", claims=())
    role = table.take("role", read.choice(*roles), known.role)
    if role is None:
        for key in ("indexes", "projects"):
            if key in table:
                table.complain(key, "there is no role that it could be for; expected role beside it")
    found = CiRule(
        name=table.take("name", read.name, known.name),
        issuer=table.take("issuer", read.text, known.issuer),
        claims=table.take("claims", _claims, known.claims),
        role=role,
        indexes=table.take("indexes", read.several(read.text), (ALL,)),
        projects=table.take("projects", read.several(read.project_pattern), (ALL,)),
        lifetime=table.take("lifetime", _lifetime, known.lifetime),
    )
    table.done()
    return found


def wrong_rules(source: str, ci: CiSettings, indexes: Sequence[IndexSettings]) -> list[str]:
    """What the rules of *ci* name that there is not, and whom they forget to name."""
    issuers = {each.name: each for each in ci.issuers}
    granted = sorted(index.name for index in indexes if not index.members)
    mistakes, first = [], dict[str, int]()
    for number, rule in enumerate(ci.rules):
        key = f"{source}: ci.rule[{number}]"
        if rule.name and first.setdefault(rule.name, number) != number:
            mistakes.append(f'{key}.name = "{rule.name}": ci.rule[{first[rule.name]}] has it already; expected another')
        for name in rule.indexes:
            if name != ALL and name not in granted:
                there = ", ".join(granted)
                mistakes.append(
                    f'{key}.indexes: there is no index "{name}" with rights of its own; expected one of: {there}, or "{ALL}"'
                )
        issuer = issuers.get(rule.issuer)
        if issuer is None:
            there = f"one of: {', '.join(sorted(issuers))}" if issuers else f"a table [ci.issuer.{rule.issuer}]"
            mistakes.append(f'{key}.issuer: there is no issuer "{rule.issuer}"; expected {there}')
        elif rule.claims and (telling := _SHARED.get(issuer.url)) and not _says_whose(rule.claims, telling):
            mistakes.append(
                f"{key}.claims: {issuer.url} vouches for the jobs of everybody; expected one of"
                f" {', '.join(telling)} with a value that has no * or ? before the first /"
            )
    urls = [each.url for each in ci.issuers]
    mistakes += [
        f'{source}: ci.issuer.{each.name}.url = "{each.url}": another issuer has it; expected one table for each issuer'
        for number, each in enumerate(ci.issuers)
        if each.url and each.url in urls[:number]
    ]
    return mistakes


def _says_whose(conditions: Sequence[ClaimCondition], telling: Sequence[str]) -> bool:
    """Whether one of *conditions* on the claims *telling* leaves nobody else's jobs in."""
    return any(
        way[0] in telling and all(literal(each) == each or "/" in literal(each) for each in patterns)
        for way, patterns in conditions
    )


def _audience(value: Any) -> str:
    if not isinstance(value, str) or not _AUDIENCE.fullmatch(value):
        raise Unacceptable("a text in plain ASCII without spaces and quotes, of at most 200 characters")
    return value


def _issuer_url(value: Any) -> str:
    expected = 'an https URL as the issuer states it, such as "https://ci.example" (http only on loopback)'
    url = read.plain_url(value, expected)
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise Unacceptable(expected, read.redacted(url))
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lifetime(value: Any) -> float:
    seconds = read.time_span()(value)
    if not _SHORTEST_LIFE <= seconds <= _LONGEST_LIFE:
        raise Unacceptable('at least "15m" and at most "6h"')
    return seconds


def _claims(value: Any) -> tuple[ClaimCondition, ...]:
    found = tuple(_conditions((), value))
    if not found:
        raise Unacceptable('a table of at least one claim, such as { repository = "acme/widgets" }')
    return found


def _conditions(way: tuple[str, ...], value: Any) -> Iterator[ClaimCondition]:
    """The conditions in the table or the value at *way*."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _conditions((*way, name), inner)
        return
    patterns = tuple(map(_pattern, value if isinstance(value, list) else [value]))
    if not way or not patterns:
        raise Unacceptable('claims with a text or a list of texts each, such as { ref = ["refs/heads/main", "refs/tags/v*"] }')
    yield way, patterns


def _pattern(value: Any) -> str:
    if isinstance(value, bool | int):
        value = str(value).lower()
    if not isinstance(value, str) or len(value) > _LONGEST or sum(map(value.count, "*?")) > _MOST_WILD:
        raise Unacceptable(
            f"claims with texts of at most {_LONGEST} characters, in which * stands for any but / and :, ** for any at all"
            f" and ? for one, at most {_MOST_WILD} times"
        )
    return value
