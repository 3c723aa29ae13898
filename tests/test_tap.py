"""``twistd pypiproxy`` as a real process: it starts, it stops, and it says in one message why it does not start."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from twisted.python import usage

import proxy
from proxy.host.datadir import claim
from proxy.tap import Options, makeService
from tests.support import preloaded, subprocesses

ROOT = Path(__file__).parent.parent
TWISTD = [sys.executable, *preloaded.TWISTD]
LOOPBACK = "tcp:0:interface=127.0.0.1"


@pytest.fixture(autouse=True)
def _hangup() -> Iterator[None]:
    """SIGHUP is heeded by what a test starts, also where nohup has had it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory that has nothing to do with the project."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    return place


def environment() -> dict[str, str]:
    """An environment that finds this very tree, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def twistd(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocesses.run([*TWISTD, *arguments], environment(), place)


@contextmanager
def forked(place: Path, *arguments: str) -> Iterator[subprocesses.Forked | subprocess.Popen[str]]:
    """A twistd in the foreground that has imported nothing itself; killed in the end if it has not ended by itself."""
    with subprocesses.start([*TWISTD, "-n", "--pidfile=", *arguments], environment(), place) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def running(place: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A twistd in the foreground, from an interpreter that starts for it; killed in the end if it has not ended by itself.

    *options* are those of `Popen`.
    """
    with subprocess.Popen(
        [*TWISTD, "-n", "--pidfile=", "pypiproxy", *arguments],
        **{"cwd": place, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def port_in(lines: Iterator[str]) -> int:
    """The port of the first ``serving on`` line."""
    for line in lines:
        if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)/", line):
            return int(found[1])
    raise AssertionError("the log ended before the service was up")


# -- the command line ---------------------------------------------------------------------------------------------------------


def test_options_gather_what_is_repeated() -> None:
    options = Options()
    listen = ["--listen", "tcp:1", "-l", "[::1]:2", "--port", "3"]
    options.parseOptions([*listen, "--upstream", "pypi", "-u", "https://a.example/", "-d", "x"])
    assert options["listen"] == ["tcp:1", "[::1]:2", "tcp:3:interface=127.0.0.1"]
    assert options["upstream"] == ["pypi", "https://a.example/"]
    assert (options["data-dir"], options["config"], options["log-format"]) == ("x", None, "text")


def test_the_version_is_the_proxys_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pypiproxy {proxy.__version__}\n"


# -- starting and stopping ----------------------------------------------------------------------------------------------------


def test_it_serves_until_sigterm_and_logs_ndjson(elsewhere: Path) -> None:
    with running(elsewhere, "--data-dir", "data", "--listen", LOOPBACK, "--log-format", "json") as process:
        assert process.stdout is not None
        port = port_in(iter(process.stdout.readline, ""))
        socket.create_connection(("127.0.0.1", port)).close()
        assert (elsewhere / "data" / "lock" / "pid").read_text() == f"{process.pid}\n"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read().splitlines()
        process.wait(timeout=60)
    assert "Server Shut Down." in [json.loads(line)["message"] for line in rest]


def test_at_the_start_it_says_what_is_served_and_nothing_of_twisted(elsewhere: Path) -> None:
    with running(elsewhere, "--data-dir", "data", "--listen", LOOPBACK) as process:
        assert process.stdout is not None
        lines = []
        for line in iter(process.stdout.readline, ""):
            lines.append(line)
            if "serving on" in line:
                break
        process.send_signal(signal.SIGTERM)
    said = "".join(lines)
    (port,) = re.findall(r"serving on http://127\.0\.0\.1:(\d+)/", said)
    assert said.startswith(f"pypiproxy {proxy.__version__}\n")
    assert f"data       {elsewhere}/data\n" in said
    assert "/simple/ and /index/pypi/simple/ from pypi <https://" in said
    assert f"export PIP_INDEX_URL=http://127.0.0.1:{port}/simple/\n" in said
    assert f"export UV_DEFAULT_INDEX=http://127.0.0.1:{port}/simple/\n" in said
    assert "standard output, one line per request" in said
    assert not re.search("twistd|reactor|factory|starting on|Site", said)


def test_a_second_instance_does_not_share_the_data_directory(elsewhere: Path) -> None:
    with forked(elsewhere, "pypiproxy", "--data-dir", "data", "--listen", LOOPBACK) as process:
        assert process.stdout is not None
        port_in(iter(process.stdout.readline, ""))
        second = twistd(elsewhere, "-n", "--pidfile=", "pypiproxy", "--data-dir", "data", "--listen", LOOPBACK)
    assert second.returncode == 1
    assert second.stderr.startswith(f'pypiproxy: --data-dir = "{elsewhere}/data": the instance with process id {process.pid} ')


def test_as_a_daemon_it_serves_logs_and_signs_the_data_directory(elsewhere: Path) -> None:
    log = elsewhere / "proxy.log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--data-dir", "data", "--listen", f"tcp:{port}:interface=127.0.0.1", "--log-format", "json"]
    started = twistd(elsewhere, "--pidfile=proxy.pid", "--logfile", str(log), "pypiproxy", *arguments)
    assert started.returncode == 0, started.stderr
    pid = int((elsewhere / "proxy.pid").read_text())
    try:
        assert int((elsewhere / "data" / "lock" / "pid").read_text()) == pid
        # The socket has been open since before the fork, so this needs no waiting for the daemon's loop.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET /-/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(9) == b"HTTP/1.1 "
        first = json.loads(log.read_text().splitlines()[0])
        assert first["level"] == "info"
        assert first["message"] == f"pypiproxy {proxy.__version__} starts on {elsewhere}/data"
        assert f"log        {log}, one object per request\n" in started.stdout
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_log_file_that_was_moved_away_is_begun_anew_on_sigusr2(elsewhere: Path) -> None:
    log, moved = elsewhere / "proxy.log", elsewhere / "proxy.log.1"
    with forked(elsewhere, "--logfile", str(log), "pypiproxy", "--data-dir", "data", "--port", "0") as process:
        assert process.stdout is not None
        found = (re.search(r"listening +http://127\.0\.0\.1:(\d+)/", line) for line in iter(process.stdout.readline, ""))
        port = next(int(each[1]) for each in found if each)
        assert is_live(port)  # signals are heeded once the reactor runs
        log.rename(moved)
        os.kill(int((elsewhere / "data" / "lock" / "pid").read_text()), signal.SIGUSR2)
        assert any(is_live(port) and log.exists() for _ in range(1000))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == -signal.SIGTERM
    assert "serving on" in moved.read_text()
    assert "the log file was reopened" in log.read_text()
    assert "Server Shut Down." in log.read_text()


