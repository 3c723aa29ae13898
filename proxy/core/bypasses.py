"""What else a client asks, or asks instead, than the index that it is pointed at: requests that bypass the proxy.

Pure: values come from an environment, or from the text of a configuration file.  :mod:`proxy.host.clients` finds these on a
machine; :func:`cautions` says in general what to look for.
"""

from __future__ import annotations

import configparser
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen


@frozen
class Family:
    """Clients that read the same settings; *files* is what their configuration files are called.

    A name is that of a setting, as in a configuration file; a variable has it in upper case behind *prefix*.
    """

    clients: frozenset[str]
    prefix: str
    files: str
    #: Settings that name further sources, and those that name another index.
    adding: tuple[str, ...]
    replacing: tuple[str, ...]
    caution: str

    def variable(self, setting: str) -> str:
        """The environment variable for *setting*."""
        return self.prefix + setting.upper().replace("-", "_")


PIP = Family(
    frozenset({"pip", "pip-tools", "pipenv", "hatch", "buildout"}),
    "PIP_",
    "pip.conf",
    ("extra-index-url", "find-links"),
    ("index-url",),
    "PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS, and extra-index-url and find-links in any pip.conf, name further sources, which "
    "pip asks beside the proxy: remove them.",
)
UV = Family(
    frozenset({"uv", "hatch"}),
    "UV_",
    "uv.toml",
    ("index", "extra-index-url", "find-links"),
    ("default-index", "index-url"),
    "UV_INDEX, UV_EXTRA_INDEX_URL and UV_FIND_LINKS, and further indexes and find-links in any uv.toml or pyproject.toml, name "
    "further sources, which uv asks beside the proxy: remove them.",
)
FAMILIES = (PIP, UV)

_EXTERNALLY_MANAGED = (
    "The pip of Debian and Ubuntu installs in virtual environments only (error: externally-managed-environment), whatever its "
    "index is."
)


@frozen
class OtherSources:
    """*setting*, which stands *where*, names *urls* or folders; ``instead``: one that takes the place of the index."""

    where: str
    setting: str
    urls: tuple[str, ...]
    instead: bool


def cautions(client: str) -> tuple[str, ...]:
    """What to look for where *client* does not ask the proxy alone: sentences."""
    found = tuple(family.caution for family in FAMILIES if client in family.clients)
    return (*found, _EXTERNALLY_MANAGED) if client == "pip" else found


def in_environment(family: Family, environ: Mapping[str, str]) -> Iterator[OtherSources]:
    """What *environ* names."""
    for setting in (*family.adding, *family.replacing):
        variable = family.variable(setting)
        yield from _sources("the environment", variable, environ.get(variable, ""), setting in family.replacing)


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
            yield from _sources(where, f"[{section}] {setting}", value, setting in PIP.replacing)


def in_uv_toml(text: str, where: str) -> Iterator[OtherSources]:
    """What the ``uv.toml`` *text* names, for uv and for ``uv pip``.  Raises ValueError."""
    table = tomllib.loads(text)
    for prefix, each in (("", table), ("pip.", table.get("pip"))):
        if isinstance(each, Mapping):
            yield from _in_uv_table(each, where, prefix)


def _in_uv_table(table: Mapping[str, Any], where: str, prefix: str) -> Iterator[OtherSources]:
    for setting in ("extra-index-url", "find-links", "index-url"):
        value = table.get(setting, ())
        texts = [value] if isinstance(value, str) else [each for each in value if isinstance(each, str)]
        yield from _sources(where, prefix + setting, " ".join(texts), setting in UV.replacing)
    for index in table.get("index", ()):
        if isinstance(index, Mapping) and isinstance(index.get("url"), str):
            yield from _sources(where, f"{prefix}[[index]]", index["url"], index.get("default") is True)


def _sources(where: str, setting: str, value: str, instead: bool) -> Iterator[OtherSources]:
    urls = tuple(map(_url, value.split()))
    if urls:
        yield OtherSources(where, setting, urls, instead)


def _url(text: str) -> str:
    """*text* without the name that uv lets an index have (``name=URL``)."""
    name, equals, url = text.partition("=")
    return url if equals and name.replace("-", "").replace("_", "").isalnum() else text


#: Reads the text of a configuration file, which stands *where*.
READERS: Mapping[str, Callable[[str, str], Iterator[OtherSources]]] = {PIP.files: in_pip_conf, UV.files: in_uv_toml}


def elsewhere(sources: Iterable[OtherSources], proxy: str) -> Iterator[OtherSources]:
    """Those of *sources* that are not at the URL *proxy*, or below it, with the URLs that are not."""
    for each in sources:
        urls = tuple(url for url in each.urls if not f"{url}/".startswith(f"{proxy}/"))
        if urls:
            yield OtherSources(each.where, each.setting, urls, each.instead)
