"""Virtual environments with the peers in them: made once by ``venv`` and pip, kept below ``build/``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.upstream import ROOT

ENVIRONMENTS = ROOT / "build" / "bench-environments"
#: Seconds that pip may take.
_PATIENCE = 600.0


class CannotInstallError(Exception):
    """Pip could not install a peer; the message says why."""


def environment(name: str, *requirements: str) -> Path:
    """The environment *name* with what pip makes of *requirements*, as this machine's pip configuration has it.

    One that is whole and was made from the same requirements is taken as it is.  Raises CannotInstallError.
    """
    folder = ENVIRONMENTS / name
    made = folder / "made-from"
    wanted = "\n".join([sys.version, *requirements])
    if made.is_file() and made.read_text("utf-8") == wanted:
        return folder
    print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    # Without a pip of its own: unpacking and compiling one takes longer than most peers do.
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *requirements])
    # Last: an environment whose making was interrupted is made again.
    made.write_text(wanted, "utf-8")
    return folder


def version(folder: Path, distribution: str) -> str:
    """The version of *distribution* in an environment."""
    program = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    command = [str(folder / "bin" / "python"), "-c", program, distribution]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _run(command: list[str]) -> None:
    with tempfile.TemporaryFile("w+") as output:
        try:
            # The bench's own environment variables for Python would be the peer's too.
            env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            status = subprocess.run(command, stdout=output, stderr=output, env=env, timeout=_PATIENCE, check=False).returncode
        except subprocess.TimeoutExpired:
            raise CannotInstallError(f"{' '.join(command[1:4])} took longer than {_PATIENCE:.0f} s") from None
        if status:
            output.seek(0)
            said = [line.strip() for line in output if line.strip()]
            # Pip ends with what went wrong, after a warning for each place it looked at in vain.
            errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or [f"exit status {status}"]
            raise CannotInstallError(errors[-1])
