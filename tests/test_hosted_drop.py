"""Files that are copied into the directory of a hosted index: served once they are whole and right, and never changed after."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent

from proxy.cache.ledger import Ledger
from proxy.core.uploads import Uploaded
from proxy.errors import FileExists
from proxy.hosted.catalogue import Catalogue
from proxy.hosted.folder import Folder
from proxy.hosted.noted import NotedFiles
from proxy.hosted.notes import Note, ProjectStatus, written_note
from proxy.hosted.project import hosted_entry
from proxy.hosted.settling import Alone, Settled
from proxy.mechanism.offload import Inline
from proxy.storage.memory import MemoryVersioned
from tests.hosting import drop, hosted, listed, standing, upload
from tests.inprocess import JSON, Running, Start
from tests.support import wire
from tests.support.process import ProxyProcess, can_mount, environment
from tests.support.process import Running as Process
from tests.support.sshd import SshServer, what_is_missing
from tests.support.wheels import Distribution, sdist, wheel

reactor: Any = default_reactor
INDEX = "internal"
APP, OLD, OTHER = wheel("app", "2.0"), sdist("app", "1.0"), wheel("app", "2.0", seed=1, size=999)
#: Turns that others may take: far more than two seconds' worth, for a machine that is loaded.
_TURNS = 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the index."""
    return tmp_path / "data" / "hosted" / INDEX


@pytest.fixture(params=["told", "looking"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the kernel tells of changes, or the directory is on a file system where it does not."""
    if request.param == "looking":
        monkeypatch.setattr("proxy.hosted.drop.is_told_of_changes", lambda folder: False)
    return str(request.param)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something *holds*."""
    for _ in range(_TURNS):
        if await holds():
            return
        await deferLater(reactor, 0.05)
    pytest.fail("it never came true")


async def until_listed(proxy: Running, project: str, *expected: Distribution) -> dict[str, Any]:
    """The files of *project* once they are those *expected*."""

    async def there() -> bool:
        found = await listed(proxy, project)
        return {name: each["hashes"]["sha256"] for name, each in found.items()} == {
            each.filename: each.sha256 for each in expected
        }

    await until(there)
    return await listed(proxy, project)


def said(logged: list[LogEvent], text: str) -> int:
    return sum(1 for each in logged if text in (formatEvent(each) or ""))


async def until_said(logged: list[LogEvent], text: str) -> None:
    async def heard() -> bool:
        return said(logged, text) > 0

    await until(heard)


async def body(proxy: Running, project: str, file: dict[str, Any]) -> bytes:
    reply = await proxy.get(urljoin(f"/simple/{project}/", file["url"]))
    assert reply.status == 200
    return reply.body


@pytest_twisted.ensureDeferred
async def test_a_file_is_served_with_all_that_is_known_of_it(serve: Start, folder: Path, watched: str) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, APP)
    page = await until_listed(proxy, "app", APP)
    drop(folder, OLD)
    page = await until_listed(proxy, "app", APP, OLD)
    for each in (APP, OLD):
        assert await body(proxy, "app", page[each.filename]) == each.data
        assert page[each.filename]["upload-time"].endswith("Z")
    metadata = await proxy.get(urljoin("/simple/app/", page[APP.filename]["url"]) + ".metadata")
    assert metadata.body == APP.metadata
    noted = json.loads((folder / "app" / f"{APP.filename}.json").read_text())
    assert (noted["sha256"], noted["size"]) == (APP.sha256, len(APP.data))
    assert noted["mtime_ns"] == (folder / "app" / APP.filename).stat().st_mtime_ns
    assert [each["name"] for each in (await proxy.get("/simple/", Accept=JSON)).json["projects"]] == ["app"]


@pytest_twisted.ensureDeferred
async def test_a_file_is_served_when_it_is_closed_and_not_before(serve: Start, folder: Path, watched: str) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, OLD)
    await until_listed(proxy, "app", OLD)
    with open(folder / "app" / APP.filename, "wb") as file:
        file.write(APP.data)
        file.flush()
        for number in range(3):  # others are served meanwhile
            drop(folder, other := wheel(f"other{number}"))
            await until_listed(proxy, other.project, other)
            assert list(await listed(proxy, "app")) == [OLD.filename]
    await until_listed(proxy, "app", OLD, APP)


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_moved_or_linked_there_is_served(serve: Start, folder: Path, tmp_path: Path, watched: str) -> None:
    proxy = await serve(indexes=(hosted(),))
    (folder / "app").mkdir(parents=True)
    for number, (each, put) in enumerate(((APP, os.rename), (OLD, os.link))):
        (tmp_path / each.filename).write_bytes(each.data)
        put(tmp_path / each.filename, folder / "app" / each.filename)
        await until_listed(proxy, "app", *(APP, OLD)[: number + 1])
    shutil.copytree(folder / "app", folder / ".hidden")
    os.rename(folder / ".hidden", folder / "Other_Name")
    await until_listed(proxy, "app", APP, OLD)


