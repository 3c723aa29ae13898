"""The files under conf/ that go to a build host: systemd, nginx in front, Jenkins.  Each is checked by what will read it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import pytest_twisted

from proxy.cli import COMMANDS, main
from tests.support import certs, wire
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream
from tests.support.preloaded import TWISTD
from tests.support.process import ROOT, ProxyProcess, Running, environment
from tests.support.wheels import wheel

CONF = ROOT / "conf"
UNITS = sorted((CONF / "systemd").iterdir())
#: What lets systemd hold the port: a unit, and an addition to that of the service.
SOCKET, DROP_IN = CONF / "systemd-socket" / "pypiproxy.socket", CONF / "systemd-socket" / "socket.conf"
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
ANALYZE = shutil.which("systemd-analyze")
ACTIVATE = shutil.which("systemd-socket-activate")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here (Debian: apt install systemd)")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not here (Debian: apt install nginx)")


def option_names(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return {name for parameter in command.params for name in parameter.opts}


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """The ``pypiproxy`` commands in *text*, each with its long options."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"(?:^|[/ ])pypiproxy ([a-z-]+ [^\n]*|[a-z-]+$)", joined, re.MULTILINE):
        name, _, rest = line.partition(" ")
        if name in COMMANDS:
            yield name, re.findall(r"(?<!\S)(--[a-z-]+)", rest)


