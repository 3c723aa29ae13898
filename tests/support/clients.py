"""Real pip and real uv, installing into scratch environments from nothing but the index they are given."""

from __future__ import annotations

import itertools
import os
import venv
from collections.abc import Sequence
from pathlib import Path

import pip
import uv

from tests.support.process import Ended, environment, run

_numbers = itertools.count(1)


def installed(folder: Path) -> dict[str, str]:
    """Version by project in the virtual environment at *folder*, as its metadata directories say."""
    found = folder.glob("lib/python*/site-packages/*.dist-info")
    return dict(each.name.removesuffix(".dist-info").rsplit("-", 1) for each in found)


class Scratch:
    """A virtual environment below *place*, empty but for pip if it is to have that, with a home of its own."""

    def __init__(self, place: Path, *, with_pip: bool = False) -> None:
        self.folder = place / f"scratch-{next(_numbers)}"
        self.home = self.folder / "home"
        venv.EnvBuilder(with_pip=with_pip, symlinks=True).create(self.folder)
        self.home.mkdir()
        self.python = self.folder / "bin" / "python"

    @property
    def installed(self) -> dict[str, str]:
        """Version by project."""
        return installed(self.folder)

    async def pip(self, index: str, *arguments: str, timeout: float = 60.0) -> Ended:
        """``pip install`` *arguments* from *index* and nowhere else, without cache and configuration."""
        command = [str(self.python), str(Path(pip.__file__).parent), "--isolated", "--disable-pip-version-check", "install"]
        options = ["--no-cache-dir", "--no-input", "--no-compile", "--progress-bar=off", "--index-url", index]
        return await self._run([*command, *options, *arguments], timeout, PIP_CONFIG_FILE=os.devnull)

    async def uv(self, index: str, *arguments: str, timeout: float = 60.0, retries: int = 3, **settings: str) -> Ended:
        """``uv pip install`` *arguments* from *index* and nowhere else, without cache and configuration, but for *settings*."""
        command = [uv.find_uv_bin(), "pip", "install", "--no-config", "--no-cache", "--no-progress"]
        options = ["--python", str(self.python), "--index-url", index]
        return await self._run(
            [*command, *options, *arguments], timeout, UV_PYTHON_DOWNLOADS="never", UV_HTTP_RETRIES=str(retries), **settings
        )

    async def caching_pip(self, index: str, *arguments: str) -> Ended:
        """``pip install`` *arguments* from *index*, with a cache, which over plain http it uses only for what it may keep."""
        command = [str(self.python), str(Path(pip.__file__).parent), "--isolated", "--disable-pip-version-check", "install"]
        settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(self.home / "pip-cache")}
        return await self._run([*command, "--no-input", "--no-compile", "--index-url", index, *arguments], 60.0, **settings)

    async def caching_uv(self, index: str, *arguments: str) -> Ended:
        """``uv pip install`` *arguments* from *index*, with a cache."""
        command = [uv.find_uv_bin(), "pip", "install", "--no-config", "--no-progress", "--python", str(self.python)]
        settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(self.home / "uv-cache")}
        return await self._run([*command, "--index-url", index, *arguments], 60.0, **settings)

    async def uv_compile(self, index: str, *arguments: str, timeout: float = 60.0) -> Ended:
        """``uv pip compile`` *arguments* from *index* and nowhere else, without cache and configuration."""
        command = [
            uv.find_uv_bin(),
            "pip",
            "compile",
            "--no-config",
            "--no-cache",
            "--no-progress",
            "--python",
            str(self.python),
        ]
        return await self._run([*command, "--index-url", index, *arguments], timeout, UV_PYTHON_DOWNLOADS="never")

    async def _run(self, command: Sequence[str], timeout: float, **settings: str) -> Ended:
        return await run(command, environment(self.home, **settings), self.folder, timeout)


async def pip_install(place: Path, index: str, *arguments: str) -> Scratch:
    """A new environment with what pip installed there.  Fails, with pip's output, when pip does."""
    scratch = Scratch(place)
    ended = await scratch.pip(index, *arguments)
    assert ended.status == 0, ended.output
    return scratch


async def uv_pip_install(place: Path, index: str, *arguments: str) -> Scratch:
    """A new environment with what uv installed there.  Fails, with uv's output, when uv does."""
    scratch = Scratch(place)
    ended = await scratch.uv(index, *arguments)
    assert ended.status == 0, ended.output
    return scratch