@pytest_twisted.ensureDeferred
async def test_what_is_removed_is_not_listed_any_more(serve: Start, folder: Path, watched: str, logged: list[LogEvent]) -> None:
    proxy = await serve(indexes=(hosted(),))
    for each in (APP, OLD, wheel("other")):
        drop(folder, each)
    await until_listed(proxy, "app", APP, OLD)
    await until_listed(proxy, "other", wheel("other"))
    (folder / "app" / APP.filename).unlink()
    await until_listed(proxy, "app", OLD)
    shutil.rmtree(folder / "app")
    await until_listed(proxy, "app")
    assert (await proxy.get("/simple/app/")).status == 404
    assert [each["name"] for each in (await proxy.get("/simple/", Accept=JSON)).json["projects"]] == ["other"]
    assert said(logged, f"{APP.filename} was removed from {INDEX}") == 1
    drop(folder, APP)
    await until_listed(proxy, "app", APP)


@pytest_twisted.ensureDeferred
async def test_other_bytes_under_a_known_name_are_reported_and_the_first_ones_served(
    serve: Start, folder: Path, watched: str, logged: list[LogEvent]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    path = drop(folder, APP)
    page = await until_listed(proxy, "app", APP)
    with open(path, "r+b") as file:  # as scp does
        file.truncate()
        file.write(OTHER.data)
    await until_said(logged, f"{APP.filename} of {INDEX} is not served")
    page = await until_listed(proxy, "app", APP)
    assert await body(proxy, "app", page[APP.filename]) == APP.data
    await proxy.stop()
    proxy = await serve(indexes=(hosted(),))
    page = await until_listed(proxy, "app", APP)
    assert await body(proxy, "app", page[APP.filename]) == APP.data
    path.write_bytes(APP.data)
    drop(folder, OLD)
    await until_listed(proxy, "app", APP, OLD)
    assert said(logged, f"{APP.filename} of {INDEX} is not served") == 2  # once a run


@pytest_twisted.ensureDeferred
async def test_other_bytes_under_another_spelling_of_a_known_name_are_reported(
    serve: Start, folder: Path, logged: list[LogEvent]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, APP)
    await until_listed(proxy, "app", APP)
    (folder / "app" / "App-2.0.0-py3-none-any.whl").write_bytes(OTHER.data)
    await until_said(logged, f"App-2.0.0-py3-none-any.whl of {INDEX} is not served: it is {APP.filename} by another spelling")
    assert (await listed(proxy, "app")).keys() == {APP.filename}
    (folder / "app" / "app-2.0-1-py3-none-any.whl").write_bytes(OTHER.data)  # another build is another file
    await until_said(logged, "app-2.0-1-py3-none-any.whl was added")
    # The same bytes may have several names.
    (folder / "app" / "APP-2.0-py3-none-any.whl").write_bytes(APP.data)
    await until_said(logged, "APP-2.0-py3-none-any.whl was added")


@pytest_twisted.ensureDeferred
async def test_with_overwrite_other_bytes_are_served(serve: Start, folder: Path, watched: str) -> None:
    proxy = await serve(indexes=(hosted(overwrite=True),))
    path = drop(folder, APP)
    await until_listed(proxy, "app", APP)
    path.write_bytes(OTHER.data)
    page = await until_listed(proxy, "app", OTHER)
    assert await body(proxy, "app", page[APP.filename]) == OTHER.data
    entries = await proxy.service.caches.ledger.of(INDEX, "app")
    assert entries[f"sha256-{APP.sha256}/{APP.filename}"].sha256 == APP.sha256


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_served_is_reported_once_with_the_reason(
    serve: Start, folder: Path, logged: list[LogEvent]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, APP, APP.data[:-50])
    (folder / "other").mkdir()
    (folder / "other" / OLD.filename).write_bytes(OLD.data)
    (folder / "app" / "app-2.0.exe").write_bytes(b"MZ")
    (folder / "app" / "README").write_bytes(b"read me")
    (folder / "loose-1.0.tar.gz").write_bytes(sdist("loose").data)
    await until_said(logged, f"{APP.filename} of {INDEX} is not served: {APP.filename} is refused")
    await until_said(
        logged, f"{OLD.filename} of {INDEX} is not served: it belongs to app, and stands in the directory of other"
    )
    await until_said(logged, "app-2.0.exe")
    await until_said(logged, "loose-1.0.tar.gz of internal is not served: it stands beside the directories of projects")
    assert (await proxy.get("/simple/app/")).status == (await proxy.get("/simple/other/")).status == 404
    drop(folder, OLD)
    await until_listed(proxy, "app", OLD)
    assert said(logged, "README") == 0
    for name in (
        f"{APP.filename} of",
        f"{OLD.filename} of internal is not",
        "app-2.0.exe' (installer) is",
        "loose-1.0.tar.gz of",
    ):
        assert said(logged, name) == 1, name
    drop(folder, APP)
    await until_listed(proxy, "app", APP, OLD)


@pytest_twisted.ensureDeferred
async def test_what_is_noted_beside_a_file_may_be_edited(
    serve: Start, folder: Path, watched: str, logged: list[LogEvent]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, APP)
    await until_listed(proxy, "app", APP)
    path = folder / "app" / f"{APP.filename}.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps({**noted, "yanked": "it is broken", "ticket": 7}))

    async def yanked() -> bool:
        return bool((await listed(proxy, "app"))[APP.filename]["yanked"] == "it is broken")

    await until(yanked)
    os.utime(folder / "app" / APP.filename)  # it is looked at again, and what is noted of it stays
    drop(folder, OLD)
    await until_listed(proxy, "app", APP, OLD)
    assert await yanked()

    async def noted_anew() -> bool:
        found = json.loads(path.read_text())
        kept = (found["ticket"], found["yanked"], found["upload_time"]) == (7, "it is broken", noted["upload_time"])
        return kept and bool(found["mtime_ns"] == (folder / "app" / APP.filename).stat().st_mtime_ns)

    await until(noted_anew)
    path.write_text("{")
    await until_said(logged, "its JSON file cannot be read")
    await until_listed(proxy, "app", OLD)


@pytest_twisted.ensureDeferred
async def test_a_project_has_a_status(serve: Start, folder: Path, watched: str) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, APP)
    await until_listed(proxy, "app", APP)
    (folder / "app" / ".project.json").write_text('{"status": "archived", "reason": "see other"}')

    async def archived() -> bool:
        page = await proxy.page("app")
        return bool(page.get("project-status") == {"status": "archived", "reason": "see other"})

    await until(archived)
    file = (await listed(proxy, "app"))[APP.filename]
    (folder / "app" / ".project.json").write_text('{"status": "quarantined"}')
    await until_listed(proxy, "app")
    assert (await proxy.get(urljoin("/simple/app/", file["url"]))).status == 404
    (folder / "app" / ".project.json").unlink()
    await until_listed(proxy, "app", APP)