# -- systemd ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they are, but for the commands: these stand in a folder of the test's, so that systemd finds them."""
    folder = tmp_path / "units"
    folder.mkdir()
    for name in ("pypiproxy", "twistd"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    for unit in UNITS:
        (folder / unit.name).write_text(unit.read_text("utf-8").replace("/opt/pypiproxy/bin/", f"{folder}/"), "utf-8")
    return folder


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_units(installed: Path) -> None:
    names = [unit.name for unit in UNITS]
    assert names == ["pypiproxy-warm.service", "pypiproxy-warm.timer", "pypiproxy.service"]
    paths = [str(installed / name) for name in names]
    verified = subprocess.run([str(ANALYZE), "verify", "--man=no", *paths], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_systemd_has_nothing_to_say_when_it_holds_the_port(installed: Path) -> None:
    folder = installed / "pypiproxy.service.d"
    folder.mkdir()
    shutil.copy(SOCKET, installed)
    text = DROP_IN.read_text("utf-8").replace("/opt/pypiproxy/bin/", f"{installed}/")
    paths = [str(installed / name) for name in ("pypiproxy.service", "pypiproxy.socket")]
    command = [str(ANALYZE), "verify", "--man=no", *paths]
    for written, said in ((text.replace("After=", "Afterwards="), "Unknown key 'Afterwards'"), (text, "")):
        (folder / "socket.conf").write_text(written, "utf-8")
        verified = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stdout) == (0, "")
        assert verified.stderr == "" if said == "" else said in verified.stderr  # so the addition is read


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not here (Debian: apt install systemd)")
@pytest_twisted.ensureDeferred
async def test_a_request_that_comes_before_the_proxy_is_answered_when_systemd_holds_the_port(tmp_path: Path) -> None:
    """With the command line of the drop-in, started by the connection."""
    (line,) = re.findall(r"^ExecStart=/opt/pypiproxy/bin/twistd (.*)$", DROP_IN.read_text("utf-8"), re.MULTILINE)
    unit = (CONF / "systemd" / "pypiproxy.service").read_text("utf-8")
    assert f"ExecStart=/opt/pypiproxy/bin/twistd {line.partition(' --listen ')[0]}\n" in unit
    (tmp_path / "pypiproxy.toml").write_text('[server]\nlisten = ["127.0.0.1:1"]\n', "utf-8")
    line = line.replace("/etc/pypiproxy/", f"{tmp_path}/").replace("/var/lib/pypiproxy", str(tmp_path / "data"))
    port = free_port()
    activate = [str(ACTIVATE), f"--listen=127.0.0.1:{port}", "--fdname=pypiproxy.socket", f"--setenv=PYTHONPATH={ROOT}"]
    service = Running().spawn([*activate, sys.executable, *TWISTD, *line.split()], environment(tmp_path), tmp_path)
    try:
        await service.until(lambda: "Listening on" in service.output, 60.0)
        assert "serving on" not in service.output
        assert (await wire.fetch(port, "/-/live")).status == 200
        await service.until(lambda: f"serving on http://127.0.0.1:{port}/" in service.output, 60.0)
        service.signal(signal.SIGTERM)
        await service.end()
    finally:
        service.signal(signal.SIGKILL)
        await service.end()


@needs_systemd
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_services_are_exposed_to_little(unit: Path) -> None:
    command = [str(ANALYZE), "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-300:] + rated.stderr


@pytest.mark.parametrize("unit", [*SERVICES, DROP_IN], ids=lambda unit: unit.name)
def test_the_services_call_commands_that_exist(unit: Path) -> None:
    found = list(commands_in(unit.read_text("utf-8")))
    assert found
    for name, options in found:
        assert set(options) <= option_names(name)


@pytest_twisted.ensureDeferred
async def test_the_services_command_line_serves(
    make_proxy: Callable[..., ProxyProcess], make_upstream: Callable[..., FakeUpstream], tmp_path: Path
) -> None:
    """With no privileges to gain; and with TLS towards upstream, which is what MemoryDenyWriteExecute would break."""
    unit = (CONF / "systemd" / "pypiproxy.service").read_text("utf-8")
    line = re.search(r"^ExecStart=/opt/pypiproxy/bin/twistd (.*)$", unit, re.MULTILINE)
    assert line is not None
    assert line[1].split()[:3] == ["--nodaemon", "--pidfile=", "pypiproxy"]
    assert "Type=notify" in unit  # else the nightly run may come before the port is open
    assert "NoNewPrivileges=yes" in unit
    assert "MemoryDenyWriteExecute=yes" not in unit
    upstream = make_upstream(tls=certs.server_context())
    upstream.add_file("six", "six-1.0.tar.gz", b"data")
    authority, _ = certs.authority().write(tmp_path, "ca")
    known = f'[upstream.fake]\nurl = "{upstream.url}"\nca_file = "{authority}"\n'
    proxy = make_proxy(config=f'{known}[[index]]\nname = "main"\nupstreams = ["fake"]\n')
    proxy.before = (sys.executable, "-c", _DENIED)
    await proxy.started()
    assert (await wire.fetch(proxy.port, "/simple/six/")).status == 200
    assert await proxy.stop() == -signal.SIGTERM


#: Gives up ever gaining privileges (PR_SET_NO_NEW_PRIVS), and becomes the command that follows.
_DENIED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"


# -- nginx ------------------------------------------------------------------------------------------------------------------

_AROUND = """\
{user}
daemon off;
pid {place}/pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    include {place}/pypiproxy.conf;
}}
"""


#: Asks the port and trusts the authority it is given.  Prints what a client that knows HTTP/2 gets to speak, a legacy document,
#: the status and range of a part of a file, and the status of operators' paths for this host and for another one.
_ASK = """import http.client, socket, ssl, sys, urllib.parse
context = ssl.create_default_context(cafile=sys.argv[2])
port = int(sys.argv[1])

def ask(path, *, source="127.0.0.1", **headers):
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, source_address=(source, 0), timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read().decode("latin-1")

fresh = ssl.create_default_context(cafile=sys.argv[2])
fresh.set_alpn_protocols(["h2", "http/1.1"])
with socket.create_connection(("127.0.0.1", port)) as raw, fresh.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
    print(wrapped.selected_alpn_protocol())
print(ask("/pypi/app/json")[1])
page = ask("/simple/app/")[1]
path = page.split('href="')[1].split("#")[0]
part = ask(urllib.parse.urljoin("/simple/app/", path), Range="bytes=100-199")[0]
print(part.status, part.headers["Content-Range"])
forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
ask("/simple/forged/", source="127.0.0.3", **forged)
print(ask("/-/live", **forged)[0].status)
paths = ("live", "ready", "metrics", "./metrics", "login", "search")
print(*(ask(f"/-/{path}", source="127.0.0.2")[0].status for path in paths))"""


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@needs_nginx
@pytest_twisted.ensureDeferred
async def test_through_nginx_pip_and_uv_install_over_https(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    made = wheel("app", size=500_000)
    upstream.add_file("app", made.filename, made.data, metadata=made.metadata)
    proxy = await make_proxy(upstream.url, config='[server]\ntrusted_proxies = ["127.0.0.1"]\n').started()
    port = free_port()
    certificate, key = certs.server("127.0.0.1").write(tmp_path, "server")
    authority, _ = certs.authority().write(tmp_path, "ca")
    shipped = (CONF / "nginx" / "pypiproxy.conf").read_text("utf-8")
    for ours, theirs in {
        "server 127.0.0.1:3143;": f"server 127.0.0.1:{proxy.port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "/etc/nginx/tls/pypiproxy.crt": str(certificate),
        "/etc/nginx/tls/pypiproxy.key": str(key),
    }.items():
        assert shipped.count(ours) == 1
        shipped = shipped.replace(ours, theirs)
    (tmp_path / "pypiproxy.conf").write_text(shipped, "utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # its workers could not reach the test's folder else
    (tmp_path / "nginx.conf").write_text(_AROUND.format(user=user, place=tmp_path), "utf-8")
    command = [str(NGINX), "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    env = environment(tmp_path)
    checked = await Running().spawn([*command, "-t"], env, tmp_path).end()
    assert checked.status == 0, checked.output
    assert "[warn]" not in checked.output
    nginx = Running().spawn(command, env, tmp_path)
    try:
        index = f"https://127.0.0.1:{port}/simple/"
        scratch = Scratch(tmp_path)
        installed = await scratch.pip(index, "--cert", str(authority), "--retries", "20", "app")
        assert (installed.status, scratch.installed) == (0, {"app": "1.0"}), installed.output + nginx.output
        other = Scratch(tmp_path)
        installed = await other.uv(index, "app", SSL_CERT_FILE=str(authority))
        assert (installed.status, other.installed) == (0, {"app": "1.0"}), installed.output + nginx.output
        asking = [sys.executable, "-c", _ASK, str(port), str(authority)]
        asked = await Running().spawn(asking, env, tmp_path).end()
        version, document, part, inside, outside = asked.output.splitlines()
        assert version == "h2"
        assert f"https://127.0.0.1:{port}/packages/app/" in document
        assert part == "206 bytes 100-199/" + str(len(made.data))
        assert (inside, outside) == ("200", "403 403 403 403 200 200")  # the dashboard is for everybody
        assert proxy.process is not None
        await proxy.process.until(lambda: "/simple/forged/" in proxy.log, 60.0)  # access lines are written many at a time
        (forged,) = [line for line in proxy.log.splitlines() if "/simple/forged/" in line and " 404 " in line]
        assert "127.0.0.3" in forged
        assert "203.0.113.9" not in proxy.log
    finally:
        nginx.signal(signal.SIGTERM)
        await nginx.end()
    assert upstream.count("*.whl") == 1


# -- Jenkins ----------------------------------------------------------------------------------------------------------------


def test_the_nightly_job_calls_commands_that_exist() -> None:
    text = (CONF / "jenkins" / "Jenkinsfile").read_text("utf-8")
    ((name, options),) = commands_in(text)
    assert name == "warm"
    assert set(options) <= option_names(name)
    assert "--report" in options


def test_the_agents_get_the_settings_that_client_config_prints() -> None:
    text = (CONF / "jenkins" / "agents.groovy").read_text("utf-8")
    settings = dict(re.findall(r"^\s*(\w+)\s*: '([^']*)'", text, re.MULTILINE))
    assert settings == dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), "https://packages.corp.example/simple/")
    for balanced in ("()", "[]", "{}"):
        assert text.count(balanced[0]) == text.count(balanced[1])