def is_live(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    """An index that answers when the test does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def serving(upstream: socket.socket) -> tuple[str, ...]:
    """Arguments for a proxy of *upstream*."""
    url = f"http://127.0.0.1:{upstream.getsockname()[1]}/simple/"
    return ("--data-dir", "data", "--listen", LOOPBACK, "--upstream", url)


def ask_for_a_page(port: int, upstream: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A connection with a request in progress, and the connection on which *upstream* has been asked because of it."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET /simple/six/ HTTP/1.1\r\nHost: x\r\n\r\n")
    asked, _ = upstream.accept()
    assert asked.recv(4) == b"GET "
    return client, asked


def read_until(lines: IO[str], words: str) -> None:
    """Read *lines* up to the one with *words* in it."""
    assert any(words in line for line in iter(lines.readline, "")), f"the log ended before {words!r}"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(elsewhere: Path, upstream: socket.socket, second: signal.Signals) -> None:
    with forked(elsewhere, "pypiproxy", *serving(upstream)) as process:
        assert process.stdout is not None
        client, asked = ask_for_a_page(port_in(iter(process.stdout.readline, "")), upstream)
        process.send_signal(signal.SIGTERM)
        read_until(process.stdout, "responses may go on")
        process.send_signal(second)
        assert process.wait(timeout=60) == -second
    with client, asked:
        assert client.recv(1) == b""


def test_an_interrupt_that_the_shell_has_ignored_does_not_make_sigterm_the_second_signal(
    elsewhere: Path, upstream: socket.socket
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script does for what it starts with &
    try:
        with running(elsewhere, *serving(upstream)) as process:
            assert process.stdout is not None
            client, asked = ask_for_a_page(port_in(iter(process.stdout.readline, "")), upstream)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            read_until(process.stdout, "responses may go on")
    finally:
        signal.signal(signal.SIGINT, before)
    client.close()
    asked.close()


def pypiproxy(place: Path, *arguments: str) -> tuple[int, str]:
    """The exit status of a command, and all that it printed."""
    ended = subprocesses.run([sys.executable, *preloaded.COMMAND, *arguments], environment(), place)
    return ended.returncode, ended.stdout + ended.stderr


def test_the_configuration_is_read_again_on_sighup_and_by_command(elsewhere: Path) -> None:
    file = elsewhere / "pypiproxy.toml"

    def write(server: str = "", more: str = "") -> None:
        file.write_text(f'[server]\n{server}\n[[index]]\nname = "pypi"\nupstreams = ["pypi"]\ndefault = true\n{more}')

    write()
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.settimeout(30)
    told.bind(str(elsewhere / "notify"))
    env = {**environment(), "NOTIFY_SOCKET": str(elsewhere / "notify"), "PYPIPROXY_SERVER__IDLE_TIMEOUT": "30s"}
    options = ("--config", "pypiproxy.toml", "--data-dir", "data", "--listen", LOOPBACK)
    with told, running(elsewhere, *options, env=env, start_new_session=True) as process:
        assert process.stdout is not None
        port = port_in(iter(process.stdout.readline, ""))
        assert told.recv(200) == b"READY=1"
        write('drain_time = "5s"', '[[index]]\nname = "own"\nkind = "hosted"\n')
        process.send_signal(signal.SIGHUP)
        read_until(
            process.stdout, 'SIGHUP: the configuration was read again: index.own: none -> { name = "own", kind = "hosted", '
        )
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", told.recv(200))
        assert told.recv(200) == b"READY=1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index/own/simple/", timeout=30) as answer:
            assert answer.status == 200

        # The variable of the process goes on to override the file, and the command is no other one's.
        write('drain_time = "6s"\nidle_timeout = "20s"\nlisten = ["tcp:1"]\npage_memory = "64MiB"')
        asked = ("--data-dir", "data")
        expected = [
            "index.own: { name = ",
            'server.drain_time: "5s" -> "6s"\n',
            'server.page_memory: "128MiB" -> "64MiB" (would take effect when the proxy is restarted)\n',
            "index own is removed: its files stay in ",
        ]
        status, diff = pypiproxy(elsewhere, "config", "diff", "pypiproxy.toml", *asked)
        assert status == 1
        assert all(each in diff for each in expected), diff
        assert "idle_timeout" not in diff
        status, answer_to = pypiproxy(elsewhere, "reload", *asked)
        assert (status, answer_to) == (0, diff.replace("would take effect", "takes effect"))
        assert told.recv(200).startswith(b"RELOADING=1")
        assert told.recv(200) == b"READY=1"
        write('drain_time = "6s"')
        assert pypiproxy(elsewhere, "config", "diff", *asked) == (0, "")
        write('colour = "red"')
        mistake = "there is no such key"
        for command, expected_status in ((("reload",), 1), (("config", "diff"), 2), (("config", "diff", "pypiproxy.toml"), 2)):
            status, said = pypiproxy(elsewhere, *command, *asked)
            assert status == expected_status, said
            assert mistake in said, said
        process.send_signal(signal.SIGHUP)
        read_until(process.stdout, "SIGHUP: the configuration is wrong, and stays as it was")
        assert is_live(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == -signal.SIGTERM
    missing = f"no proxy runs on {elsewhere / 'data'}: start it, and it reads its configuration\n"
    assert pypiproxy(elsewhere, "reload", *asked) == (1, missing)


@contextmanager
def on_a_terminal(place: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A twistd with a controlling terminal of its own, and what it writes there; closing that closes the terminal."""
    ours, theirs = os.openpty()

    def take() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": take, "stdout": theirs, "stderr": theirs}
    with running(place, *arguments, **options) as process, os.fdopen(ours) as output:
        os.close(theirs)
        yield process, output


def test_with_a_terminal_sighup_lets_responses_end_however_often_it_comes(elsewhere: Path, upstream: socket.socket) -> None:
    with on_a_terminal(elsewhere, *serving(upstream)) as (process, output):
        client, asked = ask_for_a_page(port_in(iter(output.readline, "")), upstream)
        process.send_signal(signal.SIGHUP)
        read_until(output, "responses may go on")
        process.send_signal(signal.SIGHUP)
        with client, asked:
            asked.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 404"
        assert process.wait(timeout=60) == 0


def test_when_its_terminal_is_closed_it_ends_though_it_cannot_write_there(elsewhere: Path) -> None:
    with on_a_terminal(elsewhere, "--data-dir", "data", "--listen", LOOPBACK) as (process, output):
        port_in(iter(output.readline, ""))
        output.close()
        assert process.wait(timeout=60) == 0


# -- not starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [["-n"], []], ids=["foreground", "daemon"])
def test_a_port_in_use_ends_the_start_with_one_message(elsewhere: Path, mode: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        ended = twistd(elsewhere, *mode, "--pidfile=", "pypiproxy", "--data-dir", "data", "--listen", description)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (message,) = ended.stderr.splitlines()
    assert message.startswith(f'pypiproxy: --listen = "{description}": cannot listen there: Address already in use')
    assert f": another program has port {description.split(':')[1]} (ss -ltnp shows it); stop it, or name an address" in message
    assert not (elsewhere / "data").exists()


@pytest.mark.parametrize("mode", [["-n"], []], ids=["foreground", "daemon"])
def test_a_mistake_in_the_file_ends_the_start_with_one_message(elsewhere: Path, mode: list[str]) -> None:
    (elsewhere / "proxy.toml").write_text('[server]\nlisten = ["nonsense:1"]\ndata_dir = "data"\n')
    ended = twistd(elsewhere, *mode, "--pidfile=", "pypiproxy", "--config", "proxy.toml")
    assert (ended.returncode, ended.stdout) == (1, "")
    (message,) = ended.stderr.splitlines()
    assert message.startswith('pypiproxy: proxy.toml: server.listen = "nonsense:1": Unknown endpoint type')


def test_a_mistake_in_the_environment_ends_the_start_with_one_message(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYPIPROXY_PORT", "tcp://10.0.0.1:3143")  # as Kubernetes sets it
    monkeypatch.setenv("PYPIPROXY_SERVER__DATA_DIR", "data")
    for value, said in {"nonsense:1": "Unknown endpoint type", "::1": "an IPv6 address is written in brackets"}.items():
        monkeypatch.setenv("PYPIPROXY_SERVER__LISTEN", value)
        ended = twistd(elsewhere, "-n", "--pidfile=", "pypiproxy")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f'pypiproxy: PYPIPROXY_SERVER__LISTEN = "{value}": {said}')


@pytest.mark.parametrize("new", [True, False], ids=["new-directory", "known-directory"])
def test_all_ports_in_use_end_the_start_with_one_message(elsewhere: Path, new: bool) -> None:
    data = elsewhere / "data"
    if not new:
        claim(data).release()
    options = Options()
    options.parent = usage.Options()
    options.parent["nodaemon"] = True  # as twistd -n has it, which logs to standard output
    with ExitStack() as taken:
        used = [taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(4)]
        first, metrics, probes, dashboard = (f"127.0.0.1:{port}" for port in used)
        (elsewhere / "proxy.toml").write_text(
            f'[server]\ndata_dir = "data"\nlisten = ["127.0.0.1:0"]\nmetrics_listen = ["{metrics}"]\n'
            f'probe_listen = ["{probes}"]\ndashboard_listen = ["{dashboard}"]\n'
        )
        options.parseOptions(["--config", str(elsewhere / "proxy.toml"), "--listen", LOOPBACK, "--listen", first])
        collecting = gc.isenabled()
        try:
            with pytest.raises(SystemExit) as caught:
                makeService(options)
        finally:
            if collecting:
                gc.enable()  # a start ends the collections of its process
    heading, *mistakes = str(caught.value).splitlines()
    assert heading == "pypiproxy: 4 mistakes in the configuration:"
    places = [f'--listen = "{first}"']
    listens = {"metrics_listen": metrics, "probe_listen": probes, "dashboard_listen": dashboard}
    places += [f'{elsewhere}/proxy.toml: server.{key} = "{value}"' for key, value in listens.items()]
    for mistake, place in zip(mistakes, places, strict=True):
        assert mistake.startswith(f"  {place}: cannot listen there: Address already in use: another program has port")
    # Only `listen` has an option for another port.
    assert [mistake.endswith("for example --port 3144") for mistake in mistakes] == [True, False, False, False]
    assert data.exists() is not new
    claim(data).release()


def test_an_unknown_log_format_is_told(elsewhere: Path) -> None:
    ended = twistd(elsewhere, "-n", "--pidfile=", "pypiproxy", "--log-format", "xml")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == 'pypiproxy: --log-format = "xml": expected text or json\n'
