"""Requirements turned into versions by uv's resolver, a child process that knows no index but the proxy."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uv
from attrs import frozen
from packaging.requirements import Requirement
from twisted.internet.utils import getProcessOutputAndValue

from proxy.names import normalize
from proxy.warm.inputs import Group, Locked
from proxy.warm.targets import Target

#: Settings of the user's that would have uv ask elsewhere, or write elsewhere.
_FOREIGN = ("UV_", "PIP_", "VIRTUAL_ENV", "CONDA_PREFIX")
_MARKS = ("\N{MULTIPLICATION SIGN}", "╰─▶", "│", "error:")


class Unresolved(Exception):
    """The resolver found no versions; ``str()`` are its own words, in one line."""


@frozen
class Wishes:
    """How to resolve."""

    deps: bool = True
    only_binary: bool = False
    universal: bool = False
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    constraints: tuple[Path, ...] = ()


class Resolver:
    """Resolves through the index at *index_url*.  Pages and metadata that it needs come into the proxy's cache by that."""

    def __init__(self, index_url: str, cache: Path, wishes: Wishes, reactor: Any) -> None:
        self._index_url = index_url
        self._cache = cache
        self._wishes = wishes
        self._reactor = reactor

    async def resolve(self, group: Group, target: Target | None) -> list[Locked]:
        """The versions that *group* comes down to on *target* (``None``: on all platforms).  Raises Unresolved."""
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            command = self._command(group, target, Path(folder))
            environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
            environment |= {
                "UV_CACHE_DIR": str(self._cache / "uv"),
                "UV_PYTHON_DOWNLOADS": "never",
                "UV_NO_CONFIG": "1",
                "NO_COLOR": "1",
                **(target.resolver_environment if target is not None else {}),
            }
            out, err, status = await getProcessOutputAndValue(
                uv.find_uv_bin(), command, environment, path=folder, reactor=self._reactor
            )
        if status != 0:
            raise Unresolved(_words(err.decode("utf-8", "replace")))
        return [_locked(line, group) for line in out.decode().splitlines() if "==" in line]

    def _command(self, group: Group, target: Target | None, folder: Path) -> list[str]:
        wishes = self._wishes
        command = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-progress"]
        command += ["--python", sys.executable, "--default-index", self._index_url]
        command += ["--universal"] if target is None else target.resolver_options
        command += [] if wishes.deps and group.deps else ["--no-deps"]
        command += ["--only-binary", ":all:"] if wishes.only_binary else []
        command += ["--prerelease", "allow"] if group.prereleases else []
        for constraint in wishes.constraints:
            command += ["--constraint", str(constraint.resolve())]
        if group.constraints:
            command += ["--constraint", _written(folder / "constraints.txt", group.constraints)]
        if group.project is not None:
            for extra in wishes.extras:
                command += ["--extra", extra]
            for name in wishes.groups:
                command += ["--group", f"{group.project.resolve()}:{name}"]
            return [*command, str(group.project.resolve())]
        return [*command, _written(folder / "requirements.txt", group.requirements)]


def _written(path: Path, lines: Sequence[str]) -> str:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


def _locked(line: str, group: Group) -> Locked:
    requirement = Requirement(line)
    name = normalize(requirement.name)
    version = next(iter(requirement.specifier)).version
    return Locked(name, version, group.hashes.get(name, frozenset()))


def _words(stderr: str) -> str:
    """uv's message without its drawing, in one line."""
    for mark in _MARKS:
        stderr = stderr.replace(mark, " ")
    return " ".join(stderr.split()) or "uv said nothing"
