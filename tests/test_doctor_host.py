"""What ``pypiproxy doctor`` finds out about the host of a proxy, beside a running one and without one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from click.testing import CliRunner
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from proxy.cli import main
from proxy.commands.doctor import without_controls
from proxy.doctor.directory import directory_findings
from proxy.doctor.disk import FileSystem, disk_findings, file_system_of
from proxy.doctor.findings import Diagnosis, Grade
from proxy.doctor.host import ExaminedHost, examine_host
from proxy.doctor.running import descriptor_findings, identity_of, state_findings
from proxy.errors import ProxyError
from proxy.host.owner import line_as
from proxy.mechanism.offload import Inline
from proxy.settings import MIB, ServerSettings, Settings, UpstreamSettings
from tests.evidence import Make
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.test_doctor_upstreams import bad, fill, means

T = TypeVar("T")

GIB = 1024 * MIB
LARGE = FileSystem("ext4", False, 1000 * GIB, 500 * GIB, 1_000_000, 900_000)


def grades(found: Sequence[Diagnosis], check: str) -> list[Grade]:
    return [each.grade for each in found if each.check == check]


# -- disk --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "server", "expected"),
    [
        ({}, {}, []),
        ({"read_only": True}, {}, [("kind", Grade.FAULT)]),
        ({"kind": "nfs4"}, {}, [("kind", Grade.WARNING)]),
        ({"kind": "tmpfs"}, {}, [("kind", Grade.WARNING)]),
        ({"kind": "overlay"}, {}, [("kind", Grade.WARNING)]),
        ({"free": 0}, {"min_free": 1}, [("space", Grade.FAULT)]),
        ({"free": GIB // 2}, {"min_free": 1}, [("space", Grade.WARNING)]),
        ({"free": 100 * GIB}, {}, [("limits", Grade.WARNING)]),
        ({}, {"max_size": 2000 * GIB}, [("limits", Grade.WARNING)]),
        ({}, {"max_size": 2000 * GIB, "min_free": GIB}, []),
        ({"free_inodes": 0}, {}, [("inodes", Grade.FAULT)]),
        ({"free_inodes": 10_000}, {}, [("inodes", Grade.WARNING)]),
        ({"inodes": 0, "free_inodes": 0}, {}, []),
    ],
)
def test_a_file_system_is_judged(
    changes: dict[str, Any], server: dict[str, Any], expected: list[tuple[str, Grade]], tmp_path: Path
) -> None:
    found = disk_findings(ServerSettings(data_dir=tmp_path, **server), replace(LARGE, **changes))
    assert bad(list(found)) == expected


def test_the_file_system_of_a_directory_that_is_missing_is_that_of_what_is_above(tmp_path: Path) -> None:
    found = file_system_of(tmp_path / "none" / "at" / "all")
    assert found.kind == file_system_of(tmp_path).kind != "unknown"
    assert found.total >= found.free > 0


# -- permissions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "grade"), [(0o700, Grade.OK), (0o755, Grade.WARNING), (0o770, Grade.WARNING), (0o777, Grade.FAULT)]
)
def test_the_mode_of_the_data_directory_is_judged(data_dir: Path, mode: int, grade: Grade) -> None:
    data_dir.chmod(mode)
    assert grades(list(directory_findings(data_dir, os.geteuid())), "permissions") == [grade]


def test_a_data_directory_of_another_user_or_of_another_version_is_found(data_dir: Path, tmp_path: Path) -> None:
    foreign = [each for each in directory_findings(data_dir, os.geteuid() + 1) if each.check == "owner"]
    assert [each.grade for each in foreign] == [Grade.WARNING]
    assert (foreign[0].advice or "").endswith(line_as(os.geteuid(), os.getegid())), "with the options of this command"
    assert bad(list(directory_findings(tmp_path / "new", os.geteuid()))) == []
    (data_dir / "instance").write_text("name\nformat 99\n")
    assert grades(list(directory_findings(data_dir, os.geteuid())), "format") == [Grade.FAULT]
    (data_dir / "instance").write_text("name\n")
    assert grades(list(directory_findings(data_dir, os.geteuid())), "format") == [Grade.WARNING]
    (tmp_path / "file").write_text("")
    assert grades(list(directory_findings(tmp_path / "file", os.geteuid())), "permissions") == [Grade.FAULT]


# -- the process -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "grade"),
    [(20_000, 100, Grade.OK), (1024, None, Grade.WARNING), (20_000, 19_000, Grade.FAULT), (20_000, None, Grade.OK)],
)
def test_the_limit_of_descriptors_is_judged(tmp_path: Path, limit: int, used: int | None, grade: Grade) -> None:
    upstream = UpstreamSettings(name="up", url="http://up.example/simple/")
    settings = Settings(server=ServerSettings(data_dir=tmp_path), upstreams=(upstream,), indexes=())
    assert [each.grade for each in descriptor_findings(settings, limit, used)] == [grade]


def test_what_the_running_proxy_says_of_an_upstream_is_passed_on_without_credentials() -> None:
    state = {"name": "up", "state": "down", "last_failure": "GET http://u:s3cret@up.example/ failed", "resting": ["192.0.2.1"]}
    found = list(state_findings([state, {"name": "b", "state": "up", "better_url": "http://b.example/simple/"}]))
    assert [each.grade for each in found] == [Grade.WARNING, Grade.WARNING, Grade.FAULT]
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"service": "pypiproxy"}', b"\xff", b'{"service": "other"}', b"null"])
def test_what_is_no_pypiproxy_is_not_taken_for_one(body: bytes) -> None:
    assert identity_of(body) is None


# -- all of it ---------------------------------------------------------------------------------------------------------------


def nobody(data_dir: Path) -> Sequence[Mapping[str, Any]]:
    raise ProxyError("no proxy runs")


async def examined(file: Path | None, data_dir: Path | None = None) -> list[Diagnosis]:
    found: list[Diagnosis] = []
    await examine_host(ExaminedHost(file, data_dir, nobody, "six"), means(), found.append)
    return found


@pytest_twisted.ensureDeferred
async def test_a_configuration_with_mistakes_is_a_fault_with_its_message(tmp_path: Path) -> None:
    file = tmp_path / "pypiproxy.toml"
    file.write_text("[server]\nmax_sise = 1\n")
    (finding,) = await examined(file)
    assert finding.grade is Grade.FAULT
    assert "max_sise" in finding.seen


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_and_upstreams_of_online_indexes_are_examined(
    upstream: FakeUpstream, make_upstream: Make, data_dir: Path, tmp_path: Path, open_to_all: Path
) -> None:
    fill(upstream)
    idle = make_upstream()
    file = tmp_path / "pypiproxy.toml"
    secret = open_to_all / "token"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(
            f'[server]\ndata_dir = "{data_dir}"\nlisten = ["127.0.0.1:{taken.getsockname()[1]}"]\n'
            f'[upstream.used]\nurl = "{upstream.url}"\ntoken_file = "{secret}"\n'
            f'[upstream.idle]\nurl = "{idle.url}"\n'
            '[[index]]\nname = "main"\nupstreams = ["used"]\ndefault = true\n'
            '[[index]]\nname = "old"\nupstreams = ["idle"]\noffline = true\n'
        )
        found = await examined(file)
    assert grades(found, "port") == [Grade.FAULT]
    assert [each.grade for each in found if each.subject == "secrets"] == [Grade.WARNING]
    assert {each.subject for each in found if each.subject.startswith("upstream ")} == {"upstream used"}
    assert idle.asked == []
    assert "s3cret" not in repr(found)


class Hanging(Inline):
    """Threads of a machine whose file system does not answer."""

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        never: Deferred[T] = Deferred()
        return await never


@pytest_twisted.ensureDeferred
async def test_a_file_system_that_does_not_answer_is_a_fault_and_the_rest_is_examined(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "pypiproxy.toml"
    server = f'[server]\ndata_dir = "{data_dir}"\nlisten = ["127.0.0.1:0"]\n'
    file.write_text(f'{server}[[index]]\nname = "main"\noffline = true\ndefault = true\n')
    found: list[Diagnosis] = []
    host = ExaminedHost(file, None, nobody, "six")
    await examine_host(host, means(limit=0.1, files=Hanging()), found.append)
    assert bad(found) == [("answer", Grade.FAULT), ("answer", Grade.FAULT)]


@pytest_twisted.ensureDeferred
async def test_the_command_examines_a_running_proxy_and_ends_with_a_status_for_scripts(
    make_proxy: Callable[..., ProxyProcess], upstream: FakeUpstream, tmp_path: Path
) -> None:
    fill(upstream)
    proxy = make_proxy(upstream.url)
    await proxy.started()
    file = tmp_path / "pypiproxy.toml"
    index = '[[index]]\nname = "main"\nupstreams = ["up"]\ndefault = true\n'
    server = f'[server]\ndata_dir = "{proxy.data_dir}"\nlisten = ["127.0.0.1:{proxy.port}"]\n'
    file.write_text(f'{server}[upstream.up]\nurl = "{upstream.url}"\n{index}')
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(file), "--project", "six"))
    found = {(each["subject"], each["check"]): each for each in await operator.lines("doctor")}
    assert found["running proxy", "admin socket"]["grade"] == "ok"
    assert found["listen", "listener"]["seen"].endswith("is ready")
    assert "in use" in found["descriptors", "limit"]["seen"]
    agent = await operator.without_directory("doctor", "--agent", proxy.base, "--project", "six")
    assert agent.status == 1  # no pip.conf and no variable names the proxy
    assert f"ok       proxy: {proxy.base} is pypiproxy" in agent.output
    assert "fault    pip: is told nothing" in agent.output
    assert f"export PIP_INDEX_URL={proxy.url}" in agent.output
    await proxy.stop()
    await upstream.down()
    ended = await operator.run("doctor", "--quiet")
    assert ended.status == 1
    lines = ended.output.splitlines()
    assert [line for line in lines if line.startswith("fault")] == ["fault    upstream up: 127.0.0.1: connection refused"]
    assert not any(line.startswith("ok") for line in lines)


def test_a_finding_has_no_control_characters_on_a_terminal() -> None:
    assert without_controls("a\x1b[31mb\nc\u202e é") == "a\\x1b[31mb\\nc\\u202e é"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--project", "../x"],
        ["--agent", "ftp://proxy.example"],
        ["--ca-file", "ca.pem"],
        ["--timeout", "0"],
        ["--config", "nowhere.toml"],
        ["--upstream", "unknown"],
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["doctor", *arguments]).exit_code == 2
