"""A machine with clients: where its configuration is, and what that says, read without running any client."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from proxy.core.bypasses import PIP, UV, OtherSources, in_environment, other_sources
from proxy.core.client_files import READERS
from proxy.doctor import project_files as read
from proxy.doctor.project_files import SourceReader
from proxy.host.clients import configuration_files

#: A configuration file is not longer than this (bytes); a lock file may be.
_LONGEST = 16 * 1024 * 1024


class NotRead(Struct, frozen=True):
    """A file that was not read: *why*, the rest of a sentence."""

    file: Path
    why: str


#: What a client is told, in the order in which later ones win.
Stated = OtherSources | NotRead


class Machine(Struct, frozen=True):
    """The environment, the present directory, and the files below *root*."""

    environ: Mapping[str, str]
    here: Path
    root: Path = Path("/")

    @property
    def home(self) -> Path:
        """The directory of the user."""
        return Path(self.environ.get("HOME") or self.root / "root")

    @property
    def config(self) -> Path:
        """Where the user's configuration is."""
        return Path(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config")

    def has(self, *programs: str) -> bool:
        """Whether one of *programs* can be run."""
        return any(shutil.which(each, path=self.environ.get("PATH", os.defpath)) for each in programs)

    def text(self, file: Path) -> str | None:
        """What is in *file*, ``None`` if it does not exist.  Raises OSError, ValueError."""
        try:
            with file.open("rb") as opened:
                return opened.read(_LONGEST).decode("utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise ValueError("is not a text file") from None

    def told(self, reader: SourceReader, files: Iterable[Path]) -> Iterator[Stated]:
        """What *reader* finds in *files*."""
        for file in files:
            try:
                text = self.text(file)
                found = [] if text is None else list(reader(text, str(file)))
            except OSError as error:
                yield NotRead(file, error.strerror or "cannot be read")
            except ValueError as error:
                yield NotRead(file, _without_contents(error))
            else:
                yield from found

    def in_variable(self, name: str, *, instead: bool) -> Iterator[Stated]:
        """What the environment variable *name* says."""
        yield from other_sources("the environment", name, self.environ.get(name, ""), instead)

    def requirement_files(self) -> list[Path]:
        """The requirement and constraint files in the present directory."""
        with suppress(OSError):
            return sorted(each for glob in ("*requirements*.txt", "*constraints*.txt") for each in self.here.glob(glob))
        return []


def _without_contents(error: ValueError) -> str:
    """What *error* says, if that is one of our own readers' words; others may quote the file."""
    words = str(error)
    return words if words.startswith(("is ", "cannot ")) else "is not understood"


def told_pip(machine: Machine) -> Iterator[Stated]:
    """What pip is told: files in the order in which pip reads them, then the environment."""
    yield from machine.told(READERS[PIP.files], configuration_files(PIP, machine.environ, machine.root))
    yield from _winning_last(in_environment(PIP, machine.environ))


def told_uv(machine: Machine) -> Iterator[Stated]:
    """What uv is told; a ``uv.toml`` of the project is read in the place of its ``pyproject.toml``."""
    if machine.environ.get("UV_NO_CONFIG", "").lower() not in ("1", "true", "yes", "on"):
        yield from machine.told(READERS[UV.files], configuration_files(UV, machine.environ, machine.root))
        if "UV_CONFIG_FILE" not in machine.environ:
            own = machine.here / UV.files
            if own.is_file():
                yield from machine.told(READERS[UV.files], [own])
            else:
                yield from machine.told(read.uv_in_pyproject, [machine.here / "pyproject.toml"])
    yield from _winning_last(in_environment(UV, machine.environ))


def _winning_last(found: Iterable[OtherSources]) -> list[OtherSources]:
    """In reverse, for of several variables that replace an index the first one wins."""
    return list(found)[::-1]


def told_poetry(machine: Machine) -> Iterator[Stated]:
    """What poetry is told; its own configuration names indexes for uploads only."""
    yield from machine.told(read.poetry_in_pyproject, [machine.here / "pyproject.toml"])


def told_pdm(machine: Machine) -> Iterator[Stated]:
    """What pdm is told."""
    files = [machine.root / "etc/xdg/pdm/config.toml", machine.config / "pdm/config.toml", machine.here / "pdm.toml"]
    yield from machine.told(read.pdm_in_config, files)
    yield from machine.in_variable("PDM_PYPI_URL", instead=True)
    yield from machine.told(read.pdm_in_pyproject, [machine.here / "pyproject.toml"])


def told_pipenv(machine: Machine) -> Iterator[Stated]:
    """What pipenv is told."""
    yield from machine.told(read.in_pipfile, [machine.here / "Pipfile"])
    yield from machine.in_variable("PIPENV_PYPI_MIRROR", instead=True)


def told_buildout(machine: Machine) -> Iterator[Stated]:
    """What buildout is told."""
    yield from machine.told(read.in_buildout_cfg, [machine.home / ".buildout/default.cfg", machine.here / "buildout.cfg"])


def told_setuptools(machine: Machine) -> Iterator[Stated]:
    """What setuptools is told where it installs without pip."""
    files = [machine.home / ".pydistutils.cfg", machine.here / "setup.cfg"]
    yield from machine.told(read.in_distutils_cfg, files)


def told_project(machine: Machine) -> Iterator[Stated]:
    """What the project in the present directory names whatever its client is configured to use."""
    yield from machine.told(read.in_requirements, machine.requirement_files())
    yield from machine.told(read.in_pyproject, [machine.here / "pyproject.toml"])
    yield from machine.told(read.in_uv_lock, [machine.here / "uv.lock"])
