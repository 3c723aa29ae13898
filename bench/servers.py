"""The servers that are compared.  Each is started with an empty cache, in a folder of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench.process import Pinned
from bench.upstream import ROOT
from proxy import __version__
from proxy.accounts.passwords import hashed
from proxy.commands import asking

LOOPBACK = "tcp:0:interface=127.0.0.1"
_SITE = re.compile(r"Site starting on (\d+)")


class Server(ABC):
    """One server.  ``base`` is its ``scheme://host:port`` once it is started."""

    name: str
    base: str

    def __init__(self, upstream: str, core: int, place: Path) -> None:
        self.upstream = upstream
        self.place = place
        self._core = core
        self._given: Mapping[str, str] = {}
        self._process: Pinned | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here, or ``None``."""
        return None

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """What is measured."""

    def start(self, **settings: str) -> None:
        """Start it with nothing in its cache, and *settings* of its own in its environment."""
        self._given = settings
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self._start()

    @abstractmethod
    def _start(self) -> None: ...

    def stop(self) -> None:
        """Stop it if it runs."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and neither stopped nor ended by itself."""
        return self._process is not None and self._process.runs

    def last_words(self, lines: int = 5) -> str:
        """The end of what it has written since it was started."""
        return "\n".join(self._process.said().splitlines()[-lines:]) if self._process is not None else ""

    @property
    def process(self) -> Pinned:
        """Its process while it runs."""
        assert self._process is not None
        return self._process

    def _said(self, sought: re.Pattern[str]) -> str:
        """What the first group of *sought* is, once the process has written that."""
        self.process.until(lambda: sought.search(self.process.said()) is not None)
        found = sought.search(self.process.said())
        assert found is not None
        return found[1]

    def _launch(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = Pinned(command, self._core, self.place / "log", self.place, env)

    def reload(self, number: int) -> None:
        """Have it read its configuration again, which has changed for the time that is *number*.  Raises RuntimeError."""
        raise RuntimeError(f"{self.name} is not asked to read its configuration again")

    @property
    def index(self) -> str:
        """The simple index's root, as clients are given it."""
        return f"{self.base}/simple/"

    def page(self, project: str) -> str:
        """The URL of a project page."""
        return f"{self.index}{project}/"

    @property
    def probes(self) -> str:
        """What answers probes, as ``scheme://host:port``."""
        return self.base

    def guarded_page(self, project: str) -> str:
        """The URL of a project page that needs `LOGIN`, where the server has such; others do not look at it."""
        return self.page(project)

    def asked_page(self, project: str) -> str:
        """The URL of a project page for which a server fetches nothing but what it is asked for."""
        return self.page(project)


def _environment(home: Path) -> dict[str, str]:
    """This process's, with *home*; modules are compiled once, as they are where something is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "HOME": str(home)}


class Direct(Server):
    """No server at all: the upstream itself."""

    name = "direct"

    @classmethod
    def version(cls) -> str:
        return "the fake upstream"

    def _start(self) -> None:
        self.base = self.upstream


class TwistedWeb(Server):
    """twisted.web with an empty folder, run by the same twistd."""

    name = "twisted.web"

    @classmethod
    def version(cls) -> str:
        return f"twisted.web {metadata.version('twisted')}"

    def _start(self) -> None:
        command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
        (self.place / "empty").mkdir()
        self._launch([*command, "web", "--listen", LOOPBACK, "--path", str(self.place / "empty")], _environment(self.place))
        self.base = f"http://127.0.0.1:{self._said(_SITE)}"


#: Who may read the index that is not for everybody.
_USER, _PASSWORD = "bench", "correct horse battery"
LOGIN = f"Basic {base64.b64encode(f'{_USER}:{_PASSWORD}'.encode()).decode()}"
_CONFIG = """\
[server]
probe_listen = ["127.0.0.1:0"]
[upstream.up]
url = "{upstream}/simple/"
[[index]]
name = "pypi"
upstreams = ["up"]
default = true
{changed}
[[index]]
name = "guarded"
upstreams = ["up"]
[[index]]
name = "asked"
upstreams = ["up"]
prefetch = false
[access]
users_file = "users"
[[grant]]
role = "reader"
indexes = ["guarded"]
principals = ["authenticated"]
"""


class Pypiproxy(Server):
    """This project, as ``pypiproxy serve`` runs it with its defaults.

    Besides the default index it has one for users only, and one that fetches nothing in advance.
    """

    name = "pypiproxy"
    #: What is run, with the arguments of the command.
    program = "from proxy.cli import main; main()"

    @classmethod
    def version(cls) -> str:
        """As git names it, ``-dirty`` when the tree was being changed; outside a repository the release."""
        command = ["git", "describe", "--always", "--dirty"]
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return described.stdout.strip() or __version__

    @property
    def probes(self) -> str:
        return self._said(re.compile(r"answering probes on (http://127\.0\.0\.1:\d+)/"))

    def guarded_page(self, project: str) -> str:
        return f"{self.base}/index/guarded/simple/{project}/"

    def asked_page(self, project: str) -> str:
        return f"{self.base}/index/asked/simple/{project}/"

    @property
    def _config(self) -> Path:
        return self.place / "pypiproxy.toml"

    def _configure(self, changed: str = "") -> None:
        self._config.write_text(_CONFIG.format(upstream=self.upstream, changed=changed), "utf-8")

    def reload(self, number: int) -> None:
        # In turn: another time limit, another index for all requests, and one index more.
        changes = (
            f'ttl = "{600 + number}s"',
            f'hedge_after = "{1 + number}s"',
            f'[[index]]\nname = "more-{number}"\nupstreams = ["up"]',
        )
        self._configure(changes[number % len(changes)])
        asking.ask(self.place / "data", "reload", {}, lambda said: None)

    def _start(self) -> None:
        users = self.place / "users"
        self._configure()
        users.write_text(f"{_USER}:{hashed(_PASSWORD.encode())}\n", "utf-8")
        self._launch(
            [
                *(sys.executable, "-c", self.program, "serve", "--listen", LOOPBACK),
                *("--data-dir", str(self.place / "data"), "--config", str(self._config)),
            ],
            {**_environment(self.place), "PYTHONPATH": str(ROOT), **self._given},
        )
        self.base = self._said(re.compile(r"serving on (http://127\.0\.0\.1:\d+)/"))


#: Pages pass through two servers: the inner one rewrites links and compresses, the outer one keeps the finished bytes.
_NGINX_CONF = """\
{user}
daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log {place}/access.log combined buffer=64k flush=1s;
    client_body_temp_path {place}/temp/body; proxy_temp_path {place}/temp/proxy; fastcgi_temp_path {place}/temp/fastcgi;
    uwsgi_temp_path {place}/temp/uwsgi; scgi_temp_path {place}/temp/scgi;
    sendfile on;
    tcp_nopush off;
    keepalive_requests 1000000000;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_cache_path {place}/cache levels=1:2 keys_zone=all:20m max_size=20g inactive=30d use_temp_path=off;
    proxy_cache_lock on;
    proxy_cache_lock_age 5m;
    proxy_cache_lock_timeout 5m;
    proxy_cache_background_update on;
    proxy_cache_use_stale error timeout invalid_header updating http_500 http_502 http_503 http_504 http_429;
    proxy_ignore_headers Vary Set-Cookie;
    map $http_accept $kind {{
        default text/html;
        "~application/vnd\\.pypi\\.simple\\.v1\\+json" application/vnd.pypi.simple.v1+json;
    }}
    map $http_accept_encoding $coding {{ default ""; ~gzip gzip; }}
    upstream origin {{ server {origin}; keepalive 32; }}
    upstream finished {{ server unix:{place}/socket; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location /simple/ {{
            proxy_pass http://finished;
            proxy_set_header Accept $kind;
            proxy_set_header Accept-Encoding $coding;
            proxy_cache all;
            proxy_cache_key "$uri $kind $coding";
        }}
        location /packages/ {{
            proxy_pass http://origin;
            proxy_set_header Accept-Encoding identity;
            proxy_cache all;
            proxy_cache_key $uri;
            proxy_cache_valid 200 365d;
        }}
    }}
    server {{
        listen unix:{place}/socket;
        access_log off;
        location / {{
            proxy_pass http://origin;
            proxy_set_header Accept-Encoding "";
            sub_filter "http://{origin}/packages/" "/packages/";
            sub_filter_once off;
            sub_filter_types *;
            gzip on;
            gzip_types *;
            gzip_comp_level 6;
            gzip_proxied any;
        }}
    }}
}}
"""


class Nginx(Server):
    """Debian's nginx with ``proxy_cache``, one worker, and finished pages in the cache."""

    name = "nginx"

    @classmethod
    def missing(cls) -> str | None:
        return None if _nginx() else "nginx is not here (Debian: apt install nginx)"

    @classmethod
    def version(cls) -> str:
        said = subprocess.run([_nginx() or "nginx", "-v"], capture_output=True, text=True, check=False).stderr
        return said.strip().rpartition("/")[2]

    def _start(self) -> None:
        port = free_port()
        (self.place / "temp").mkdir()
        conf = self.place / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # its worker would otherwise not reach its own folder
        conf.write_text(
            _NGINX_CONF.format(user=user, place=self.place, port=port, origin=self.upstream.removeprefix("http://")), "utf-8"
        )
        binary = _nginx()
        assert binary is not None
        error_log = self.place / "error.log"
        self._launch([binary, "-p", str(self.place), "-c", str(conf), "-e", str(error_log)])
        self.process.until(lambda: (self.place / "pid").exists() and answers(port))
        self.base = f"http://127.0.0.1:{port}"


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def answers(port: int) -> bool:
    """Whether something listens on *port* of 127.0.0.1."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
