"""``twistd pypiproxy`` as a real process: it starts, it stops, and it says in one message why it does not start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import proxy
from proxy.tap import Options

ROOT = Path(__file__).parent.parent
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
LOOPBACK = "tcp:0:interface=127.0.0.1"


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
    return subprocess.run(
        [*TWISTD, *arguments], cwd=place, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )


@contextmanager
def running(place: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A twistd in the foreground; killed in the end if it has not ended by itself."""
    with subprocess.Popen(
        [*TWISTD, "-n", "--pidfile=", "pypiproxy", *arguments],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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
    options.parseOptions(["--listen", "tcp:1", "-l", "tcp:2", "--upstream", "pypi", "-u", "https://a.example/", "-d", "x"])
    assert options["listen"] == ["tcp:1", "tcp:2"]
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
        assert (elsewhere / "data" / "lock").read_text() == f"{process.pid}\n"
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read().splitlines()
        process.wait(timeout=30)
    assert "Server Shut Down." in [json.loads(line)["message"] for line in rest]


def test_a_second_instance_does_not_share_the_data_directory(elsewhere: Path) -> None:
    with running(elsewhere, "--data-dir", "data", "--listen", LOOPBACK) as process:
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
        assert int((elsewhere / "data" / "lock").read_text()) == pid
        # The socket has been open since before the fork, so this needs no waiting for the daemon's loop.
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /-/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(9) == b"HTTP/1.1 "
        assert json.loads(log.read_text().splitlines()[0])["level"] == "info"
    finally:
        os.kill(pid, signal.SIGKILL)


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


@pytest.mark.parametrize("mode", [["-n"], []], ids=["foreground", "daemon"])
def test_a_mistake_in_the_file_ends_the_start_with_one_message(elsewhere: Path, mode: list[str]) -> None:
    (elsewhere / "proxy.toml").write_text('[server]\nlisten = ["nonsense:1"]\ndata_dir = "data"\n')
    ended = twistd(elsewhere, *mode, "--pidfile=", "pypiproxy", "--config", "proxy.toml")
    assert (ended.returncode, ended.stdout) == (1, "")
    (message,) = ended.stderr.splitlines()
    assert message.startswith('pypiproxy: proxy.toml: server.listen = "nonsense:1": Unknown endpoint type')


def test_an_unknown_log_format_is_told(elsewhere: Path) -> None:
    ended = twistd(elsewhere, "-n", "--pidfile=", "pypiproxy", "--log-format", "xml")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == 'pypiproxy: --log-format = "xml": expected text or json\n'