@pytest_twisted.ensureDeferred
async def test_one_directory_may_hold_all_files(serve: Start, tmp_path: Path, watched: str, logged: list[LogEvent]) -> None:
    flat = tmp_path / "packages"
    flat.mkdir()
    for each in (APP, wheel("My.Other", "1.0")):
        (flat / each.filename).write_bytes(each.data)
    (flat / "index.html").write_text("nothing")
    proxy = await serve(indexes=(hosted(path=flat, layout="flat"),))
    await until_listed(proxy, "app", APP)
    await until_listed(proxy, "my-other", wheel("My.Other", "1.0"))
    (flat / OLD.filename).write_bytes(OLD.data)
    await until_listed(proxy, "app", APP, OLD)
    (flat / APP.filename).unlink()
    await until_listed(proxy, "app", OLD)
    assert await upload(proxy.service.receiving[INDEX], APP) is Uploaded.NEW
    assert set(await listed(proxy, "app")) == {APP.filename, OLD.filename}
    assert (flat / APP.filename).read_bytes() == APP.data
    (flat / "nonsense.whl").write_bytes(b"")
    await until_said(logged, "nonsense.whl of internal is not served")
    (flat / ".app.project.json").write_text('{"status": "quarantined"}')
    await until_listed(proxy, "app")


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
@pytest_twisted.ensureDeferred
async def test_a_directory_that_is_read_only_is_served_as_it_is(
    make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    place = tmp_path / "packages"
    drop(place, APP)
    before = standing(place)
    config = f'[[index]]\nname = "{INDEX}"\nkind = "hosted"\npath = "{place}"\n'
    proxy = make_proxy(config=config)
    proxy.before = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, str(place)]
    pages = []
    for _ in range(2):
        await proxy.started()
        pages.append((await wire.fetch(proxy.port, "/simple/app/", Accept=JSON)).json)
        (file,) = pages[-1]["files"]
        assert (await wire.fetch(proxy.port, urljoin("/simple/app/", file["url"]))).body == APP.data
        noted = json.loads((proxy.data_dir / "hosted" / INDEX / "app" / f"{APP.filename}.json").read_text())
        assert noted["sha256"] == APP.sha256
        await proxy.stop()
    assert pages[0] == pages[1]
    assert standing(place) == before
    assert list(place.rglob("*.json")) == []
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_what_is_left_of_a_crash_is_swept(serve: Start, folder: Path) -> None:
    drop(folder, APP)
    for place in (folder, folder / "app"):
        (place / ".pypiproxy-0011aabb-7").write_bytes(b"half")
    proxy = await serve(indexes=(hosted(),))
    await until_listed(proxy, "app", APP)
    assert standing(folder) == {f"app/{APP.filename}": APP.sha256}


