"""Which rules an ID token of a CI job fits: its claims (RFC 7519 section 4) against patterns.

A pattern is compared with the whole claim, and cases differ.  ``?`` is one character and ``*`` any number of them, but no ``/``
and no ``:``, which separate the parts of what CI systems state: ``acme/*`` fits the repositories of ``acme``, and nobody can
name a branch so that it looks like another part.  ``**`` is any number of any characters.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache

#: The longest claim that a pattern is compared with (characters).  Comparing takes claim times pattern.
_LONGEST = 2048
#: What ``*`` and ``?`` do not stand for.
_SEPARATORS = frozenset("/:")
#: Patterns that are kept split up: those of the configuration.
_PATTERNS = 1024

#: The way to a claim, names inside of one another, and the patterns of which one has to fit it.
ClaimCondition = tuple[tuple[str, ...], tuple[str, ...]]


class _Wild(enum.Enum):
    ONE = "?"
    ANY = "*"
    ALL = "**"


def fulfil(claims: Mapping[str, object], conditions: Collection[ClaimCondition]) -> bool:
    """Whether *claims* fulfil all *conditions*, and there are any."""
    return bool(conditions) and not unfulfilled(conditions, claims)


def unfulfilled(conditions: Collection[ClaimCondition], claims: Mapping[str, object]) -> Sequence[ClaimCondition]:
    """Those of *conditions* that *claims* do not fulfil."""
    return [condition for condition in conditions if not _fulfilled(condition, claims)]


def texts(way: Sequence[str], claims: Mapping[str, object]) -> Sequence[str]:
    """The values of the claim at *way* as patterns see them; none where there is no such claim.

    A number and a truth value are spelt as in JSON; of a list each element counts.
    """
    value: object = claims
    for name in way:
        if not isinstance(value, Mapping) or name not in value:
            return ()
        value = value[name]
    elements = value if isinstance(value, list) else [value]
    return [text for each in elements if (text := _text(each)) is not None]


@lru_cache(_PATTERNS)
def matches(pattern: str, text: str) -> bool:
    """Whether *pattern* fits the whole of *text*.  Takes time proportional to one times the other."""
    if len(text) > _LONGEST:
        return False
    parts = _parts(pattern)
    places = {*_reachable(parts, 0)}
    for character in text:
        following: set[int] = set()
        for place in places:
            if place < len(parts) and (stays := _takes(parts[place], character)) is not None:
                following.update(_reachable(parts, place if stays else place + 1))
        places = following
        if not places:
            return False
    return len(parts) in places


def literal(pattern: str) -> str:
    """What *pattern* begins with before it leaves anything open."""
    return pattern[: min((place for sign in "*?" if (place := pattern.find(sign)) >= 0), default=len(pattern))]


def _fulfilled(condition: ClaimCondition, claims: Mapping[str, object]) -> bool:
    way, patterns = condition
    return any(matches(pattern, text) for text in texts(way, claims) for pattern in patterns)


def _text(value: object) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value.bit_length() <= 64 else None
    return None


@lru_cache(_PATTERNS)
def _parts(pattern: str) -> tuple[str | _Wild, ...]:
    parts: list[str | _Wild] = []
    for character in pattern:
        if character == "*" and parts and parts[-1] in (_Wild.ANY, _Wild.ALL):
            parts[-1] = _Wild.ALL
        elif character in "*?":
            parts.append(_Wild(character))
        else:
            parts.append(character)
    return tuple(parts)


def _reachable(parts: Sequence[str | _Wild], place: int) -> Iterator[int]:
    """*place*, and those that follow it without another character."""
    yield place
    while place < len(parts) and parts[place] in (_Wild.ANY, _Wild.ALL):
        place += 1
        yield place


def _takes(part: str | _Wild, character: str) -> bool | None:
    """Whether *part* takes *character*, and then whether it may take another one; ``None`` if it does not."""
    if part is _Wild.ALL:
        return True
    if isinstance(part, _Wild):
        return None if character in _SEPARATORS else part is _Wild.ANY
    return False if part == character else None
