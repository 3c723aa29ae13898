"""A real ``sshd`` on loopback, for tests that copy files with real ``scp``, ``sftp`` and ``rsync``."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.process import Ended, Running, environment, run

_SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
#: What its process of less privilege runs in.
_EMPTY = Path("/run/sshd")


def what_is_missing(*commands: str) -> str | None:
    """Why no such server can be run here, or none of *commands*; ``None`` if all can."""
    missing = [each for each in ("ssh", "ssh-keygen", *commands) if shutil.which(each) is None]
    if _SSHD is None:
        missing.insert(0, "sshd")
    if missing:
        return f"{', '.join(missing)}: not here (Debian: apt install openssh-server openssh-client rsync)"
    if os.getuid() == 0 and not _EMPTY.is_dir() and not os.access(_EMPTY.parent, os.W_OK):
        return f"{_EMPTY} is missing and cannot be made"
    return None


class SshServer:
    """A server that lets this user in with a key of its own; everything is below *place*."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = 0
        self._process = Running()

    async def started(self) -> SshServer:
        """Start it, and wait until it listens."""
        self.place.mkdir(mode=0o700)
        if os.getuid() == 0:
            _EMPTY.mkdir(mode=0o755, exist_ok=True)
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.place / name)]
            subprocess.run(command, check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.place / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.place / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {self.place / 'user.pub'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxStartups 50\n"
        )
        assert _SSHD is not None
        arguments = [_SSHD, "-D", "-e", "-f", str(self.place / "config")]
        self._process.spawn(arguments, environment(self.place), self.place)
        await self._process.until(lambda: "listening on" in self._process.output or self._process.ended is not None, 60.0)
        assert self._process.ended is None, self._process.output
        return self

    async def stop(self) -> None:
        """End it, and what it serves."""
        if (self.place / "shared").exists():
            await self.run([*self.shell, "-O", "exit", self.host])
        if self._process.ended is None:
            self._process.signal(signal.SIGTERM)
            await self._process.end()

    @property
    def options(self) -> list[str]:
        """The options that ``ssh``, ``scp`` and ``sftp`` have in common, but for the port."""
        return [
            *("-F", "/dev/null", "-i", str(self.place / "user"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.place / 'known'}"),
            # one connection for all: each would take longer to begin than a copy takes
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={self.place / 'shared'}", "-o", "ControlPersist=yes"),
        ]

    @property
    def host(self) -> str:
        """``user@host``."""
        return f"{getpass.getuser()}@127.0.0.1"

    @property
    def shell(self) -> list[str]:
        """The command that runs others there."""
        return ["ssh", *self.options, "-p", str(self.port)]

    async def run(self, arguments: Sequence[str]) -> Ended:
        """Run a client to its end; it must succeed."""
        ended = await run(arguments, environment(self.place), self.place)
        assert ended.status == 0, ended.output
        return ended