@pytest_twisted.ensureDeferred
async def test_a_directory_that_is_missing_is_reported_and_used_when_it_is_there(serve: Start, tmp_path: Path) -> None:
    place = tmp_path / "volume"
    proxy = await serve(indexes=(hosted(path=place),))
    assert (await proxy.get("/simple/app/")).status == 503
    drop(place, APP)

    async def readable() -> bool:
        return (await proxy.get("/simple/app/")).status != 503

    await until(readable)
    await until_listed(proxy, "app", APP)
    os.rename(place, tmp_path / "elsewhere")

    async def reported() -> bool:
        return "cannot be read" in (await proxy.get("/-/ready")).body.decode()

    await until(reported)
    assert list(await listed(proxy, "app")) == [APP.filename]
    os.rename(tmp_path / "elsewhere", place)
    drop(place, OLD)
    await until_listed(proxy, "app", APP, OLD)


class Changing(NotedFiles):
    """Files as they are noted, of a directory that somebody changes right after it was read."""

    def __init__(self, ledger: Ledger, changes: list[Callable[[], object]]) -> None:
        super().__init__(INDEX, ledger, Inline())
        self.changes = changes

    async def settled(self, project: str, names: tuple[str, ...], folder: Folder, alone: Alone) -> Settled:
        settled = await super().settled(project, names, folder, alone)
        if self.changes:
            self.changes.pop()()
        return settled


