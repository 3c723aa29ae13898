"""A data directory belongs to the user that runs the proxy: root leaves nothing there that this user cannot use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted

from proxy.errors import ConfigError
from proxy.host import datadir
from proxy.host.owner import Users, is_foreign, refuse_root
from tests.support import wire
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ROOT, ProxyProcess, Python
from tests.support.users import AS_NOBODY, NAME, python_of_nobody, shared_place, user_id
from tests.support.wheels import wheel

SIX = wheel("six", "1.0")
ALL, ROOTLESS = Users(True, 65534), Users(False, 65534)


@pytest.mark.parametrize(
    ("owner", "user", "users", "foreign"),
    [
        (0, 0, ALL, False),
        (1000, 0, ALL, True),
        (65534, 0, ALL, True),
        (1000, 1000, ALL, False),
        (1000, 1001, ALL, False),  # the file system decides
        (0, 0, ROOTLESS, False),
        (65534, 0, ROOTLESS, False),  # not mapped
        (33, 0, ROOTLESS, True),
    ],
)
def test_only_root_is_refused_and_only_where_it_could_be_the_owner(owner: int, user: int, users: Users, foreign: bool) -> None:
    assert is_foreign(owner, user, users) is foreign


@pytest.fixture
def python() -> Python:
    found = python_of_nobody()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def place(python: Python) -> Iterator[Path]:
    with shared_place() as made:
        yield made


@pytest.fixture
def owned(place: Path) -> Path:
    """An empty data directory of the other user."""
    data = place / "data"
    data.mkdir(mode=0o700)
    os.chown(data, user_id(), -1)
    return data


def owners(folder: Path) -> set[int]:
    return {each.lstat().st_uid for each in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["/opt/bin/pypiproxy", "warm", "-r", "my needs.txt"], "/opt/bin/pypiproxy warm -r 'my needs.txt'"),
        (["/usr/bin/twistd", "-n", "pypiproxy"], "/usr/bin/twistd -n pypiproxy"),
        (["-c", "ls"], "pypiproxy ls"),
    ],
)
def test_the_message_has_the_command_to_use(owned: Path, arguments: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_root(owned, arguments)
    assert f'"{owned}": it belongs to {NAME}' in str(caught.value)
    assert str(caught.value).endswith(f"runuser -u {NAME} -- {line}")


def test_a_user_without_a_name_is_named_by_its_id(owned: Path) -> None:
    os.chown(owned, 54321, 12345)
    with pytest.raises(ConfigError, match=r"it belongs to user id 54321.*setpriv --reuid=54321 --regid=12345 --clear-groups"):
        refuse_root(owned, ["pypiproxy", "ls"])


@pytest.mark.parametrize(
    "command",
    [
        ["warm", "six"],
        ["import", "bundle"],
        ["ls"],
        ["refresh", "six"],
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_command_that_opens_the_directory_refuses_root_and_leaves_nothing(
    owned: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "bundle").write_bytes(b"")
    ended = await Operator(tmp_path, owned).run(*command)
    assert (ended.status, "Traceback" in ended.output) == (1, False)
    assert f"it belongs to {NAME}" in ended.output
    assert f"runuser -u {NAME} -- pypiproxy {command[0]}" in ended.output
    assert list(owned.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_the_command_in_the_message_works_and_root_may_ask_the_running_proxy(
    upstream: FakeUpstream, owned: Path, place: Path, python: Python
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    config = place / "pypiproxy.toml"
    config.write_text(f'[upstream.up]\nurl = "{upstream.url}"\n[[index]]\nname = "pypi"\nupstreams = ["up"]\n')
    as_owner = Operator(place, owned, ("--config", str(config)), before=AS_NOBODY, python=python)
    warmed = await as_owner.run("warm", "--no-deps", "six")
    assert warmed.status == 0, warmed
    assert owners(owned) == {user_id()}
    proxy = ProxyProcess(place, upstream.url, python=python)
    proxy.before = AS_NOBODY
    await proxy.started()
    try:
        listed = await Operator(place, owned).json("ls")
        assert listed["project"] == "six"
        assert owners(owned) == {user_id()}
    finally:
        await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_the_service_refuses_root(upstream: FakeUpstream, owned: Path, place: Path) -> None:
    proxy = ProxyProcess(place, upstream.url)
    proxy.start()
    assert proxy.process is not None
    ended = await proxy.process.end()
    assert ended.status == 1
    assert f"it belongs to {NAME}" in ended.output
    assert list(owned.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_twistd_that_becomes_the_owner_is_served_and_leaves_all_to_it(
    upstream: FakeUpstream, owned: Path, place: Path, python: Python
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = ProxyProcess(place, upstream.url, python=python)
    proxy.twistd_options = ("--uid", NAME)
    await proxy.started()
    try:
        assert (await wire.fetch(proxy.port, "/simple/six/")).status == 200
        assert owners(owned) == {user_id()}
        # The owner's commands reach it.
        assert (await Operator(place, owned, before=AS_NOBODY, python=python).run("stats")).status == 0
    finally:
        await proxy.stop()
    restarted = ProxyProcess(place, upstream.url, python=python)
    restarted.before = AS_NOBODY
    await restarted.started()
    assert "degraded" not in restarted.log
    await restarted.stop()


@pytest.mark.parametrize("spoil", ["owner", "mode"])
@pytest_twisted.ensureDeferred
async def test_what_the_proxy_may_not_use_is_reported_at_the_start_and_served_as_missing(
    upstream: FakeUpstream, owned: Path, place: Path, python: Python, spoil: str
) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = ProxyProcess(place, upstream.url, python=python)
    proxy.before = AS_NOBODY
    await proxy.started()
    page = await wire.fetch(proxy.port, "/simple/six/", Accept=JSON_TYPE)
    path = urljoin("/simple/six/", page.json["files"][0]["url"])
    assert (await wire.fetch(proxy.port, path)).body == SIX.data
    await proxy.stop()
    (shard,) = (each.parent for each in owned.glob("files/*/*"))
    if spoil == "owner":
        os.chown(shard, 0, 0)
    else:
        shard.chmod(0)
    await proxy.started()
    process = proxy.process
    assert process is not None
    await process.until(lambda: "degraded (store-not-readable)" in process.output, 60.0)
    said = (await wire.fetch(proxy.port, "/-/ready")).body.decode()
    assert f"may not use files/{shard.name} in the data directory" in said
    stats = await Operator(place, owned, before=AS_NOBODY, python=python).json("stats")
    assert [each["reason"] for each in stats["degraded"]] == ["store-not-readable"]
    answer = await wire.fetch(proxy.port, path)
    assert (answer.status, answer.body) == (200, SIX.data)
    os.chown(shard, user_id(), -1)
    shard.chmod(0o700)
    assert (await wire.fetch(proxy.port, "/-/ready")).body == b"ready\n"
    assert "Traceback" not in process.output
    await proxy.stop()


def test_in_a_rootless_container_a_directory_of_a_user_that_is_not_there_is_no_reason_to_refuse(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Ur", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this process may make no user namespace")
    code = "import sys, pathlib, proxy.host.owner as o; o.refuse_root(pathlib.Path(sys.argv[1]))"
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    if os.getuid() == 0:
        os.chown(other, 12345, 12345)
        with pytest.raises(ConfigError):
            datadir.claim(other)
    for each in (own, other):
        command = [unshare, "-Ur", sys.executable, "-c", code, str(each)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
