"""An image, made without an engine: the steps of a Containerfile, carried out in a Debian tree that debootstrap has made.

The tree stands for the image after ``FROM``: Debian's Python instead of that of the official image, under the same name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.clients.tools import PLACE

#: The tree that all images begin with; it takes some minutes to make.
BASE = PLACE / "debian"
_TREE = PLACE / "debian-image"
#: What the official image of Python has, and the marks that it does not have.
_PACKAGES = "python3,python3-pip,ca-certificates"
_AS_OFFICIAL = "ln -sf python3 /usr/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED"
#: How this machine's pip gets packages; passed on to that in the tree.
_PASSED_ON = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", os.environ.get("PIP_FIND_LINKS", ""))
_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "https_proxy")


def cannot_build() -> str | None:
    """Why no image can be made here; ``None`` if one can."""
    if os.geteuid():
        return "only root can make a Debian tree"
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        return "debootstrap is not here (Debian: apt install debootstrap)"
    return None


class Image:
    """The image of *containerfile*, with *context* as the directory that is copied from."""

    def __init__(self, containerfile: Path, context: Path) -> None:
        self._context = context
        text = re.sub(r"^#.*\n", "", containerfile.read_text("utf-8"), flags=re.MULTILINE)
        lines = re.sub(r"\\\n\s*", " ", text).splitlines()
        self._steps = [line.split(maxsplit=1) for line in lines if line.strip()]
        self._variables: dict[str, str] = {}
        #: The user and group that it runs as.
        self.user = (0, 0)
        #: What it runs.
        self.entrypoint: tuple[str, ...] = ()
        #: What tells whether it is healthy.
        self.healthcheck: tuple[str, ...] = ()
        self.stop_signal = signal.SIGTERM

    def build(self) -> None:
        """Carry out all steps; raises for one that is not known, or fails."""
        self._begin()
        for instruction, arguments in self._steps:
            match instruction:
                case "FROM" | "EXPOSE" | "VOLUME":
                    pass  # the tree is there; nothing is isolated from this machine's network and disk
                case "COPY":
                    *sources, target = arguments.split()
                    self._copy(sources, target)
                case "RUN":
                    subprocess.run(self.command(["/bin/sh", "-c", arguments]), check=True, capture_output=True, text=True)
                case "ENV":
                    self._variables |= dict(re.findall(r"(\w+)=(\S+)", arguments))
                case "USER":
                    user, _, group = arguments.partition(":")
                    self.user = (int(user), int(group))
                case "ENTRYPOINT" | "CMD":
                    self.entrypoint += tuple(json.loads(arguments))
                case "HEALTHCHECK":
                    self.healthcheck = tuple(json.loads(arguments.partition("CMD ")[2]))
                case "STOPSIGNAL":
                    self.stop_signal = signal.Signals[arguments]
                case _:
                    raise AssertionError(f"{instruction} is not known here")

    def command(self, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> list[str]:
        """The command that runs *arguments* in the image, as its user."""
        passed = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", **passed, **self._variables, **(variables or {})}
        user, group = self.user
        options = [f"--userspec={user}:{group}", "--groups="] if user else []
        setting = ["env", "-i", *(f"{name}={value}" for name, value in env.items())]
        return [_found("chroot"), *options, str(_TREE), *setting, *arguments]

    def _begin(self) -> None:
        if not (BASE / "made").exists():
            shutil.rmtree(BASE, ignore_errors=True)
            command = [_found("debootstrap"), "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(BASE)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            subprocess.run([_found("chroot"), str(BASE), "/bin/sh", "-c", _AS_OFFICIAL], check=True)
            (BASE / "made").touch()
        shutil.rmtree(_TREE, ignore_errors=True)
        subprocess.run(["cp", "--archive", "--reflink=auto", str(BASE), str(_TREE)], check=True)
        for name in (Path(each) for each in _PASSED_ON if each.startswith("/")):
            target = _TREE / name.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.is_dir():
                shutil.copytree(name, target, dirs_exist_ok=True)
            elif name.exists():
                shutil.copy(name, target)

    def _copy(self, sources: Sequence[str], target: str) -> None:
        place = _TREE / target.lstrip("/")
        for source in (self._context / each for each in sources):
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                end = place / source.name if target.endswith("/") else place
                end.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, end)


def _found(program: str) -> str:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or program
