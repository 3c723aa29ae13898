"""The configuration of clients on this machine, as far as it leads past the proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from proxy.core.bypasses import FAMILIES, PIP, Family, OtherSources, elsewhere, in_environment
from proxy.core.client_files import READERS
from proxy.core.clients import Address
from proxy.simple.links import shown

#: A configuration file is not longer than this (bytes).
_LONGEST = 1024 * 1024


def past_the_proxy(client: str, address: Address, environ: Mapping[str, str], root: Path = Path("/")) -> Iterator[str]:
    """What makes *client* ask others than the proxy at *address* on the machine with the files below *root*: sentences."""
    for family in FAMILIES:
        if client in family.clients:
            yield from map(_said, elsewhere(in_environment(family, environ), address.base))
            for file in configuration_files(family, environ, root):
                yield from _in_file(family, file, address)
    if client == "pip" and "VIRTUAL_ENV" not in environ:
        for mark in sorted(root.glob("usr/lib/python3*/EXTERNALLY-MANAGED")):
            yield (
                f"{mark.parent} is managed by the system (externally-managed-environment): its pip installs in virtual "
                "environments only, whatever its index is; python3 -m venv makes one"
            )


def _said(sources: OtherSources) -> str:
    consequence = "instead of the proxy: change it" if sources.instead else "beside the proxy: remove it"
    return f"{sources.setting} in {sources.where} ({', '.join(map(shown, sources.urls))}) is used {consequence}"


def _in_file(family: Family, file: Path, address: Address) -> Iterator[str]:
    sources: list[OtherSources]
    try:
        with file.open(encoding="utf-8") as opened:
            sources = list(READERS[family.files](opened.read(_LONGEST), str(file)))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        yield f"{file} cannot be read: {error.strerror if isinstance(error, OSError) else error}"
        return
    yield from map(_said, elsewhere(sources, address.base))


def configuration_files(family: Family, environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    """The configuration files that clients of *family* read, whether they exist or not; later ones win."""
    home = Path(environ.get("HOME") or root / "root")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = [Path(each) for each in environ.get("XDG_CONFIG_DIRS", "").split(os.pathsep) if each] or [root / "etc/xdg"]
    named = environ.get(f"{family.prefix}CONFIG_FILE")
    if family is PIP:
        if named == os.devnull:
            return
        yield from (each / "pip/pip.conf" for each in shared)
        yield root / "etc/pip.conf"
        if not (named and Path(named).exists()):  # which takes the place of the user's
            yield home / ".pip/pip.conf"
            yield config / "pip/pip.conf"
        if "VIRTUAL_ENV" in environ:
            yield Path(environ["VIRTUAL_ENV"]) / "pip.conf"
    elif not named:
        yield from (each / "uv/uv.toml" for each in shared)
        yield root / "etc/uv/uv.toml"
        yield config / "uv/uv.toml"
    if named:
        yield Path(named)
