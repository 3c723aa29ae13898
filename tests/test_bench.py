"""What the bench makes of servers that cannot do what is asked, and of figures."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench import environments
from bench.reply import Reply
from bench.rounds import measure
from bench.scenarios import Metric, Scenario, Settings
from bench.servers import Server
from bench.table import Row, table
from bench.upstream import Upstream
from tests.support.wheels import wheel

SECONDS = Metric("cold", "s", goal=0.5)


class Named(Server):
    """A server that notes what is done with it instead of being one."""

    def __init__(self, name: str) -> None:
        super().__init__("http://upstream.example", 0, Path("/nonexistent"))
        self.name = name
        self.did: list[str] = []

    @classmethod
    def version(cls) -> str:
        return "1"

    @property
    def runs(self) -> bool:
        return self.did[-1:] == ["start"]

    def start(self, **settings: str) -> None:
        self.did.append("start")

    def stop(self) -> None:
        self.did.append("stop")

    def _start(self) -> None: ...


def scenario(figure: Callable[[Server], float], *, cold: bool = False) -> Scenario:
    return Scenario("s", (SECONDS,), lambda _settings, server: [figure(server)], cold=cold)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # None of these scenarios asks it anything.
    return Settings(Upstream.__new__(Upstream), 1, 1, tmp_path)


def run(asked: Scenario, settings: Settings, servers: Sequence[Server], repetitions: int = 3) -> Row:
    [row] = measure(asked, settings, servers, repetitions)
    return row


def test_a_server_that_fails_once_is_left_out_with_the_reason_and_begins_anew(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Named("good"), Named("bad")

    def figure(server: Server) -> float:
        if server is bad and "measured" in bad.did:
            raise RuntimeError("404 Not Found")
        if server is bad:
            bad.did[-1:] = ["measured", "start"]
        return 2.0

    row = run(scenario(figure), settings, [good, bad])
    assert row.values == {"good": [2.0, 2.0, 2.0]}
    assert "bad is left out: RuntimeError: 404 Not Found" in capsys.readouterr().err
    assert bad.did[-1] == "stop"
    assert not bad.runs
    assert "| 2    | -" in table([row], ["good", "bad"])


def test_servers_are_started_once_for_hot_scenarios_and_each_time_for_cold_ones(settings: Settings) -> None:
    server = Named("a")
    run(scenario(lambda _: 1.0), settings, [server])
    assert server.did.count("start") == 1
    run(scenario(lambda _: 1.0, cold=True), settings, [server])
    assert server.did.count("start") == 1 + 3


def test_ratios_are_to_the_rows_own_reference_which_comes_first() -> None:
    row = Row("resolve", SECONDS, "direct", {"direct": [4.0], "ours": [1.0]})
    assert row.ratio("ours") == 0.25
    head, _, line = table([row], ["ours"]).splitlines()
    assert [each.strip() for each in head.split("|")[3:-1]] == ["direct", "ours", "ours / direct", "goal"]
    assert [each.strip() for each in line.split("|")[3:-1]] == ["4", "1", "0.25", "≤ 0.5"]


def test_a_time_without_end_is_null_in_json() -> None:
    document = Row("herd", SECONDS, "a", {"a": [1.0], "b": [float("inf")]}).document()
    assert json.loads(json.dumps(document, allow_nan=False))["values"]["b"] == [None]
    assert document["ratios"]["b"] is None


def test_an_environment_is_made_once_and_one_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "environments")
    peer = wheel("some-peer", "2.5")
    (tmp_path / peer.filename).write_bytes(peer.data)
    folder = environments.environment("some-peer", str(tmp_path / peer.filename))
    assert environments.version(folder, "some-peer") == "2.5"
    assert "installing" in capsys.readouterr().err
    assert environments.environment("some-peer", str(tmp_path / peer.filename)) == folder
    assert "installing" not in capsys.readouterr().err
    with pytest.raises(environments.CannotInstallError, match=r"not exist|No such file|not found"):
        environments.environment("some-peer", str(tmp_path / "gone-1.0-py3-none-any.whl"))


def reply(expected: bytes | None, *pieces: bytes) -> Reply:
    taken = Reply(expected)
    for each in pieces:
        taken.take(memoryview(each))
    return taken


def test_an_answer_is_right_when_each_of_its_bytes_is_what_was_expected() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    assert reply(b"abcd", head[:20], head[20:] + b"ab", b"cd").is_right()
    assert not reply(b"abcd", head, b"ab").is_right()
    assert not reply(b"abcd", head, b"ab", b"xd").is_right()
    assert not reply(b"abcde", head, b"abcd").is_right()
    assert not reply(b"abcd", head.replace(b"200 OK", b"503 No"), b"abcd").is_right()


def test_an_answer_in_chunks_is_joined_and_its_coding_is_undone() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    packed = gzip.compress(b"a page")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (packed[:5], packed[5:], b""))
    assert reply(None, head + chunks[:9], chunks[9:]).decoded() == b"a page"
    assert reply(None, head + chunks[:9]).decoded() == b""
