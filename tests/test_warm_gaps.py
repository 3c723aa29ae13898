"""What ``pypiproxy warm`` has to bear: locks for all platforms, settings of the host, files that are none, Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor

from proxy.composition.reaching import Reaching
from proxy.errors import BadRequest, ConfigError
from proxy.host import datadir
from proxy.host.listening import Listening
from proxy.settings import GrantSettings
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ROOT, ProxyProcess, Running, environment
from tests.support.wheels import wheel
from tests.test_warm import APP, LIB, Proxied, Warm, proxied, stocked, tables, uv_lock, warm

__all__ = ["proxied", "stocked", "warm"]  # fixtures

reactor: Any = default_reactor
MakeProxy = Callable[..., ProxyProcess]
TOOL = "tool-1.0-py3-none-any.whl"

#: Files of a known name whose content is of another shape.
MISSHAPEN = (
    ("poetry.lock", 'metadata = "x"\npackage = "y"\n'),
    ("uv.lock", 'version = 1\npackage = "y"\n'),
    ("uv.lock", 'version = 1\n[[package]]\nname = "x"\nversion = "1"\nsource = "y"\n'),
    ("Pipfile.lock", '{"_meta": 1}'),
    ("Pipfile.lock", '{"_meta": {"pipfile-spec": 6}, "default": {"x": "y"}}'),
    ("pdm.lock", "metadata = 1\n"),
    ("other.lock", "metadata = 1\n"),
    ("pyproject.toml", "project = 1\n"),
    ("pylock.toml", "lock-version = 1\n"),
)


def for_windows_alone(stocked: FakeUpstream, lock: str) -> str:
    """A lock of the format *lock* with APP and a project that has nothing but a wheel for Windows."""
    made = wheel("winonly")
    other = replace(made, filename="winonly-1.0-cp312-cp312-win_amd64.whl")
    stocked.add_file("winonly", other.filename, made.data, metadata=made.metadata)
    if lock == "uv.lock":
        return uv_lock(APP, other)
    return tables("package", APP, other) + '[metadata]\nlock-version = "2.1"\n'


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock"])
async def test_what_a_lock_lists_for_other_platforms_alone_is_no_failure(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm, name: str
) -> None:
    lock = warm.write(name, for_windows_alone(stocked, name))
    proxy = await proxied()
    ended = await warm("-r", lock, "--platform", "manylinux_2_28_x86_64", "--python", "3.12", "--proxy", proxy.url)
    assert ended.status == 0, ended.output
    assert "winonly 1.0 is locked for other platforms than these" in ended.output
    ended = await warm("-r", lock, "--platform", "win_amd64", "--python", "3.12", "--proxy", proxy.url)
    assert "fetched winonly-1.0-cp312-cp312-win_amd64.whl" in ended.output
    # Named as a requirement it is wanted, not listed.
    ended = await warm("winonly==1.0", "--platform", "manylinux_2_28_x86_64", "--python", "3.12", "--proxy", proxy.url)
    assert ended.status == 1, ended.output


@pytest_twisted.ensureDeferred
async def test_what_can_be_had_of_a_project_is_fetched_when_not_all_can(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    text = (
        '[project]\nname = "mine"\nversion = "1"\ndependencies = ["lib", "no-such-project"]\n'
        '[project.optional-dependencies]\nmore = ["extra-thing"]\n[dependency-groups]\ndev = ["tool"]\n'
    )
    arguments = ["-r", warm.write("pyproject.toml", text), "--extra", "more", "--group", "dev"]
    ended = await warm(*arguments, "--proxy", proxy.url)
    assert ended.status == 1, ended.output
    for filename in (LIB.filename, TOOL, "extra_thing-1.0-py3-none-any.whl"):
        assert f"fetched {filename}" in ended.output
    assert "failed: no-such-project" in ended.output


@pytest_twisted.ensureDeferred
async def test_the_sources_of_a_project_are_not_asked(
    stocked: FakeUpstream, proxied: Proxied, make_upstream: Callable[..., FakeUpstream], warm: Warm
) -> None:
    elsewhere = make_upstream()
    proxy = await proxied()
    text = (
        '[project]\nname = "mine"\nversion = "1"\ndependencies = ["lib"]\n'
        f'[tool.uv.sources]\nlib = {{ url = "{elsewhere.base}/lib-9.9-py3-none-any.whl" }}\n'
    )
    ended = await warm("-r", warm.write("pyproject.toml", text), "--proxy", proxy.url)
    assert (ended.status, elsewhere.count()) == (0, 0), ended.output
    assert f"fetched {LIB.filename}" in ended.output


@pytest_twisted.ensureDeferred
async def test_the_hosts_outbound_proxy_is_not_asked_and_a_report_that_cannot_be_written_is_said(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    nobody = "http://127.0.0.1:9/"
    env = environment(warm.folder / "home", PYTHONPATH=str(ROOT), HTTP_PROXY=nobody, http_proxy=nobody, ALL_PROXY=nobody)
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "warm", "lib", "--proxy", proxy.url]
    ended = await Running().spawn([*command, "--report", "no/such/report.json"], env, warm.folder).end()
    assert f"fetched {LIB.filename}" in ended.output
    assert "1 fetched, 0 failed" in ended.output
    assert "--report no/such/report.json: cannot be written: No such file or directory" in ended.output
    assert (ended.status, "Traceback" in ended.output) == (1, False)


@pytest_twisted.ensureDeferred
async def test_files_of_another_shape_are_named_and_the_rest_is_fetched(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    arguments = ["tool", "-r", "."]
    for number, (name, text) in enumerate(MISSHAPEN):
        (warm.folder / str(number)).mkdir()
        arguments += ["-r", warm.write(f"{number}/{name}", text)]
    ended = await warm(*arguments, "--proxy", proxy.url)
    assert (ended.status, "Traceback" in ended.output) == (1, False), ended.output
    assert f"fetched {TOOL}" in ended.output
    for number, (name, _) in enumerate(MISSHAPEN):
        assert f"{number}/{name}" in ended.output
    assert ".: cannot be read: Is a directory" in ended.output


@pytest_twisted.ensureDeferred
async def test_it_stops_cleanly_while_uv_resolves_and_leaves_no_uv_behind(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    gate = stocked.hold("/simple/app/")
    running = warm.start("app", "--proxy", proxy.url)
    await stocked.until(lambda: gate.arrivals > 0)
    children = _children(running.pid)
    running.signal(signal.SIGINT)
    ended = await running.end()
    gate.release()
    assert (ended.status, "Traceback" in ended.output) == (130, False), ended.output
    assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}/cmdline").exists() and _is_uv(pid)]


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii")
    return [int(each) for each in listed.split()]


def _is_uv(pid: int) -> bool:
    """Whether *pid* is uv still at work (one that was killed and is not waited for yet has no command line)."""
    return b"compile" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest_twisted.ensureDeferred
async def test_a_dry_run_tells_what_is_there_already(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    proxy = await proxied()
    assert (await warm("lib", "--proxy", proxy.url)).status == 0
    ended = await warm("lib", "tool", "--proxy", proxy.url, "--dry-run")
    assert f"there {LIB.filename}" in ended.output
    assert f"wanted {TOOL}" in ended.output
    assert "1 file is there, 1 would be asked for, 0 failed" in ended.output
    # its metadata was read out of it, by a range
    assert [each for each in stocked.asked if each.path.endswith(TOOL) and "range" not in each.headers] == []


@pytest_twisted.ensureDeferred
async def test_a_data_directory_that_another_instance_uses_is_said_with_what_to_do(stocked: FakeUpstream, warm: Warm) -> None:
    data_dir = warm.folder / "data"
    file = warm.folder / "warmed.toml"
    file.write_text(f'[server]\nlisten = ["3999"]\ndata_dir = "{data_dir}"\n')
    claim = datadir.claim(data_dir)  # as another command has that works on it
    ended = await warm("lib", "--data-dir", str(data_dir))
    assert (ended.status, "Traceback" in ended.output) == (1, False), ended.output
    assert "uses it" in ended.output
    assert "name the proxy that runs, with --proxy; or else" in ended.output, "a directory does not say where that is"
    ended = await warm("lib", "--config", str(file))
    assert "name the proxy that runs, with --proxy http://127.0.0.1:3999; or else" in ended.output
    claim.release()


@pytest_twisted.ensureDeferred
async def test_the_proxy_that_runs_on_the_data_directory_is_warmed_wherever_it_listens(
    stocked: FakeUpstream, run: Start, warm: Warm, tmp_path: Path
) -> None:
    proxy = await run(stocked, grants=(GrantSettings(role="reader", principals=("user:alice",)),))
    data_dir = proxy.service.settings.server.data_dir
    file = warm.folder / "warmed.toml"
    file.write_text(f'[server]\nlisten = ["3999"]\ndata_dir = "{data_dir}"\n')
    ended = await warm("lib==2.1", "--config", str(file), "--pin")
    assert ended.status == 0, ended.output
    assert f"fetched {LIB.filename}" in ended.output
    assert f"http://127.0.0.1:{proxy.port}/simple/" in ended.output
    assert "@" not in ended.output  # nor the password by which it may read what is for alice
    pins = await proxy.service.administration.perform("pins")
    assert [each["filename"] for each in pins] == [LIB.filename]
    ended = await warm("lib==2.1", "--data-dir", str(data_dir), "--dry-run")
    assert (ended.status, f"there {LIB.filename}" in ended.output) == (0, True), ended.output
    await proxy.stop()
    lines = [json.loads(each) for each in (data_dir / "audit.jsonl").read_text().splitlines()]
    assert ("part:admin", "warm", "done") in {(each["who"], each["action"], each["outcome"]) for each in lines}


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_cannot_be_asked_over_http_says_so(run: Start, tmp_path: Path) -> None:
    proxy = await run()
    only = Listening(f"unix:{tmp_path}/socket", None, reactor)
    reaching = Reaching(lambda: [only], lambda: proxy.service.present.access)
    with pytest.raises(BadRequest, match="listens only with TLS or at sockets in the file system"):
        await reaching.operations["warm"](lambda said: None)
    with pytest.raises(ConfigError, match=r"expected a tcp: endpoint in server\.listen"):
        reaching.url()
