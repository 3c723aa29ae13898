"""What is said at the start: what is served from where, at which URL, and what to set in pip and uv to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from proxy.core.clients import Address, settings
from proxy.core.roots import index_root
from proxy.settings import IndexSettings, Settings

#: Indexes that are listed.
_LISTED = 10
#: Hosts that stand for every address of this machine.
_EVERYWHERE = ("0.0.0.0", "::")


def banner(version: str, configured: Settings, urls: Iterable[str], log: str, hostname: str) -> list[str]:
    """The lines for a proxy with the settings *configured* that listens at *urls* and logs to *log*.

    *hostname* is what other machines call this one.
    """
    reached = [_reached(url, hostname) for url in urls]
    shown = served(configured)
    if len(shown) > _LISTED:
        shown = [*shown[:_LISTED], f"{len(shown) - _LISTED} more: pypiproxy check-config lists them"]
    rows = [
        ("data", [str(configured.server.data_dir)]),
        ("index" if len(shown) == 1 else "indexes", shown),
        ("listening", reached),
        ("log", [log]),
        *_clients(reached, configured.indexes),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"pypiproxy {version}"]
    for name, values in rows:
        lines += [f"  {label.ljust(width)}  {value}" for label, value in zip([name] + [""] * len(values), values, strict=False)]
    return lines


def served(configured: Settings) -> list[str]:
    """Each index: where clients find it, and what it is served from."""
    addresses = {upstream.name: upstream.url for upstream in configured.upstreams}
    return [f"{' and '.join(_paths(index))} from {_sources(index, addresses)}" for index in configured.indexes]


def _paths(index: IndexSettings) -> list[str]:
    """Where clients find *index*."""
    named = f"{index_root(index.name)}simple/"
    return ["/simple/", named] if index.default else [named]


def _sources(index: IndexSettings, addresses: Mapping[str, str]) -> str:
    """What *index* is served from; *addresses* are the URLs of upstreams by name."""
    if index.hosted is not None:
        return "its own files"
    if index.members:
        return ", ".join(index.members)
    if index.offline:
        return "what is stored alone: it is offline"
    return ", ".join(f"{name} <{addresses[name]}>" for name in index.upstreams)


def _reached(url: str, hostname: str) -> str:
    """Where clients reach what listens at *url*."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname in _EVERYWHERE:
        return f"{parts.scheme}://{hostname}:{parts.port}/"
    return url


def _clients(reached: Sequence[str], indexes: Sequence[IndexSettings]) -> list[tuple[str, list[str]]]:
    """What to set in pip and in uv."""
    url = next((each for each in reached if each.startswith("http")), None)
    default = next((each for each in indexes if each.default), None)
    if url is None or default is None:
        return []
    address = Address.of(url)
    rows = []
    for client in ("pip", "uv"):
        variables = settings(client, address)[0].variables
        rows.append((client, ["export " + " ".join(f"{name}={value}" for name, value in variables.items())]))
    return rows
