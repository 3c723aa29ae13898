"""The machines that files are fetched for: their Python, and the platform tags that wheels for them bear (PEP 425)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from msgspec import Struct
from packaging import tags

_MANYLINUX = re.compile(r"manylinux_2_(\d+)_(\w+)")
_LEGACY = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
_OLD_NAME = re.compile(r"(manylinux1|manylinux2010|manylinux2014)_(\w+)")
_MUSLLINUX = re.compile(r"musllinux_1_(\d+)_(\w+)")
_MACOS = re.compile(r"macosx_(\d+)_(\d+)_(\w+)")
_PYTHON = re.compile(r"3\.(\d+)")

#: What uv calls an architecture and an operating system.
_UV_WINDOWS = {
    "win_amd64": "x86_64-pc-windows-msvc",
    "win_arm64": "aarch64-pc-windows-msvc",
    "win32": "i686-pc-windows-msvc",
}
#: The versions of glibc that uv has a platform for, the newest first.
_UV_GLIBC = (40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17)


class BadTarget(Exception):
    """A target that is none; ``str()`` says what was expected."""


class Target(Struct, frozen=True):
    """One kind of machine.  ``platform`` is a wheel's platform tag, ``None``: this machine's."""

    python: tuple[int, int]
    platform: str | None
    implementation: str = "cp"

    def __str__(self) -> str:
        return f"{self.implementation}{self.python[0]}.{self.python[1]} on {self.platform or 'this platform'}"

    @property
    def resolver_options(self) -> list[str]:
        """What to tell ``uv pip compile``."""
        options = ["--python-version", f"{self.python[0]}.{self.python[1]}"]
        if self.platform is not None:
            options += ["--python-platform", _uv_platform(self.platform)]
        return options

    @property
    def resolver_environment(self) -> dict[str, str]:
        """What to tell it in its environment."""
        macos = _MACOS.fullmatch(self.platform or "")
        return {"MACOSX_DEPLOYMENT_TARGET": f"{macos[1]}.{macos[2]}"} if macos is not None else {}

    def ranks(self) -> dict[tags.Tag, int]:
        """The tags that are accepted, each with its rank: 0 is preferred to all others."""
        platforms = list(tags.platform_tags()) if self.platform is None else list(_older(self.platform))
        interpreter = f"{self.implementation}{self.python[0]}{self.python[1]}"
        if self.implementation == "cp":
            own = list(tags.cpython_tags(self.python, platforms=platforms))
        else:
            abi = f"pypy{self.python[0]}{self.python[1]}_pp73"
            own = list(tags.generic_tags(interpreter, [abi], platforms))
        accepted = [*own, *tags.compatible_tags(self.python, interpreter, platforms)]
        return {tag: rank for rank, tag in reversed(list(enumerate(accepted)))}


def targets(pythons: tuple[str, ...], platforms: tuple[str, ...], implementation: str) -> list[Target]:
    """Every combination; this machine's Python and platform where nothing is said.  Raises BadTarget."""
    if implementation not in ("cp", "pp"):
        raise BadTarget(f"--implementation {implementation}: expected cp or pp")
    versions = [_version(each) for each in pythons] or [sys.version_info[:2]]
    wanted: list[str | None] = [*platforms] or [None]
    for platform in platforms:
        _uv_platform(platform)
    return [Target(version, platform, implementation) for version in versions for platform in wanted]


def _version(text: str) -> tuple[int, int]:
    match = _PYTHON.fullmatch(text)
    if match is None:
        raise BadTarget(f"--python {text}: expected a version such as 3.12")
    return 3, int(match[1])


def _older(platform: str) -> Iterator[str]:
    """*platform* and all that run on it as well, the most specific first (PEP 600, PEP 656)."""
    old = _OLD_NAME.fullmatch(platform)
    manylinux = _MANYLINUX.fullmatch(platform)
    if old is not None or manylinux is not None:
        newest, machine = (_LEGACY[old[1]], old[2]) if old is not None else (int(manylinux[1]), manylinux[2])  # type: ignore[index]  # one of them matched
        for glibc in range(newest, 4, -1):
            yield f"manylinux_2_{glibc}_{machine}"
            yield from (f"{name}_{machine}" for name, version in _LEGACY.items() if version == glibc)
        yield f"linux_{machine}"
    elif (musllinux := _MUSLLINUX.fullmatch(platform)) is not None:
        yield from (f"musllinux_1_{musl}_{musllinux[2]}" for musl in range(int(musllinux[1]), -1, -1))
        yield f"linux_{musllinux[2]}"
    elif (macos := _MACOS.fullmatch(platform)) is not None:
        yield from tags.mac_platforms((int(macos[1]), int(macos[2])), macos[3])
    else:
        yield platform


def _uv_platform(platform: str) -> str:
    """uv's name for *platform*.  Raises BadTarget."""
    if platform in _UV_WINDOWS:
        return _UV_WINDOWS[platform]
    old, manylinux = _OLD_NAME.fullmatch(platform), _MANYLINUX.fullmatch(platform)
    if old is not None:
        return f"{old[2]}-manylinux2014"
    if manylinux is not None:
        glibc = next((each for each in _UV_GLIBC if each <= int(manylinux[1])), _UV_GLIBC[-1])
        return f"{manylinux[2]}-manylinux_2_{glibc}"
    if (musllinux := _MUSLLINUX.fullmatch(platform)) is not None:
        return f"{musllinux[2]}-unknown-linux-musl"
    if (macos := _MACOS.fullmatch(platform)) is not None:
        return f"{'aarch64' if macos[3] == 'arm64' else 'x86_64'}-apple-darwin"
    if platform.startswith("linux_"):
        return f"{platform.removeprefix('linux_')}-unknown-linux-gnu"
    raise BadTarget(
        f"--platform {platform}: expected a wheel's platform tag such as manylinux_2_28_x86_64, musllinux_1_2_aarch64, "
        "macosx_14_0_arm64 or win_amd64"
    )
