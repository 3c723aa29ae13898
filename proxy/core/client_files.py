"""The configuration files of clients, as far as they name indexes and other sources.  Only commands need this module."""

from __future__ import annotations

import configparser
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxy.core.bypasses import PIP, UV, OtherSources, other_sources


def in_pip_conf(text: str, where: str) -> Iterator[OtherSources]:
    """What the ``pip.conf`` *text* names, in any section.  Raises ValueError."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    for section in parser.sections():
        for setting in (*PIP.adding, *PIP.replacing):
            # pip takes underscores too.
            value = parser.get(section, setting, fallback="") or parser.get(section, setting.replace("-", "_"), fallback="")
            yield from other_sources(where, f"[{section}] {setting}", value, setting in PIP.replacing)


def in_uv_toml(text: str, where: str) -> Iterator[OtherSources]:
    """What the ``uv.toml`` *text* names, for uv and for ``uv pip``.  Raises ValueError."""
    table = tomllib.loads(text)
    for prefix, each in (("", table), ("pip.", table.get("pip"))):
        if isinstance(each, Mapping):
            yield from _in_uv_table(each, where, prefix)


def _in_uv_table(table: Mapping[str, Any], where: str, prefix: str) -> Iterator[OtherSources]:
    for setting in ("extra-index-url", "find-links", "index-url"):
        texts = [each for each in _list(table.get(setting)) if isinstance(each, str)]
        yield from other_sources(where, prefix + setting, " ".join(texts), setting in UV.replacing)
    for index in _list(table.get("index")):
        if isinstance(index, Mapping) and isinstance(index.get("url"), str):
            yield from other_sources(where, f"{prefix}[[index]]", index["url"], index.get("default") is True)


def _list(value: object) -> list[Any]:
    """*value* as a list, which one text stands for as well; empty if it is neither."""
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


#: Reads the text of a configuration file, which stands *where*.
READERS: Mapping[str, Callable[[str, str], Iterator[OtherSources]]] = {PIP.files: in_pip_conf, UV.files: in_uv_toml}
