"""Other proxies that pip installs, each in an environment of its own, as one process with what its documentation recommends."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from bench.environments import CannotInstallError, environment, version
from bench.process import PATIENCE
from bench.servers import Server, answers, free_port


class Peer(Server):
    """A server out of a package index.  ``name`` is its distribution's name, too."""

    #: What it needs beside itself.
    besides: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def missing(cls) -> str | None:
        """Installs it if need be; the reason if that fails."""
        try:
            cls.folder()
        except CannotInstallError as error:
            return f"{cls.name} could not be installed: {error}"
        return None

    @classmethod
    def folder(cls) -> Path:
        """Its environment.  Raises CannotInstallError."""
        return environment(cls.name, cls.name, *cls.besides)

    @classmethod
    def version(cls) -> str:
        return version(cls.folder(), cls.name)

    def _start(self) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._prepare()
        command, *arguments = self._command()
        # Nothing of this machine's settings (proxies, configurations in the home directory) reaches it.
        env = {"PATH": f"{self.folder() / 'bin'}:/usr/bin:/bin", "HOME": str(self.place), **self._settings()}
        self._launch([str(self.folder() / "bin" / command), *arguments], env)
        self.process.until(lambda: answers(self.port))

    def _prepare(self) -> None:
        """What comes before its start."""

    @abstractmethod
    def _command(self) -> list[str]:
        """A program of its environment and its arguments."""

    def _settings(self) -> Mapping[str, str]:
        """Environment variables."""
        return {}


class Pypiron(Peer):
    """A server in Rust, with its proxy mode.  Its list of malicious packages, which it fetches from elsewhere, is off."""

    name = "pypiron"

    def _command(self) -> list[str]:
        return [
            *("pypiron", "serve", "--bind-addr", f"127.0.0.1:{self.port}", "--data-dir", str(self.place / "data")),
            *("--proxy-upstream", self.upstream, "--allow-insecure-upstream", "--proxy-allow-cidr", "127.0.0.0/8"),
            *("--advisory-feed", "", "--malware-block", "false"),
        ]


class Devpi(Peer):
    """devpi-server with its index ``root/pypi`` on the upstream; its metadata support, marked experimental, is on."""

    name = "devpi-server"

    def _prepare(self) -> None:
        self._data = str(self.place / "data")
        command = [str(self.folder() / "bin" / "devpi-init"), "--serverdir", self._data, "--root-passwd", ""]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.place, env={"HOME": str(self.place)}, check=False
        )
        if done.returncode:
            raise RuntimeError(f"devpi-init: {done.stdout}{done.stderr}")

    def _command(self) -> list[str]:
        return [
            *("devpi-server", "--serverdir", self._data, "--host", "127.0.0.1", "--port", str(self.port)),
            # Its limit of 100 connections would refuse some of a herd's.
            *("--connection-limit", "1000", "--enable-core-metadata"),
        ]

    def _start(self) -> None:
        super()._start()
        token = self._call("POST", "/+login", {"user": "root", "password": ""})["password"]
        login = base64.b64encode(f"root:{token}".encode()).decode()
        self._call("PATCH", "/root/pypi", [f"mirror_url={self.upstream}/simple/"], {"X-Devpi-Auth": login})

    def _call(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        named = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), named, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            result: dict[str, Any] = json.load(response)["result"]
        return result

    @property
    def index(self) -> str:
        return f"{self.base}/root/pypi/+simple/"


class Proxpi(Peer):
    """proxpi in one gunicorn worker of two threads, as its container image runs it."""

    name = "proxpi"
    besides = ("gunicorn",)

    def _command(self) -> list[str]:
        return ["gunicorn", "--preload", "--bind", f"127.0.0.1:{self.port}", "--threads", "2", "proxpi.server:app"]

    def _settings(self) -> Mapping[str, str]:
        return {
            "PROXPI_INDEX_URL": f"{self.upstream}/simple/",
            "PROXPI_CACHE_DIR": str(self.place / "files"),
            # Otherwise it sends clients to the upstream as soon as a download takes a second.
            "PROXPI_DOWNLOAD_TIMEOUT": "120",
            "PROXPI_CONNECT_TIMEOUT": "10",
            "PROXPI_LOGGING_LEVEL": "WARNING",
        }

    @property
    def index(self) -> str:
        return f"{self.base}/index/"
