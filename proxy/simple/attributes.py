"""Attributes of an HTML page's links that this proxy does not know: kept and written as they came, like unknown JSON keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from proxy.model import EMPTY

#: What links commonly have, and what this proxy reads.
_KNOWN = frozenset(
    {
        *("href", "rel", "title", "class", "id", "target", "download", "type"),
        *("data-requires-python", "data-yanked", "data-core-metadata", "data-dist-info-metadata", "data-gpg-sig"),
        *("data-provenance", "data-size", "data-upload-time"),
    }
)
_NAME = re.compile(r"data-[a-z0-9][a-z0-9._-]{0,60}")
#: The most of them that one link keeps, and the longest value (characters).
_MOST = 20
_LONGEST = 1000


def others(attributes: Mapping[str, str | None]) -> Mapping[str, Any]:
    """The ``data-`` attributes among *attributes* that this proxy does not know, by name."""
    if _KNOWN.issuperset(attributes):
        return EMPTY
    kept = {name: value or "" for name, value in attributes.items() if _is_kept(name, value or "")}
    return dict(list(kept.items())[:_MOST])


def written(extra: Mapping[str, Any]) -> str:
    """The attributes among *extra*, as they are written in a tag."""
    return "".join(f' {name}="{escape(value)}"' for name, value in extra.items() if _is_kept(name, value))


def _is_kept(name: str, value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and name not in _KNOWN and _NAME.fullmatch(name) is not None
