"""``pypiproxy backup`` and ``restore``: a copy of a directory that is in use, and a directory made of a copy."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import msgspec
import pytest
import pytest_twisted
import zstandard
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from proxy.commands import asking
from proxy.errors import InUse
from proxy.host import datadir
from proxy.storage.marker import FORMAT, read_marker
from tests.support import wire
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.process import ROOT, THIS_PYTHON, Ended, ProxyProcess, Running, environment
from tests.support.wheels import data_of

reactor: Any = default_reactor

MakeProxy = Callable[..., ProxyProcess]
#: The page of the second one is large: its record has a file of its own.
DATA = {"six": data_of(1_000, 1), "large": data_of(300_000, 2)}
SIX, LARGE = (hashlib.sha256(data).hexdigest() for data in DATA.values())


async def file_of(proxy: ProxyProcess, project: str) -> wire.Reply:
    page = await wire.fetch(proxy.port, f"/simple/{project}/", Accept=JSON_TYPE)
    assert page.status == 200, page
    url = next(file["url"] for file in page.json["files"] if file["filename"] == f"{project}-1.0.tar.gz")
    return await wire.fetch(proxy.port, urljoin(f"/simple/{project}/", url))


async def filled(upstream: FakeUpstream, make_proxy: MakeProxy) -> tuple[ProxyProcess, Operator]:
    for project, data in DATA.items():
        upstream.add_file(project, f"{project}-1.0.tar.gz", data)
    for number in range(1500):
        upstream.add_file("large", f"large-0.{number}.tar.gz", b"never asked for")
    proxy = await make_proxy(upstream.url).started()
    for project, data in DATA.items():
        assert (await file_of(proxy, project)).body == data
    operator = Operator(proxy.place, proxy.data_dir)
    assert (await operator.run("pin", "six")).status == 0
    return proxy, operator


async def backed_up(upstream: FakeUpstream, make_proxy: MakeProxy, file: Path) -> bytes:
    """What is in *file* after a backup with all files."""
    _, operator = await filled(upstream, make_proxy)
    assert (await operator.run("backup", str(file), "--with-files")).status == 0
    return file.read_bytes()


async def restore(folder: Path, *arguments: str | Path) -> Ended:
    line = [THIS_PYTHON.program, "-c", "from proxy.cli import main; main()", "restore", *map(str, arguments)]
    return await Running().spawn(line, environment(folder, PYTHONPATH=str(ROOT)), folder).end()


@pytest_twisted.ensureDeferred
async def test_with_quiet_only_failures_are_printed(upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path) -> None:
    _, operator = await filled(upstream, make_proxy)
    backup, bundle, restored = (str(tmp_path / name) for name in ("backup.tar.zst", "bundle.tar.zst", "restored"))
    for line in (["backup", backup], ["export", "six", "-o", bundle], ["import", bundle]):
        ended = await operator.run(*line, "--quiet")
        assert (line, ended.status, ended.output) == (line, 0, "")
    ended = await restore(tmp_path, backup, restored, "--quiet")
    assert (ended.status, ended.output) == (0, "")
    ended = await operator.run("backup", backup, "--quiet")
    assert (ended.status, "it exists" in ended.output) == (1, True)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("running", [True, False], ids=["running", "not running"])
async def test_a_directory_is_restored_from_its_backup(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path, running: bool
) -> None:
    proxy, operator = await filled(upstream, make_proxy)
    if not running:
        await proxy.stop()
    saved = await operator.run("backup", str(tmp_path / "b.tar.zst"), "--with-files")
    assert saved.status == 0, saved
    made = time.time()
    assert (tmp_path / "b.tar.zst").stat().st_mode & 0o777 == 0o600
    assert list((proxy.data_dir / "partial").iterdir()) == []
    if running:
        # What comes after it does not matter.
        await proxy.kill()
    ended = await restore(tmp_path, "b.tar.zst", "restored/data")
    assert ended.status == 0, ended
    assert "2 files restored" in ended.output
    there = tmp_path / "restored" / "data"
    assert sorted(each.name for each in there.iterdir()) == ["files", "instance", "ledger", "records"]
    marker, of_old = read_marker(there), read_marker(proxy.data_dir)
    assert marker is not None
    assert of_old is not None
    assert (marker.format, marker.name != of_old.name) == (FORMAT, True)

    # A file of the running proxy learns in batches when it was last used: the backup may know better.
    before = {path.name: path.stat().st_mtime for path in proxy.data_dir.glob("files/*/*")}
    after = {path.name: path.stat().st_mtime for path in there.glob("files/*/*")}
    assert sorted(after) == sorted(before)
    assert [name for name in before if not before[name] - 1e-3 <= after[name] <= made] == []
    await upstream.close()
    (tmp_path / "restored").rename(tmp_path / "again")
    again = make_proxy(upstream.url)
    again.data_dir.parent.mkdir(exist_ok=True)
    (tmp_path / "again" / "data").rename(again.data_dir)
    await again.started()
    for project, data in DATA.items():
        assert (await file_of(again, project)).body == data
    assert [each["filename"] for each in await Operator(again.place, again.data_dir).lines("pins")] == ["six-1.0.tar.gz"]
    assert (await Operator(again.place, again.data_dir).run("verify")).status == 0
    assert "Traceback" not in again.log


@pytest_twisted.ensureDeferred
async def test_without_files_first_seen_digests_are_still_known(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    _, operator = await filled(upstream, make_proxy)
    assert (await operator.run("backup", str(tmp_path / "b"))).status == 0
    (tmp_path / "empty").mkdir()
    ended = await restore(tmp_path, "b", "empty")
    assert "and 0 files restored" in ended.output, ended
    listed = await Operator(tmp_path, tmp_path / "empty").json("ls", "six")
    assert (listed["filename"], listed["sha256"], listed["stored"], listed["pinned"]) == (
        "six-1.0.tar.gz",
        SIX,
        False,
        True,
    )


@pytest_twisted.ensureDeferred
async def test_a_backup_goes_through_a_pipe(upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path) -> None:
    proxy, _ = await filled(upstream, make_proxy)
    code = "from proxy.cli import main; main()"
    line = [THIS_PYTHON.program, "-c", code, "backup", "-", "--data-dir", str(proxy.data_dir)]
    piped = await deferToThread(subprocess.run, line, cwd=ROOT, capture_output=True, check=False)
    assert (piped.returncode, b"0 files" in piped.stderr) == (0, True), piped.stderr
    (tmp_path / "b").write_bytes(piped.stdout)
    assert (await restore(tmp_path, "b", "there")).status == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("target", "said"), [("/dev/full", "No space left on device; make room"), ("/dev/null", "Bad file descriptor")]
)
async def test_a_backup_that_cannot_be_written_says_what_helps(
    upstream: FakeUpstream, make_proxy: MakeProxy, target: str, said: str
) -> None:
    proxy, _ = await filled(upstream, make_proxy)
    line = [THIS_PYTHON.program, "-c", "from proxy.cli import main; main()", "backup", "-", "--data-dir", str(proxy.data_dir)]
    with open(target, "r+b" if target == "/dev/full" else "rb") as out:
        ended = await deferToThread(subprocess.run, line, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr.decode().splitlines()[-1]) == (1, f"the backup cannot be written: {said}")


@pytest_twisted.ensureDeferred
async def test_a_backup_replaces_no_file_unless_it_is_told_to(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    _, operator = await filled(upstream, make_proxy)
    (tmp_path / "b").write_bytes(b"mine")
    ended = await operator.run("backup", str(tmp_path / "b"))
    assert (ended.status, "it exists; name another file, or replace it with --force" in ended.output) == (1, True)
    assert (tmp_path / "b").read_bytes() == b"mine"
    ended = await operator.run("backup", str(tmp_path / "no" / "b"))
    assert (ended.status, "No such file or directory; nothing was written" in ended.output) == (1, True)
    assert (await operator.run("backup", str(tmp_path / "b"), "--force")).status == 0
    assert (await restore(tmp_path, "b", "there")).status == 0
    for name, said in (("b", "it is not empty; name a new directory"), ("nowhere", "nowhere: No such file or directory")):
        ended = await restore(tmp_path, name, "there")
        assert (ended.status, said in ended.output) == (1, True), ended


def members(archive: bytes) -> list[tuple[str, bytes]]:
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive)).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return [(each.name, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]  # all of them are files


def packed(content: list[tuple[str, bytes]]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, data in content:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return zstandard.ZstdCompressor().compress(plain.getvalue())


def manifest(**changed: Any) -> tuple[str, bytes]:
    stated = {"format": "pypiproxy-backup", "version": 1, "data_format": FORMAT, "created": 1.0, **changed}
    return "backup.json", msgspec.json.encode(stated)


@pytest_twisted.ensureDeferred
async def test_of_a_backup_that_is_not_whole_nothing_is_left(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    whole = await backed_up(upstream, make_proxy, tmp_path / "b")
    content = members(whole)
    assert [name.partition("/")[0] for name, _ in content] == ["backup.json", "ledger", "records", "files", "files", "end"]
    damaged = [(name, data[:-1] + b"?") for name, data in content]
    cases = {
        "it ends too early": whole[: len(whole) * 2 // 3],
        "it is damaged, or not compressed with zstd": b"no archive",
        "it is no backup: expected a file that pypiproxy backup made": packed([("x", b"")]),
        "its ledger/": packed([content[0], damaged[1], *content[2:]]),
        "its records/": packed([*content[:2], damaged[2], *content[3:]]),
        "its files/": packed([*content[:3], damaged[3], *content[4:]]),
        "its end/": packed([*content[:5], damaged[5]]),
        "it lacks its ledger": packed([content[0], *content[2:]]),
        "some of its 1 parts of records and 2 files": packed([*content[:3], *content[4:]]),
        "and no backup has such a one": packed([content[0], ("../../etc/passwd", b"")]),
        f"its data has format {FORMAT + 1}": packed([manifest(data_format=FORMAT + 1), *content[1:]]),
        "it has format 'pypiproxy-backup', version 3": packed([manifest(version=3), *content[1:]]),
    }
    for number, (said, archive) in enumerate(cases.items()):
        (tmp_path / "spoiled").write_bytes(archive)
        target = tmp_path / f"target-{number}"
        if number % 2:
            target.mkdir()
        result = await deferToThread(_restored, tmp_path / "spoiled", target)
        assert result is not None, said
        assert said in result
        assert target.exists() is bool(number % 2), said
        assert not (target.exists() and list(target.iterdir())), said
    ended = await restore(tmp_path, "spoiled", "target")
    assert (ended.status, "nothing was restored" in ended.output, "Traceback" in ended.output) == (1, True, False)


@pytest_twisted.ensureDeferred
async def test_a_directory_is_claimed_while_it_is_restored(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    whole = await backed_up(upstream, make_proxy, tmp_path / "b")
    os.mkfifo(tmp_path / "pipe")
    line = [THIS_PYTHON.program, "-c", "from proxy.cli import main; main()", "restore", "pipe", "there"]
    restoring = Running().spawn(line, environment(tmp_path, PYTHONPATH=str(ROOT)), tmp_path)
    with await deferToThread((tmp_path / "pipe").open, "wb", buffering=0) as pipe:
        pipe.write(whole[:1000])
        while not (tmp_path / "there" / ".restoring").exists():
            assert restoring.ended is None, restoring.output
            await deferLater(reactor, 0.01)
        with pytest.raises(InUse):
            datadir.claim(tmp_path / "there")
        ended = await restore(tmp_path, "b", "there")
        assert (ended.status, f"there: process {restoring.pid} works on it" in ended.output) == (1, True), ended
        await deferToThread(pipe.write, whole[1000:])
    ended = await restoring.end()
    assert (ended.status, "2 files restored" in ended.output) == (0, True), ended
    assert not (tmp_path / "there" / "lock").exists()
    datadir.claim(tmp_path / "there").release()


@pytest_twisted.ensureDeferred
async def test_a_restore_that_fails_leaves_the_directory_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "spoiled").write_bytes(packed([manifest(), ("x", b"")]))
    (tmp_path / "empty").mkdir()
    for target in ("empty", "missing"):
        ended = await restore(tmp_path, "spoiled", target)
        assert (ended.status, ended.output.startswith("spoiled: it has a member named 'x'")) == (1, True), ended
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "missing").exists()
    (tmp_path / "empty" / "mine").write_bytes(b"")
    ended = await restore(tmp_path, "spoiled", "empty")
    assert ended.output.startswith("empty: it is not empty; name a new directory")


def test_records_of_any_size_are_not_read_into_memory(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        name, data = manifest()
        first, huge = tarfile.TarInfo(name), tarfile.TarInfo(f"records/{SIX}")
        first.size, huge.size = len(data), 2**40
        tar.addfile(first, io.BytesIO(data))
    header = huge.tobuf(tarfile.PAX_FORMAT)
    written = plain.getvalue()[: 512 + 512] + header
    (tmp_path / "b").write_bytes(zstandard.ZstdCompressor().compress(written))
    said = _restored(tmp_path / "b", tmp_path / "there")
    assert said == f"its member 'records/{SIX}' has 1,099,511,627,776 bytes, more than any backup has there"


def _restored(file: Path, target: Path) -> str | None:
    """What is wrong with the backup *file*, if anything is."""
    from proxy.bundle.restoring import restore_backup as restored
    from proxy.errors import BadBundle

    with file.open("rb") as source:
        try:
            restored(source, target, lambda so_far: None)
        except BadBundle as error:
            return str(error)
    return None


@pytest_twisted.ensureDeferred
async def test_a_file_that_was_damaged_before_is_left_out_and_told(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    proxy, operator = await filled(upstream, make_proxy)
    await proxy.stop()
    path = proxy.data_dir / "files" / LARGE[:2] / LARGE
    path.write_bytes(bytes(len(DATA["large"])))
    ended = await operator.run("backup", str(tmp_path / "b"), "--with-files")
    assert (ended.status, "1 stored files are damaged and will not be restored" in ended.output) == (1, True), ended
    ended = await restore(tmp_path, "b", "there")
    assert (ended.status, "1 files restored; 1 files that were damaged before are left out" in ended.output) == (0, True), ended
    assert [each.name for each in (tmp_path / "there").glob("files/*/*")] == [SIX]


@pytest_twisted.ensureDeferred
async def test_an_interrupted_backup_leaves_no_copy_of_the_ledger(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """Whoever asks for it leaves while the proxy waits for a pipe that takes no more."""
    proxy, _ = await filled(upstream, make_proxy)
    arguments = {"with_files": True}
    code = (
        "import sys, pathlib; from proxy.commands import asking;"
        f"asking.ask(pathlib.Path(sys.argv[1]), 'backup', {arguments!r}, lambda said: None, handed=0)"
    )
    asked, reading = await begun([THIS_PYTHON.program, "-c", code, str(proxy.data_dir)], "stdin")
    asked.kill()
    await deferToThread(asked.communicate)
    # It ends although nobody reads: what it wrote by then is all there is, and long before the files.
    while list((proxy.data_dir / "partial").iterdir()) or descriptors_of(proxy, reading):
        await deferLater(reactor, 0.01)
    rest = await deferToThread(_all_of, reading)
    assert len(rest) < len(DATA["large"])
    assert (await file_of(proxy, "six")).status == 200
    with pytest.raises(asking.OperationFailed, match="expected the descriptor of an open file"):
        await deferToThread(asking.ask, proxy.data_dir, "backup", {}, lambda said: None)
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_an_interrupted_backup_says_what_became_of_it(
    upstream: FakeUpstream, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    proxy, _ = await filled(upstream, make_proxy)
    # A job in the background of a shell ignores the signal, and so does what it starts.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from proxy.cli import main; main()"
    line = [THIS_PYTHON.program, "-c", code, "backup", "-", "--with-files"]
    command, reading = await begun([*line, "--data-dir", str(proxy.data_dir)], "stdout")
    command.send_signal(signal.SIGINT)
    _, said = await deferToThread(command.communicate)
    os.close(reading)
    assert (command.returncode, said.decode().splitlines()[-1]) == (130, "interrupted: - was not written")


async def begun(line: list[str], stream: str) -> tuple[subprocess.Popen[bytes], int]:
    """The process of *line*, which writes a backup to a pipe as its *stream*, and the pipe, of which little was read."""
    reading, writing = os.pipe()
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, stream: writing}
    command = await deferToThread(lambda: subprocess.Popen(line, cwd=ROOT, **streams))
    os.close(writing)
    assert len(await deferToThread(os.read, reading, 1000)) == 1000
    return command, reading


def descriptors_of(proxy: ProxyProcess, pipe: int) -> list[str]:
    """The descriptors of the proxy that are ends of *pipe*."""
    assert proxy.process is not None
    folder, wanted, found = f"/proc/{proxy.process.pid}/fd", os.readlink(f"/proc/self/fd/{pipe}"), []
    for each in os.listdir(folder):
        with suppress(FileNotFoundError):  # it has just been closed
            if os.readlink(f"{folder}/{each}") == wanted:
                found.append(each)
    return found


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()