@pytest_twisted.ensureDeferred
async def test_what_changes_while_a_project_is_read_is_seen_at_the_next_look(tmp_path: Path) -> None:
    path = drop(tmp_path, APP)
    note = Note(APP.sha256, len(APP.data), 0, "2026-01-01T00:00:00.000000Z")
    path.with_name(f"{path.name}.json").write_bytes(written_note(note))
    ledger = Ledger(MemoryVersioned(), 10_000, Inline())
    await ledger.add_all(INDEX, "app", {APP.filename: hosted_entry(APP.filename, note)})
    folder = Folder(tmp_path, "projects", tmp_path, lambda made: None)
    status = path.with_name(".project.json")
    settling = Changing(ledger, [lambda: status.write_text('{"status": "archived"}')])
    catalogue = Catalogue(INDEX, folder, settling, Inline(), reactor, 1 << 20)
    found = await catalogue.of("app")
    assert found is not None
    assert found.status is None
    await catalogue.scan()
    await until_marked(catalogue, "archived")
    catalogue.close()


async def until_marked(catalogue: Catalogue, status: str) -> None:
    async def marked() -> bool:
        known = catalogue.at_hand("app")
        return known is not None and known.status == ProjectStatus(status)

    await until(marked)


@pytest_twisted.ensureDeferred
async def test_a_link_may_lead_to_another_directory_later(serve: Start, tmp_path: Path, watched: str) -> None:
    for name, each in (("before", OLD), ("after", APP)):
        drop(tmp_path / name, each)
    (tmp_path / "packages").symlink_to("before")
    proxy = await serve(indexes=(hosted(path=tmp_path / "packages"),))
    await until_listed(proxy, "app", OLD)
    (tmp_path / "new").symlink_to("after")
    (tmp_path / "new").rename(tmp_path / "packages")
    await until_listed(proxy, "app", APP)
    drop(tmp_path / "after", OLD)
    await until_listed(proxy, "app", APP, OLD)


@pytest.mark.parametrize("layout", ["projects", "flat"])
@pytest_twisted.ensureDeferred
async def test_another_directory_may_take_the_place_of_the_one_that_is_served(
    serve: Start, tmp_path: Path, logged: list[LogEvent], layout: str
) -> None:
    root, other = tmp_path / "packages", tmp_path / "next"

    def put(folder: Path, each: Distribution) -> None:
        place = folder / ("app" if layout == "projects" else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / each.filename).write_bytes(each.data)

    put(root, OLD)
    put(other, APP)
    proxy = await serve(indexes=(hosted(path=root, layout=layout),))
    await until_listed(proxy, "app", OLD)
    await until_said(logged, f"{OLD.filename} was added")
    root.rename(tmp_path / "before")
    other.rename(root)
    await until_listed(proxy, "app", APP)
    put(root, OLD)
    await until_listed(proxy, "app", APP, OLD)
    shutil.rmtree(root)
    await until_said(logged, f"the directory of {INDEX} cannot be read: No such file or directory")
    put(root, OLD)

    async def served() -> bool:
        return (await proxy.get("/simple/app/")).status == 200

    await until(served)
    await until_listed(proxy, "app", OLD)


@pytest_twisted.ensureDeferred
async def test_more_changes_than_the_kernel_remembers_are_no_matter(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, OLD)
    await until_listed(proxy, "app", OLD)
    # Nothing is read meanwhile: the reactor waits for this.
    for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 3 + 1_000):
        (folder / "app" / f"{number}.txt").write_bytes(b"")
        (folder / "app" / f"{number}.txt").unlink()
    drop(folder, APP)
    drop(folder, new := wheel("new"))
    await until_listed(proxy, "app", APP, OLD)
    await until_listed(proxy, "new", new)


