"""``pypiproxy serve``: the same as ``twistd pypiproxy`` in the foreground, also as the first process of a container."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

import proxy
from proxy import config
from proxy.cli import main
from proxy.tap import Options
from tests.support import preloaded, subprocesses

ROOT = Path(__file__).parent.parent
PYPIPROXY = [sys.executable, *preloaded.NAMED_COMMAND]
TWISTD = [sys.executable, *preloaded.TWISTD, "-n", "--pidfile=", "pypiproxy"]
Process = subprocesses.Forked | subprocess.Popen[str]
UNSHARE = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    """Whether a process may be the first one of a namespace here (containers often forbid it)."""
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


as_first_process = pytest.mark.skipif(not can_unshare(), reason="unshare --pid is not permitted here: nothing can be process 1")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYPIPROXY_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def ended(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """What a command wrote, and how it ended."""
    return subprocesses.run(command, environment(), place)


@contextmanager
def running(place: Path, command: Sequence[str], **more: str) -> Iterator[Process]:
    """*command* with the variables *more*; killed in the end if it has not ended by itself."""
    with subprocesses.start(command, environment(**more), place) as process:
        try:
            yield process
        finally:
            process.kill()


def said_until_it_serves(process: Process) -> str:
    """All that *process* says up to the line with its URL."""
    assert process.stdout is not None
    said = ""
    for line in iter(process.stdout.readline, ""):
        said += line
        if "serving on" in line:
            return said
    raise AssertionError(f"it ended before it served:\n{said}")


def port_in(said: str) -> int:
    found = re.search(r"serving on http://[\d.]+:(\d+)/", said)
    assert found is not None
    return int(found[1])


def is_live(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /-/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(15) == b"HTTP/1.1 200 OK"


def neutral(said: str) -> list[str]:
    """Lines without what differs from run to run: times and ports."""
    return [re.sub(r"127\.0\.0\.1:\d+|^\S+ \[", "…", line) for line in said.splitlines()]


def test_it_has_the_options_of_the_plugin() -> None:
    serve = main.get_command(click.Context(main), "serve")
    assert serve is not None
    ours = {name.lstrip("-") for parameter in serve.params for name in parameter.opts}
    theirs = {each.rstrip("=") for each in (*Options().longOpt, *Options().shortOpt.replace(":", "")) if each != "="}
    # The group has its own, and gives every command --quiet.
    assert ours - {"quiet", "q"} == {name for name in theirs if name not in ("version", "help", "V")}


def test_it_serves_as_twistd_does(tmp_path: Path) -> None:
    said = []
    for command in ([*PYPIPROXY, "serve"], TWISTD):
        with running(tmp_path, [*command, "--data-dir", "data", "--port", "0", "--access-log", "off"]) as process:
            said.append(said_until_it_serves(process))
            assert is_live(port_in(said[-1]))
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            said[-1] += process.stdout.read()
            assert process.wait(timeout=60) == -signal.SIGTERM
    ours, theirs = map(neutral, said)
    assert ours == theirs


@pytest.mark.parametrize(
    "arguments",
    [
        ["--log-format", "xml"],
        ["--listen", "nonsense:1"],
        ["--config", "missing.toml"],
        ["--upstream", "no-such-name"],
        ["--data-dir", "/proc/none"],
    ],
    ids=" ".join,
)
def test_it_refuses_what_twistd_refuses_with_the_same_words(tmp_path: Path, arguments: list[str]) -> None:
    ours, theirs = ended(tmp_path, *PYPIPROXY, "serve", *arguments), ended(tmp_path, *TWISTD, *arguments)
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "", theirs.stderr)
    assert ours.stderr.startswith("pypiproxy: ")


def test_a_wrong_option_is_a_usage_error(tmp_path: Path) -> None:
    for arguments, said in ((["--listne", "1"], "No such option"), (["--port", "x"], "--port x: expected a number")):
        done = ended(tmp_path, *PYPIPROXY, "serve", *arguments)
        assert done.returncode == 2
        assert said in done.stderr


# -- in a container -----------------------------------------------------------------------------------------------------------


def containerfile() -> tuple[dict[str, str], list[str]]:
    """The environment that the image has, and its command, with the file of the image where that is in this project."""
    text = (ROOT / "conf" / "container" / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    variables = dict(word.split("=", 1) for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for word in line.split())
    words = [re.findall(r'"([^"]*)"', line) for line in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", text, re.MULTILINE)]
    (copied,) = re.findall(r"^COPY (\S+\.toml) (\S+)$", text, re.MULTILINE)
    return variables, [str(ROOT / copied[0]) if word == copied[1] else word for line in words for word in line]


@contextmanager
def container(place: Path, **more: str) -> Iterator[tuple[Process, int]]:
    """The image's command with the image's environment, as process 1; and what its process id is out here."""
    variables, command = containerfile()
    assert command[0] == "pypiproxy"
    variables |= {"PYPIPROXY_SERVER__LISTEN": "0", "PYPIPROXY_SERVER__DATA_DIR": str(place / "volume" / "data"), **more}
    with running(place, [*UNSHARE, *PYPIPROXY, *command[1:]], **variables) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        said = said_until_it_serves(process)
        assert said.startswith(f"pypiproxy {proxy.__version__}\n")
        assert is_live(port_in(said))
        yield process, int(children.read_text("ascii"))


def test_the_image_listens_everywhere_and_keeps_its_data_in_the_volume() -> None:
    _, command = containerfile()
    assert command[:-1] == ["pypiproxy", "serve", "--config"]
    server = config.load(Path(command[-1]), environ={}).server
    assert server.listen == ("3143",)
    assert server.data_dir == Path("/var/lib/pypiproxy/data")


def test_a_file_in_the_place_of_the_one_in_the_image_counts_whatever_that_says(tmp_path: Path) -> None:
    variables, command = containerfile()
    (tmp_path / "mounted.toml").write_text('[server]\nlisten = ["127.0.0.1:0"]\ndata_dir = "mine"\n')
    with running(tmp_path, [*PYPIPROXY, *command[1:-1], "mounted.toml"], **variables) as process:
        assert is_live(port_in(said_until_it_serves(process)))
        assert (tmp_path / "mine" / "lock" / "pid").read_text() == f"{process.pid}\n"


@as_first_process
def test_as_process_1_it_owns_its_volume_and_ends_on_sigterm(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)  # as Kubernetes makes it
    kubernetes = {"PYPIPROXY_PORT": "tcp://10.0.0.1:3143", "PYPIPROXY_SERVICE_HOST": "10.0.0.1"}
    with container(tmp_path, **kubernetes) as (process, inside):
        assert (volume / "data" / "lock" / "pid").read_text() == "1\n"
        assert (volume / "data").stat().st_mode & 0o777 == 0o700
        os.kill(inside, signal.SIGTERM)
        assert process.stdout is not None
        assert "Server Shut Down." in process.stdout.read()
        assert process.wait(timeout=60) == 0


@as_first_process
def test_as_process_1_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}/simple/"
        variables, command = containerfile()
        variables |= {"PYPIPROXY_SERVER__LISTEN": "0", "PYPIPROXY_SERVER__DATA_DIR": "data", "PYPIPROXY_UPSTREAM__URL": url}
        with running(tmp_path, [*UNSHARE, *PYPIPROXY, *command[1:]], **variables) as process:
            port = port_in(said_until_it_serves(process))
            inside = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii"))
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(b"GET /simple/six/ HTTP/1.1\r\nHost: x\r\n\r\n")
                asked, _ = upstream.accept()
                os.kill(inside, signal.SIGTERM)
                assert process.stdout is not None
                assert any("responses may go on" in line for line in iter(process.stdout.readline, ""))
                os.kill(inside, signal.SIGTERM)
                assert process.wait(timeout=60) == 128 + signal.SIGTERM
                asked.close()


def test_an_empty_volume_of_its_own_that_everybody_may_write_to_is_closed(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    with running(tmp_path, [*PYPIPROXY, "serve", "--port", "0", "--data-dir", str(volume)]) as process:
        said_until_it_serves(process)
    assert volume.stat().st_mode & 0o777 == 0o700


def test_a_volume_that_everybody_may_write_to_and_has_something_in_it_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "theirs").touch()
    volume.chmod(0o777)
    done = ended(tmp_path, *PYPIPROXY, "serve", "--port", "0", "--data-dir", str(volume))
    assert done.returncode == 1
    assert f"everybody may write there (mode 0777); expected 0700, or a directory in it: {volume}/data" in done.stderr
    assert volume.stat().st_mode & 0o777 == 0o777
