"""The machine fails and the proxy does not: a disk that is full, read-only or gone, folders that are missing or forbidden."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted

from proxy.errors import InUse
from proxy.host import datadir
from tests.inprocess import JSON, Running, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ROOT, ProxyProcess, can_mount
from tests.support.wheels import data_of, wheel

MakeProxy = Callable[..., ProxyProcess]
SIZE = 300_000
FOLDERS = ("files", "partial", "lists", "quarantine")

needs_mounts = pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")


class Shop:
    """Projects of one wheel each on *upstream*, a new one with each `new`."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.bytes: dict[str, bytes] = {}

    def new(self) -> str:
        name = f"p{len(self.bytes)}"
        self.bytes[name] = data_of(SIZE, seed=len(self.bytes))
        self.upstream.add_file(name, self.filename(name), self.bytes[name])
        return name

    def filename(self, name: str) -> str:
        return f"{name}-1.0-py3-none-any.whl"

    def asked(self, name: str) -> int:
        return self.upstream.count(f"/packages/*{self.filename(name)}")

    async def serves(self, proxy: Running, name: str) -> None:
        assert (await proxy.get(await proxy.link(name, self.filename(name)))).body == self.bytes[name]

    async def stores(self, proxy: Running) -> None:
        """A new file is served, stored, and then served from there."""
        name = self.new()
        await self.serves(proxy, name)
        await self.serves(proxy, name)
        assert self.asked(name) == 1

    async def passes(self, proxy: Running) -> None:
        """A new file is served, and not stored."""
        name = self.new()
        await self.serves(proxy, name)
        await self.serves(proxy, name)
        assert self.asked(name) == 2


@pytest.fixture
def shop(upstream: FakeUpstream) -> Shop:
    return Shop(upstream)


def block(folder: Path) -> None:
    """Put a file in the place of *folder*, which nobody, not even root, can make a file in."""
    while not folder.is_file():  # the proxy makes it again
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(IsADirectoryError):
            folder.write_text("no directory")


async def ready(proxy: Running) -> str:
    """What is wrong, after a check that builds are served."""
    reply = await proxy.get("/-/ready")
    assert reply.status == 200
    return reply.body.decode()


# -- folders ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [*FOLDERS, "records", "ledger", "ledger-copy"])
@pytest_twisted.ensureDeferred
async def test_a_folder_that_is_missing_is_made_again(shop: Shop, run: Start, tmp_path: Path, folder: str) -> None:
    proxy = await run(shop.upstream)
    await shop.stores(proxy)
    shutil.rmtree(tmp_path / "data" / folder, ignore_errors=True)
    await shop.stores(proxy)
    assert (await proxy.get("/simple/")).status == 200
    assert await ready(proxy) == "ready\n"
    await proxy.stop()
    await shop.stores(await run(shop.upstream))


@pytest.mark.parametrize("folder", ["files", "partial"])
@pytest_twisted.ensureDeferred
async def test_while_a_folder_cannot_be_written_files_pass_through(shop: Shop, run: Start, tmp_path: Path, folder: str) -> None:
    place = tmp_path / "data" / folder
    proxy = await run(shop.upstream)
    block(place)
    await shop.passes(proxy)
    assert await ready(proxy) == (
        f"degraded: {folder}/ in the data directory cannot be written (File exists): new files pass through to clients "
        "and are not stored; check the mount, owner and mode\n"
    )
    metrics = (await proxy.get("/-/metrics")).body
    assert b'pypiproxy_degraded{reason="store-not-writable"} 1.0' in metrics
    place.unlink()
    assert await ready(proxy) == "ready\n"
    await shop.stores(proxy)
    assert b'pypiproxy_degraded{reason="store-not-writable"} 0.0' in (await proxy.get("/-/metrics")).body


