"""Another user of this machine, for tests that root runs: ``nobody``, with a Python and directories that it may use."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import twisted
from tests.support.process import ROOT, Python

NAME = "nobody"
#: Runs a command as that user.
AS_NOBODY = (shutil.which("runuser") or "runuser", "-u", NAME, "--")
_IMPORTS = "import twisted, attrs, msgspec, diskcache, zstandard, proxy.service"


@cache
def python_of_nobody() -> Python | str:
    """A Python that the user can run the proxy with; a sentence that says why there is none."""
    if os.getuid() != 0:
        return "only root can run processes as another user"
    if shutil.which("runuser") is None:
        return "there is no runuser here"
    path = os.pathsep.join((str(ROOT), str(Path(twisted.__file__).parent.parent)))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [*AS_NOBODY, program, "-c", _IMPORTS]
        if subprocess.run(command, env={"PYTHONPATH": path}, cwd="/", capture_output=True, check=False).returncode == 0:
            return Python(program, path)
    return f"{NAME} may run no Python here that has what the proxy needs"


def user_id() -> int:
    return pwd.getpwnam(NAME).pw_uid


@contextmanager
def shared_place() -> Iterator[Path]:
    """A directory of the user's own that all may enter; pytest's own may be closed to others."""
    with tempfile.TemporaryDirectory(prefix="pypiproxy-test-") as made:
        place = Path(made)
        place.chmod(0o755)
        os.chown(place, user_id(), -1)
        yield place
