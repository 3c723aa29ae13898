"""What else a client asks, or asks instead, than the index that it is pointed at: requests that bypass the proxy.

Pure.  :mod:`proxy.core.client_files` reads configuration files, :mod:`proxy.host.clients` finds them on a machine;
:func:`cautions` says in general what to look for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct


class Family(Struct, frozen=True):
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


class OtherSources(Struct, frozen=True):
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
        yield from other_sources("the environment", variable, environ.get(variable, ""), setting in family.replacing)


def other_sources(where: str, setting: str, value: str, instead: bool) -> Iterator[OtherSources]:
    """The :class:`OtherSources` that are *value*, of *setting*; none if it is empty."""
    urls = tuple(map(_url, value.split()))
    if urls:
        yield OtherSources(where, setting, urls, instead)


def _url(text: str) -> str:
    """*text* without the name that uv lets an index have (``name=URL``)."""
    name, equals, url = text.partition("=")
    return url if equals and name.replace("-", "").replace("_", "").isalnum() else text


def elsewhere(found: Iterable[OtherSources], proxy: str) -> Iterator[OtherSources]:
    """Those of *found* that are not at the URL *proxy*, or below it, with the URLs that are not."""
    for each in found:
        urls = tuple(url for url in each.urls if not f"{url}/".startswith(f"{proxy}/"))
        if urls:
            yield OtherSources(each.where, each.setting, urls, each.instead)
