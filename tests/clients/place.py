"""Where a client works: a proxy, the upstream behind it, and a home in which nothing else is configured.

Whatever a client asks of any other host goes to a recorder, by way of ``HTTPS_PROXY``; see `Place.check`.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.core.clients import ENVIRONMENT, Address, settings
from tests.clients.shop import put
from tests.clients.tools import tool
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import Ended, ProxyProcess, Running, environment, run
from tests.support.wheels import wheel

#: How clients reach the proxy: over plain http on this machine, or on one that they take for another (0.0.0.0), and over https.
LOCAL, OTHER, TLS = WAYS = ("local", "other", "tls")
#: The variables that lead clients out through an http proxy.
OUTWARD = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
#: Said to every client: ask nothing that the test has not configured, and do not draw.
_QUIET = {
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_RETRIES": "0",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_HTTP_RETRIES": "0",
    "VIRTUALENV_NO_PERIODIC_UPDATE": "1",
    "NO_COLOR": "1",
    "CI": "1",
    "no_proxy": "127.0.0.1,localhost,0.0.0.0",
    "NO_PROXY": "127.0.0.1,localhost,0.0.0.0",
}


class Place:
    """A folder with a home in it.  *way* is one of `WAYS`; *index* is an index of the proxy, ``None`` the default one."""

    def __init__(
        self, folder: Path, proxy: ProxyProcess, upstream: FakeUpstream, outside: FakeUpstream, way: str, index: str | None
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.proxy = proxy
        self.upstream = upstream
        self._outside = outside
        self._way = way
        self._index = index

    @property
    def address(self) -> Address:
        """The proxy, as the client is told of it."""
        if self._way == TLS:
            # another one after each start
            port = re.findall(r"serving on https://127\.0\.0\.1:(\d+)/", self.proxy.log)[-1]
            return Address.of(f"https://127.0.0.1:{port}", self._index, str(self.folder / "ca.crt"))
        host = "127.0.0.1" if self._way == LOCAL else "0.0.0.0"
        return Address.of(f"http://{host}:{self.proxy.port}", self._index)

    def variables(self, client: str) -> dict[str, str]:
        """The environment that client-config prints for *client*; empty if it prints none."""
        found = [each.variables for each in settings(client, self.address) if each.where == ENVIRONMENT]
        return found[0] if found else {}

    def text(self, client: str, where: str) -> str:
        """What client-config prints for *client* to be put into the file, or to be done by the command, *where*."""
        return next(each.text for each in settings(client, self.address) if each.where == where)

    def link(self, project: str) -> str:
        """How URLs of *project*'s files begin, as lock files record them."""
        return f"{self.address.index.removesuffix('simple/')}files/{project}/"

    def project(self, file: str, text: str) -> Path:
        """A new folder with *text* in the file *file*."""
        made = self.folder / "project"
        made.mkdir()
        (made / file).write_text(text, "utf-8")
        return made

    def environment(self, client: str, variables: Mapping[str, str]) -> dict[str, str]:
        """What *client* is run in: its own commands first, nothing configured but *variables*."""
        elsewhere = dict.fromkeys(OUTWARD, self._outside.base)
        env = environment(self.home, **{**_QUIET, **elsewhere, **variables})
        env["PATH"] = f"{tool(client)}:{env['PATH']}"
        return env

    async def run(
        self,
        client: str,
        *arguments: str | Path,
        within: Path | None = None,
        variables: Mapping[str, str] | None = None,
        status: int = 0,
    ) -> str:
        """What a command of *client* writes (``pip install …`` and so on), run in *within*.

        *variables* are those that client-config prints unless given.  Fails when it ends with another *status*.
        """
        command, env = self._command(client, arguments, variables)
        ended: Ended = await run(command, env, within or self.folder, timeout=120.0)
        assert ended.status == status, f"{command}: {ended.status}\n{ended.output}\n-- the proxy:\n{self.proxy.log[-3000:]}"
        return ended.output

    def start(self, client: str, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> Running:
        """A server that goes on running; the test ends it."""
        command, env = self._command(client, arguments, variables)
        return Running().spawn(command, env, self.folder)

    def _command(
        self, client: str, arguments: Sequence[str | Path], variables: Mapping[str, str] | None
    ) -> tuple[list[str], dict[str, str]]:
        env = self.environment(client, self.variables(client) if variables is None else variables)
        return [str(tool(client) / arguments[0]), *map(str, arguments[1:])], env

    async def start_over(self) -> None:
        """Throw all away that the proxy has kept and start it again, with a release upstream that is in no lock file yet."""
        await self.proxy.stop()
        shutil.rmtree(self.proxy.data_dir)
        put(self.upstream, wheel("shop-lib", "2.3"))
        await self.proxy.started()

    def check(self) -> None:
        """Nothing but the proxy was asked, and the proxy had no accident."""
        assert self._outside.asked == [], "a client asked another host"
        for each in self.upstream.asked:
            assert each.headers.get("user-agent", "").startswith("pypiproxy/"), f"{each} came past the proxy"
        assert "Traceback" not in self.proxy.log, self.proxy.log


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, for servers that cannot say which one they took."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def write_certificates(folder: Path) -> list[str]:
    """Options that let a proxy serve https too, by a certificate that only ``ca.crt`` in *folder* vouches for."""
    certs.authority().write(folder, "ca")
    certificate, key = certs.server().write(folder, "server")
    return ["--listen", f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"]
