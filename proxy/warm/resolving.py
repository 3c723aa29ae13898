"""Requirements turned into versions by uv's resolver, a child process that knows no index but the proxy."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uv
from msgspec import Struct
from packaging.requirements import Requirement
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from proxy.core.warming import AGENT, marked
from proxy.names import normalize
from proxy.warm.inputs import Group, Locked, requirements_of
from proxy.warm.targets import Target

#: Settings of the user's that would have uv ask elsewhere, or write elsewhere.
_FOREIGN = ("UV_", "PIP_", "VIRTUAL_ENV", "CONDA_PREFIX")
#: The proxy that is warmed is asked directly, by uv as by ourselves.
_OUTBOUND = ("http_proxy", "https_proxy", "all_proxy")
_MARKS = ("\N{MULTIPLICATION SIGN}", "╰─▶", "│", "error:")


class Unresolved(Exception):
    """The resolver found no versions; ``str()`` are its own words, in one line."""


class Wishes(Struct, frozen=True):
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
            environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(_FOREIGN) and name.lower() not in _OUTBOUND
            }
            environment |= {
                "UV_CACHE_DIR": str(self._cache / "uv"),
                # Not an argument, which every user of the machine could read: it may have a password in it.
                "UV_DEFAULT_INDEX": marked(self._index_url),
                "UV_PYTHON_DOWNLOADS": "never",
                "UV_NO_CONFIG": "1",
                "NO_COLOR": "1",
                **(target.resolver_environment if target is not None else {}),
            }
            child = _Child()
            binary = uv.find_uv_bin()
            self._reactor.spawnProcess(child, binary, [binary, *command], environment, path=folder)
            status = await child.ended
        if status != 0:
            raise Unresolved(_words(child.said(2)))
        return [_locked(line, group) for line in child.said(1).splitlines() if "==" in line]

    def requirements(self, group: Group) -> list[str]:
        """The requirements of *group* one by one, those of a ``pyproject.toml`` included."""
        if group.project is None:
            return group.requirements
        return requirements_of(group.project, self._wishes.extras, self._wishes.groups)

    def _command(self, group: Group, target: Target | None, folder: Path) -> list[str]:
        wishes = self._wishes
        # Sources of a pyproject.toml's own ([tool.uv.sources]) are not the proxy's.
        command = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-progress", "--no-sources"]
        command += ["--python", sys.executable]
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


class _Child(ProcessProtocol):
    """uv.  ``ended`` is its exit status, a signal's number with a minus; cancelling it kills uv."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred(self._kill)
        self._heard: dict[int, list[bytes]] = {1: [], 2: []}

    def said(self, descriptor: int) -> str:
        """What it wrote to standard output (1) or standard error (2)."""
        return b"".join(self._heard[descriptor]).decode("utf-8", "replace")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._heard[childFD].append(data)

    def processEnded(self, reason: Failure) -> None:
        status: Any = reason.value
        if not self.ended.called:
            self.ended.callback(status.exitCode if status.exitCode is not None else -status.signal)

    def _kill(self, _: Deferred[int]) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")


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
    return " ".join(stderr.replace(f"{AGENT}@", "").split()) or "uv said nothing"