@pytest_twisted.ensureDeferred
async def test_a_place_for_one_file_that_takes_none_is_told_until_it_does(shop: Shop, run: Start, tmp_path: Path) -> None:
    proxy = await run(shop.upstream)
    for number in range(256):
        (tmp_path / "data" / "files" / f"{number:02x}").write_text("no directory")
    await shop.passes(proxy)
    assert "cannot be written" in await ready(proxy)
    for path in (tmp_path / "data" / "files").iterdir():
        path.unlink()
    await shop.stores(proxy)
    assert await ready(proxy) == "ready\n"


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_read_is_fetched_again(shop: Shop, run: Start, tmp_path: Path) -> None:
    proxy = await run(shop.upstream)
    name = shop.new()
    await shop.serves(proxy, name)
    (path,) = (path for path in (tmp_path / "data" / "files").rglob("*") if path.is_file())
    path.unlink()
    path.symlink_to(path)  # a loop: nobody can open it, not even root
    await shop.serves(proxy, name)
    assert shop.asked(name) == 2
    assert path.is_file()
    assert not path.is_symlink()


@pytest_twisted.ensureDeferred
async def test_metadata_of_a_wheel_is_served_where_it_cannot_be_stored(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    made = wheel("small")
    upstream.add_file("small", made.filename, made.data)
    proxy = await run(upstream)
    block(tmp_path / "data" / "files")
    assert (await proxy.get(await proxy.link("small", made.filename) + ".metadata")).body == made.metadata


@pytest.mark.parametrize("limits", [{"max_size": 2**30}, {"min_free": 1}], ids=["max_size", "min_free"])
@pytest_twisted.ensureDeferred
async def test_so_it_is_with_a_limit(shop: Shop, run: Start, tmp_path: Path, limits: dict[str, int]) -> None:
    proxy = await run(shop.upstream, **limits)
    block(tmp_path / "data" / "files")
    await shop.passes(proxy)


# -- the directory itself --------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_is_put_in_the_place_of_the_data_directory_is_never_written_to(
    shop: Shop, run: Start, tmp_path: Path
) -> None:
    """As when a volume is taken away and its mount point is left."""
    data, away = tmp_path / "data", tmp_path / "away"
    proxy = await run(shop.upstream)
    await shop.stores(proxy)
    data.rename(away)
    data.mkdir()
    await shop.passes(proxy)
    assert (await proxy.get("/pypi/p0/json")).status == 200
    assert (await ready(proxy)).startswith("degraded: the data directory was taken away or replaced")
    assert list(data.iterdir()) == []
    data.rmdir()
    await shop.passes(proxy)
    assert not data.exists()
    away.rename(data)
    assert await ready(proxy) == "ready\n"
    await shop.serves(proxy, "p0")
    assert shop.asked("p0") == 1
    await shop.stores(proxy)
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_the_right_directory_is_known_by_its_marker(shop: Shop, run: Start, tmp_path: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    proxy = await run(shop.upstream)
    await shop.stores(proxy)
    data.rename(away)
    shutil.copytree(away, data, ignore=shutil.ignore_patterns("admin.sock"))  # as a volume that is mounted again
    assert await ready(proxy) == "ready\n"
    await shop.stores(proxy)
    stored = [len([path for path in (each / "files").rglob("*") if path.is_file()]) for each in (data, away)]
    assert stored == [2, 1]


@pytest.mark.parametrize("made", [False, True], ids=["deleted", "deleted and made again"])
@pytest_twisted.ensureDeferred
async def test_a_data_directory_that_was_deleted_begins_anew(shop: Shop, run: Start, tmp_path: Path, made: bool) -> None:
    data = tmp_path / "data"
    proxy = await run(shop.upstream)
    await shop.stores(proxy)
    marker = (data / "instance").read_text()
    shutil.rmtree(data)
    if made:
        data.mkdir(mode=0o700)
    assert await ready(proxy) == "ready\n"
    await shop.stores(proxy)
    assert (data / "instance").read_text() == marker
    assert await Operator(tmp_path, data).json("stats")
    await proxy.stop()
    await shop.stores(await run(shop.upstream))


@pytest_twisted.ensureDeferred
async def test_the_service_stops_when_its_directory_has_gone(shop: Shop, run: Start, tmp_path: Path) -> None:
    proxy = await run(shop.upstream)
    await shop.stores(proxy)
    block(tmp_path / "data")
    await shop.passes(proxy)
    await proxy.stop()


def test_a_second_instance_is_refused_after_the_directory_was_deleted_and_made_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    claim = datadir.claim(data)
    shutil.rmtree(data)
    with pytest.raises(InUse, match=f"process id {os.getpid()} "):
        datadir.claim(data)
    data.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(data)
    with pytest.raises(InUse, match=f"process id {os.getpid()} "):
        datadir.claim(tmp_path / "link")
    datadir.claim(tmp_path / "other").release()
    claim.release()
    datadir.claim(data).release()


# -- the disk --------------------------------------------------------------------------------------------------------------

DISK = 8_000_000
_FILL = 'cp -a "$0/." "$1" 2>/dev/null; head -c 20000000 /dev/zero > "$1/filler" 2>/dev/null; shift; exec "$@"'


async def page(proxy: ProxyProcess, project: str) -> wire.Reply:
    return await wire.fetch(proxy.port, f"/simple/{project}/", Accept=JSON)


async def file(proxy: ProxyProcess, project: str) -> bytes:
    url = (await page(proxy, project)).json["files"][0]["url"]
    return (await wire.fetch(proxy.port, urljoin(f"/simple/{project}/", url))).body


async def told(proxy: ProxyProcess) -> str:
    reply = await wire.fetch(proxy.port, "/-/ready")
    assert reply.status == 200
    return reply.body.decode()


@needs_mounts
@pytest.mark.parametrize("earlier", [False, True], ids=["first start", "later start"])
@pytest_twisted.ensureDeferred
async def test_the_proxy_starts_on_a_full_disk_and_stores_again_when_there_is_room(
    shop: Shop, make_proxy: MakeProxy, run: Start, tmp_path: Path, earlier: bool
) -> None:
    stored = shop.new()
    if earlier:
        first = await run(shop.upstream)
        await shop.serves(first, stored)
        await first.stop()
    proxy = make_proxy(shop.upstream.url, disk=DISK)
    proxy.before = ("sh", "-c", _FILL, str(tmp_path / "data"), str(proxy.data_dir))
    await proxy.started()
    other = shop.new()
    for name in (stored, other, other):
        assert await file(proxy, name) == shop.bytes[name]
    assert (shop.asked(stored), shop.asked(other)) == (1, 2)
    assert "degraded: the file system of the data directory is full" in await told(proxy)
    assert proxy.process is not None
    (Path(f"/proc/{proxy.process.pid}/root{proxy.data_dir}") / "filler").unlink()
    assert await told(proxy) == "ready\n"
    for _ in range(2):
        assert await file(proxy, other) == shop.bytes[other]
    assert shop.asked(other) == 3
    await proxy.stop()
    assert "Traceback" not in proxy.log


_READ_ONLY = (
    "unshare",
    "--map-root-user",
    "--mount",
    "sh",
    "-c",
    'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
)


@needs_mounts
@pytest_twisted.ensureDeferred
async def test_the_proxy_serves_from_a_read_only_file_system(shop: Shop, make_proxy: MakeProxy, tmp_path: Path) -> None:
    proxy = await make_proxy(shop.upstream.url).started()
    stored = shop.new()
    assert await file(proxy, stored) == shop.bytes[stored]
    await proxy.kill()
    proxy.before = (*_READ_ONLY, str(proxy.data_dir))
    before = sorted(proxy.data_dir.rglob("*"))
    await proxy.started()
    shop.upstream.add_file(stored, shop.filename(stored), data_of(SIZE, seed=99))
    assert await file(proxy, stored) == shop.bytes[stored]
    other = shop.new()
    for _ in range(2):
        assert await file(proxy, other) == shop.bytes[other]
    assert (shop.asked(stored), shop.asked(other)) == (1, 2)
    assert "cannot be written (Read-only file system)" in await told(proxy)
    assert sorted(proxy.data_dir.rglob("*")) == before
    await proxy.stop()
    assert "Traceback" not in proxy.log


#: Another user than the one who runs the tests.
NOBODY = 65534
as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def nobody_can_run_python() -> bool:
    """Whether this is root, who can be somebody else, and that user can enter the folder of this Python."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return False
    return subprocess.run([*as_nobody, sys.executable, "-c", ""], cwd="/", capture_output=True, check=False).returncode == 0


needs_nobody = pytest.mark.skipif(
    not nobody_can_run_python(), reason="only root can start a proxy as somebody else, who must be able to run this Python"
)


@needs_nobody
@pytest_twisted.ensureDeferred
async def test_a_directory_that_the_user_may_not_write_any_more_is_served_from(
    shop: Shop, make_proxy: MakeProxy, tmp_path: Path, open_to_all: Path
) -> None:
    proxy = await make_proxy(shop.upstream.url, place=open_to_all).started()
    names = [shop.new() for _ in range(2)]
    for name in names:
        assert await file(proxy, name) == shop.bytes[name]
    await proxy.stop()
    for path in [proxy.place, *proxy.place.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    proxy.data_dir.chmod(0o500)
    (proxy.data_dir / "files").chmod(0o500)
    (unreadable,) = (proxy.data_dir / "files").glob(hashlib.sha256(shop.bytes[names[1]]).hexdigest()[:2])
    os.chown(unreadable, 0, 0)
    unreadable.chmod(0o700)
    proxy.before = as_nobody
    await proxy.started()
    for name in [*names, shop.new()]:
        assert await file(proxy, name) == shop.bytes[name]
    assert [shop.asked(name) for name in names] == [1, 2]
    assert "cannot be written (Permission denied)" in await told(proxy)
    await proxy.stop()
    refused = await Operator(tmp_path, proxy.data_dir).run("ls")
    assert (refused.status, "runuser -u nobody" in refused.output) == (1, True)
    assert "Traceback" not in proxy.log


@needs_nobody
def test_a_directory_below_one_that_the_user_may_not_enter_is_refused_with_the_reason(open_to_all: Path) -> None:
    closed = open_to_all / "closed"
    for data in (closed / "data", closed / "none"):
        closed.mkdir(mode=0o755, exist_ok=True)
        if data.name == "data":
            datadir.claim(data).release()
        closed.chmod(0o700)
        code = "import pathlib, sys, proxy.host.datadir as d\n" + (
            "for ask in (d.claim, d.is_there):\n"
            "    try: ask(pathlib.Path(sys.argv[1]))\n"
            "    except d.ConfigError as error: print(error)\n"
        )
        ended = subprocess.run(
            [*as_nobody, sys.executable, "-c", code, data], cwd=ROOT, capture_output=True, text=True, check=True
        )
        why = f'"{data}": Permission denied ("{closed}" may not be entered); expected a directory that can be '
        assert ended.stdout.splitlines() == [f"{why}written", f"{why}read"]


@needs_mounts
@pytest_twisted.ensureDeferred
async def test_nothing_is_written_to_the_mount_point_of_a_volume_that_has_gone(shop: Shop, make_proxy: MakeProxy) -> None:
    proxy = await make_proxy(shop.upstream.url, disk=DISK).started()
    stored = shop.new()
    assert await file(proxy, stored) == shop.bytes[stored]
    assert proxy.process is not None
    pid = str(proxy.process.pid)
    subprocess.run(["nsenter", "--target", pid, "--user", "--mount", "umount", "--lazy", str(proxy.data_dir)], check=True)
    for name in (stored, shop.new()):
        assert await file(proxy, name) == shop.bytes[name]
    assert "degraded: the data directory was taken away or replaced" in await told(proxy)
    assert list(Path(f"/proc/{pid}/root{proxy.data_dir}").iterdir()) == []
    await proxy.stop()
    assert "Traceback" not in proxy.log