@pytest_twisted.ensureDeferred
async def test_uploads_and_copies_of_one_name_never_disagree(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    for number in range(10):
        each, rival = (wheel("app", f"{number}.0", seed=seed, size=2_000) for seed in range(2))
        uploading = Deferred.fromCoroutine(upload(receiving, each))
        if number % 2:
            drop(folder, rival)
        try:
            await uploading
        except FileExists:
            await until_listed(proxy, "app", *[rival])
        else:
            assert (await listed(proxy, "app"))[each.filename]["hashes"]["sha256"] == each.sha256
        for path in (folder / "app").iterdir():
            path.unlink()
        await until_listed(proxy, "app")


# -- over SSH -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    missing = what_is_missing("scp", "sftp", "rsync")
    if missing is not None:
        pytest.skip(missing)
    server = SshServer(tmp_path_factory.mktemp("of-ssh") / "ssh")
    pytest_twisted.blockon(Deferred.fromCoroutine(server.started()))
    yield server
    pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


def commands(ssh: SshServer, file: Path, target: Path) -> dict[str, list[str]]:
    """The command lines that copy *file* to the directory *target*, each in its own way."""
    place = f"{ssh.host}:{target}/"
    batch = ssh.place / "batch"
    batch.write_text(f"put {file} {target}/\n")
    rsync = ["rsync", "-e", " ".join(ssh.shell), "-t"]
    return {
        "scp": ["scp", *ssh.options, "-P", str(ssh.port), str(file), place],
        "scp -O -p": ["scp", "-O", "-p", *ssh.options, "-P", str(ssh.port), str(file), place],
        "sftp": ["sftp", *ssh.options, "-P", str(ssh.port), "-b", str(batch), ssh.host],
        "rsync": [*rsync, str(file), place],
        "rsync --inplace": [*rsync, "--inplace", str(file), place],
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", ["scp", "scp -O -p", "sftp", "rsync", "rsync --inplace"])
async def test_files_come_in_over_ssh(serve: Start, folder: Path, tmp_path: Path, ssh: SshServer, way: str) -> None:
    proxy = await serve(indexes=(hosted(),))
    big = wheel("app", "3.0", size=3_000_000)
    (folder / "app").mkdir(parents=True)
    for number, each in enumerate((APP, OLD, big)):
        source = tmp_path / each.filename
        source.write_bytes(each.data)
        os.utime(source, (1_600_000_000, 1_600_000_000))
        await ssh.run(commands(ssh, source, folder / "app")[way])
        page = await until_listed(proxy, "app", *(APP, OLD, big)[: number + 1])
        assert await body(proxy, "app", page[each.filename]) == each.data
        assert page[each.filename]["upload-time"] > "2021"  # when it came, not when it was made


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_cut_off_over_ssh_is_not_served_until_it_is_whole(
    serve: Start, folder: Path, tmp_path: Path, ssh: SshServer, logged: list[LogEvent]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    drop(folder, OLD)
    await until_listed(proxy, "app", OLD)
    target = folder / "app" / APP.filename
    copying = Process().spawn([*ssh.shell, ssh.host, f"cat > '{target}'"], environment(ssh.place), ssh.place)
    copying.transport.write(APP.data[:200])

    async def begun() -> bool:
        return target.exists() and target.stat().st_size == 200

    await until(begun)
    assert list(await listed(proxy, "app")) == [OLD.filename]
    copying.transport.closeStdin()  # as if the connection were lost
    assert (await copying.end()).status == 0
    await until_said(logged, f"{APP.filename} of {INDEX} is not served")
    assert list(await listed(proxy, "app")) == [OLD.filename]
    (tmp_path / APP.filename).write_bytes(APP.data)
    await ssh.run(commands(ssh, tmp_path / APP.filename, folder / "app")["scp"])
    await until_listed(proxy, "app", APP, OLD)
