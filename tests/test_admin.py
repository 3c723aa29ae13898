"""The admin interface: its socket, its protocol, and the commands that speak it to a real proxy."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from proxy.commands import asking
from proxy.host import adminaddress
from tests.inprocess import Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Fault
from tests.support.operator import Operator
from tests.support.process import ProxyProcess


async def raw(data_dir: Path, request: bytes) -> bytes:
    """The bytes that come back on the admin socket for *request*, up to its end."""

    def talk() -> bytes:
        with adminaddress.connect(data_dir) as connection:
            connection.settimeout(10)
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    answer: bytes = await deferToThread(talk)
    return answer


async def ask(data_dir: Path, operation: str, **arguments: Any) -> Any:
    """What the proxy in this process answers; asked from a thread, as a command is no part of the reactor."""
    return await deferToThread(asking.ask, data_dir, operation, arguments, lambda said: None)


@pytest_twisted.ensureDeferred
async def test_it_tells_how_the_upstreams_stand(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    upstream.add_file("six", "six-1.0-py3-none-any.whl", b"six")
    proxy = await run(upstream)
    await proxy.page()
    (state,) = await ask(tmp_path / "data", "upstreams")
    assert (state["index"], state["name"], state["state"], state["failures"]) == ("pypi", "up0", "up", 0)
    assert (state["last_failure"], state["paused_until"], state["lag"], state["in_flight"]) == (None, None, None, 0)
    assert state["latency"] > 0


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_is_down_is_shown_with_its_reason(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(upstream)
    await upstream.down()
    for _ in range(3):
        assert (await proxy.get("/simple/six/")).status == 503
    (state,) = await ask(tmp_path / "data", "upstreams")
    assert (state["state"], state["failures"], state["last_failure"]) == ("down", 1, "connection refused")
    assert state["paused_until"] > state["last_failure_at"]


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_refuses_the_credentials_is_up_and_shown_with_its_reason(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    upstream.script("/simple/six/", Fault(status=401))
    proxy = await run(upstream)
    assert (await proxy.get("/simple/six/")).status == 503
    (state,) = await ask(tmp_path / "data", "upstreams")
    assert (state["state"], state["failures"]) == ("up", 1)
    assert state["last_failure"] == "answered 401 Unauthorized: check the credentials of upstream.up0"


@pytest_twisted.ensureDeferred
async def test_the_socket_is_its_owners_alone_and_goes_with_the_proxy(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "admin.sock"
    proxy = await run(upstream)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await proxy.stop()
    assert not path.exists()
    with pytest.raises(asking.NotRunning, match="no proxy runs on"):
        await ask(tmp_path / "data", "upstreams")


@pytest_twisted.ensureDeferred
async def test_a_socket_left_by_a_killed_proxy_is_replaced(upstream: FakeUpstream, run: Start, data_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(data_dir / "admin.sock"))
    with pytest.raises(asking.NotRunning):
        await ask(data_dir, "upstreams")
    await run(upstream)
    assert await ask(data_dir, "upstreams")


@pytest_twisted.ensureDeferred
async def test_a_path_too_long_for_a_socket_works_all_the_same(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    data = "d" * 120
    proxy = await run(upstream, data=data)
    assert len(os.fspath(tmp_path / data / "admin.sock")) > adminaddress.LONGEST
    assert await ask(tmp_path / data, "upstreams")
    assert stat.S_IMODE((tmp_path / data / "admin.sock").stat().st_mode) == 0o600
    before = len(os.listdir("/proc/self/fd"))
    await proxy.stop()
    assert not (tmp_path / data / "admin.sock").exists()
    assert len(os.listdir("/proc/self/fd")) < before


@pytest.mark.parametrize(
    ("request_line", "body", "status", "said"),
    [
        ("POST /nonsense", "{}", 404, "there is no operation 'nonsense'; there is "),
        ("GET /upstreams", "", 400, "operations are asked for with POST, not GET"),
        ("POST /upstreams", "[1", 400, "upstreams: "),
        ("POST /upstreams", '{"wrong": 1}', 400, "upstreams: got an unexpected keyword argument 'wrong'"),
        ("POST /upstreams", '{"index": "corp"}', 404, "there is no index named 'corp' here; there is pypi"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_makes_no_sense_is_refused_in_a_line(
    upstream: FakeUpstream, run: Start, tmp_path: Path, request_line: str, body: str, status: int, said: str
) -> None:
    await run(upstream)
    request = f"{request_line} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    head, _, answer = (await raw(tmp_path / "data", request.encode())).partition(b"\r\n\r\n")
    assert head.split()[1] == b"%d" % status
    (line,) = answer.splitlines()
    error = json.loads(line)["error"]
    assert error["status"] == status
    assert error["detail"].startswith(said)


# -- commands, as processes ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_how_far_a_mirror_is_behind_is_looked_at_when_somebody_asks(upstream: FakeUpstream, run: Start) -> None:
    hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    upstream.content.mirrored_at = hour_ago.strftime("%Y%m%dT%H:%M:%S")
    proxy = await run(upstream)
    shown: Any = proxy.service.administration.operations["upstreams"]
    for _ in range(2):
        (state,) = await shown(lambda said: None)
        assert 3500 < state["lag"] < 3700
    assert upstream.count("/last-modified") == 1


@pytest_twisted.ensureDeferred
async def test_the_table_of_upstreams_comes_from_the_running_proxy(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    proxy = await make_proxy(upstream.url).started()
    operator = Operator(tmp_path, proxy.data_dir)
    ended = await operator.run("upstreams")
    assert ended.status == 0
    heading, row = ended.output.splitlines()
    assert re.split(r"  +", heading)[:5] == ["index", "upstream", "state", "since", "latency"]
    cells = re.split(r"  +", row)
    assert cells[2] == "up"
    assert cells[4].endswith(" ms")
    assert cells[5:] == ["0", "0", "0", "-", upstream.url, "127.0.0.1", "-"], "it was asked how old it is"
    assert (await operator.run("upstreams", "--quiet")).output.splitlines() == [row]
    (state,) = await operator.json("upstreams")
    assert (state["url"], state["state"]) == (upstream.url, "up")
    assert await operator.json("upstreams", "--index", "pypi") == [state]
    ended = await operator.run("upstreams", "--index", "corp")
    assert (ended.status, ended.output) == (1, "there is no index named 'corp' here; there is pypi\n")


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_is_down_says_until_when_since_when_and_why(
    make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    config = (
        '[upstream.gone]\nurl = "http://127.0.0.1:9/simple/"\n[upstream.lost]\nurl = "http://no-such-host.invalid/simple/"\n'
        '[[index]]\nname = "a"\nupstreams = ["gone"]\ndefault = true\n[[index]]\nname = "b"\nupstreams = ["lost"]\n'
    )
    proxy = await make_proxy(config=config).started()
    operator = Operator(tmp_path, proxy.data_dir)
    for index in "ab":
        assert (await wire.fetch(proxy.port, f"/index/{index}/simple/six/")).status == 503
    gone, lost = (re.split(r"  +", row) for row in (await operator.run("upstreams", "-q")).output.splitlines())
    for cells in gone, lost:
        assert re.fullmatch(r"down until \d\d:\d\d:\d\d|probing", cells[2])
    assert gone[9:11] == ["http://127.0.0.1:9/simple/", "127.0.0.1 (resting)"]
    assert gone[11].endswith("connection refused")
    assert lost[9:11] == ["http://no-such-host.invalid/simple/", "-"]
    assert lost[11].endswith("the name no-such-host.invalid cannot be resolved")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", cells[3]) for cells in (gone, lost))
    assert all(state["since"] < state["paused_until"] for state in await operator.json("upstreams"))


@pytest_twisted.ensureDeferred
async def test_without_a_running_proxy_an_index_is_removed_by_the_configuration_that_is_named(
    data_dir: Path, tmp_path: Path
) -> None:
    """An index that the default configuration lacks may be one that the proxy serves."""
    operator, file = Operator(tmp_path, data_dir), tmp_path / "two.toml"
    ended = await operator.run("purge", "--all", "--index", "corp")
    assert ended.status == 1
    assert ended.output == (
        f"no proxy runs on {data_dir}; name its configuration with --config, "
        "which shows whether the index corp was removed from it\n"
    )
    file.write_text('[[index]]\nname = "corp"\noffline = true\n')
    ended = await operator.run("purge", "--all", "--index", "corp", "--config", str(file))
    assert (ended.status, ended.output.startswith("the index corp is configured: ")) == (1, True), ended
    ended = await operator.run("purge", "--all", "--index", "old", "--config", str(file))
    assert (ended.status, ended.output.startswith("nothing is known of an index named 'old'")) == (1, True), ended


@pytest_twisted.ensureDeferred
async def test_without_a_running_proxy_the_state_of_upstreams_is_not_known(data_dir: Path, tmp_path: Path) -> None:
    ended = await Operator(tmp_path, data_dir).run("upstreams")
    assert ended.status == 1
    assert ended.output == f"no proxy runs on {data_dir}, and only a running one can say: start it with pypiproxy serve\n"


@pytest_twisted.ensureDeferred
async def test_a_directory_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    ended = await Operator(tmp_path, tmp_path / "nowhere").run("upstreams")
    assert ended.status == 1
    assert "nowhere: there is no such directory; name the data directory of the proxy with --data-dir, or its" in ended.output
    assert not (tmp_path / "nowhere").exists()


@pytest_twisted.ensureDeferred
async def test_a_killed_proxy_leaves_a_socket_that_misleads_nobody(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    proxy = await make_proxy(upstream.url).started()
    operator = Operator(tmp_path, proxy.data_dir)
    assert await proxy.kill() == -signal.SIGKILL
    assert (proxy.data_dir / "admin.sock").exists()
    assert (await operator.run("upstreams")).status == 1
    await proxy.started()
    assert await operator.json("upstreams")
    await proxy.stop()
    assert not (proxy.data_dir / "admin.sock").exists()
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_what_is_no_socket_is_left_alone_and_told(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = make_proxy(upstream.url)
    proxy.data_dir.mkdir(parents=True, mode=0o700)
    (proxy.data_dir / "admin.sock").write_text("mine")
    proxy.start()
    assert proxy.process is not None
    ended = await proxy.process.end()
    assert ended.status == 1
    assert f'--data-dir = "{proxy.data_dir}/admin.sock": the admin socket cannot be made: ' in ended.output
    assert "Traceback" not in ended.output
    assert (proxy.data_dir / "admin.sock").read_text() == "mine"


def test_an_answer_that_comes_before_the_command_looks_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy may have answered, and closed the connection, when the request has just been handed over with a file."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "admin.sock"))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"result": "done"}\n')
                os.close(descriptors[0])

        answering, send = threading.Thread(target=answer), socket.send_fds
        answering.start()

        def send_and_wait(*args: Any) -> int:
            sent = send(*args)
            answering.join()
            return sent

        monkeypatch.setattr(socket, "send_fds", send_and_wait)
        with open(tmp_path / "bundle", "wb") as handed:
            assert asking.ask(tmp_path, "import", {}, lambda said: None, handed=handed.fileno()) == "done"
