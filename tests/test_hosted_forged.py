"""Whoever may put files into the directory of a hosted index gets nothing by that but what they put there."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.threads import deferToThread

from proxy.cache.ledger import Ledger
from proxy.cache.private_bytes import PrivateBytes
from proxy.core.uploads import Uploaded
from proxy.mechanism.offload import Inline, completed
from proxy.model import LedgerEntry
from proxy.settings import GrantSettings, IndexSettings
from proxy.storage.memory import MemoryVersioned
from tests.hosting import drop, hosted, listed, upload
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

#: What Alice alone may read, and what stands in the other index.
SECRET, OWN = wheel("acme-app", "1.0", size=3000), wheel("own-app", "1.0")
GRANTS = (GrantSettings(role="reader", principals=("user:alice",), indexes=("internal",)),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the index that everybody may read, and many may copy files to."""
    return tmp_path / "data" / "hosted" / "shared"


async def started(serve: Start) -> Running:
    proxy = await serve(indexes=(hosted("internal", default=False), hosted("shared")), grants=GRANTS)
    assert await upload(proxy.service.receiving["internal"], SECRET) is Uploaded.NEW
    assert (await proxy.get("/index/internal/simple/acme-app/", Accept=JSON)).status == 401
    return proxy


def noted(path: Path, **changes: object) -> None:
    """Have *changes* in the JSON file of the file at *path*."""
    file = path.with_name(f"{path.name}.json")
    note = json.loads(file.read_bytes()) if file.exists() else {}
    file.write_text(json.dumps(note | changes))


@pytest_twisted.ensureDeferred
async def test_a_note_beside_other_bytes_does_not_lead_to_those_of_another_index(serve: Start, folder: Path) -> None:
    proxy = await started(serve)
    await proxy.stop()
    path = drop(folder, SECRET, bytes(len(SECRET.data)))
    noted(
        path,
        sha256=SECRET.sha256,
        size=len(SECRET.data),
        mtime_ns=path.stat().st_mtime_ns,
        upload_time="2026-01-01T00:00:00.000000Z",
    )
    proxy = await serve(indexes=(hosted("internal", default=False), hosted("shared")), grants=GRANTS)
    assert await listed(proxy, "acme-app") == {}
    reply = await proxy.get(f"/files/acme-app/sha256-{SECRET.sha256}/{SECRET.filename}")
    assert (reply.status, SECRET.data in reply.body) == (404, False)


@pytest_twisted.ensureDeferred
async def test_a_note_that_names_other_metadata_does_not_lead_to_those_bytes(serve: Start, folder: Path) -> None:
    proxy = await started(serve)
    await upload(proxy.service.receiving["shared"], OWN)
    await proxy.stop()
    noted(folder / "own-app" / OWN.filename, metadata=SECRET.sha256)
    proxy = await serve(indexes=(hosted("internal", default=False), hosted("shared")), grants=GRANTS)
    path = await proxy.link("own-app", OWN.filename)
    for _ in range(2):
        assert SECRET.data not in (await proxy.get(f"{path}.metadata")).body


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("place", ["beside", "outside", "store"])
@pytest.mark.parametrize("whole_folder", [False, True], ids=["file", "folder"])
async def test_a_link_does_not_lead_to_a_file_of_another_index(
    serve: Start, folder: Path, tmp_path: Path, place: str, *, whole_folder: bool
) -> None:
    path = tmp_path / "private" if place == "outside" else None
    if path is not None:
        path.mkdir()
    indexes = (hosted("internal", default=False, path=path), hosted("shared"))
    proxy = await serve(indexes=indexes, grants=GRANTS)
    assert await upload(proxy.service.receiving["internal"], SECRET) is Uploaded.NEW
    await proxy.stop()
    file = (path or folder.parent / "internal") / "acme-app" / SECRET.filename
    if place == "store":
        file = tmp_path / "data" / "files" / SECRET.sha256[:2] / SECRET.sha256
    noted_before = file.with_name(f"{file.name}.json").read_bytes() if place != "store" else b""
    if whole_folder and place != "store":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "acme-app").symlink_to(file.parent)
    else:
        (folder / "acme-app").mkdir(parents=True)
        (folder / "acme-app" / SECRET.filename).symlink_to(file)
    proxy = await serve(indexes=indexes, grants=GRANTS)
    assert await listed(proxy, "acme-app") == {}
    reply = await proxy.get(f"/files/acme-app/sha256-{SECRET.sha256}/{SECRET.filename}")
    assert (reply.status, SECRET.data in reply.body) == (404, False)
    if noted_before:
        assert file.with_name(f"{file.name}.json").read_bytes() == noted_before


@pytest_twisted.ensureDeferred
async def test_a_link_to_a_file_from_elsewhere_is_followed(serve: Start, folder: Path, tmp_path: Path) -> None:
    (tmp_path / OWN.filename).write_bytes(OWN.data)
    (folder / "own-app").mkdir(parents=True)
    (folder / "own-app" / OWN.filename).symlink_to(tmp_path / OWN.filename)
    proxy = await started(serve)
    assert list(await listed(proxy, "own-app")) == [OWN.filename]


@pytest_twisted.ensureDeferred
async def test_what_is_noted_of_the_same_bytes_is_kept(serve: Start, folder: Path) -> None:
    proxy = await started(serve)
    await proxy.stop()
    path = drop(folder, OWN)
    noted(
        path,
        sha256=OWN.sha256,
        size=len(OWN.data),
        mtime_ns=path.stat().st_mtime_ns,
        upload_time="2020-01-01T00:00:00.000000Z",
        uploader="user:ann",
        yanked="too old",
    )
    proxy = await serve(indexes=(hosted("internal", default=False), hosted("shared")), grants=GRANTS)
    file = (await listed(proxy, "own-app"))[OWN.filename]
    assert (file["upload-time"], file["yanked"]) == ("2020-01-01T00:00:00.000000Z", "too old")
    assert json.loads(path.with_name(f"{path.name}.json").read_bytes())["uploader"] == "user:ann"


@pytest_twisted.ensureDeferred
async def test_a_pipe_in_the_place_of_a_note_keeps_nobody_waiting(serve: Start, folder: Path) -> None:
    path = drop(folder, OWN)
    os.mkfifo(path.with_name(f"{path.name}.json"))
    os.mkfifo(folder / "own-app" / ".project.json")
    proxy = await started(serve)
    try:
        assert await listed(proxy, "own-app") == {}
        check = await proxy.service.administration.perform("hosted_check", index="shared")
        assert {(each["kind"], "it is no regular file" in each["why"]) for each in check["found"]} == {
            ("refused", True),
            ("status", True),
        }
    finally:
        await deferToThread(_let_go, folder)


def _let_go(folder: Path) -> None:
    """End whoever waits for a pipe below *folder* to be written to."""
    for each in folder.rglob("*.json"):
        if each.is_fifo():
            os.close(os.open(each, os.O_RDWR | os.O_NONBLOCK))


@pytest_twisted.ensureDeferred
async def test_a_public_page_that_states_the_digest_of_a_private_file_does_not_lead_to_its_bytes(
    serve: Start, upstream: FakeUpstream
) -> None:
    metadata_digest = hashlib.sha256(SECRET.metadata).hexdigest()
    evil, six = wheel("evil-app", "1.0"), wheel("six", "1.16")
    for name in ("evil_app-1.0-py3-none-any.whl", "evil_app-2.0-py3-none-any.whl"):
        stated = {"sha256": SECRET.sha256}
        beside = {"core-metadata": {"sha256": metadata_digest}} if "2.0" in name else {}
        upstream.add_file("evil-app", name, evil.data, hashes=stated, metadata=evil.metadata, entry=beside)
    upstream.add_file("six", six.filename, six.data)
    pypi = IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False)

    async def asked(proxy: Running) -> None:
        files = (await proxy.page("evil-app"))["files"]
        assert {each["hashes"]["sha256"] for each in files} == {SECRET.sha256}
        for each in files:
            path = urljoin("/simple/evil-app/", each["url"])
            for ending in ("", ".metadata"):
                reply = await proxy.get(path + ending)
                assert SECRET.data not in reply.body
                assert SECRET.metadata not in reply.body

    proxy = await serve(upstream, indexes=(pypi, hosted("internal", default=False)), grants=GRANTS)
    receiving = proxy.service.receiving["internal"]
    assert await upload(receiving, SECRET) is Uploaded.NEW
    private = proxy.service.indexes["internal"].everything
    (await private.file("acme-app", f"sha256-{SECRET.sha256}", f"{SECRET.filename}.metadata")).close()  # it is stored now
    await asked(proxy)
    # It is known after a restart too, and when the file was deleted; what upstream has itself is served as always.
    await proxy.stop()
    proxy = await serve(upstream, indexes=(pypi, hosted("internal", default=False)), grants=GRANTS)
    await asked(proxy)
    assert len(await proxy.service.administration.perform("delete", index="internal", project="acme-app")) == 1
    await asked(proxy)
    assert await upload(proxy.service.receiving["internal"], six) is Uploaded.NEW
    assert (await proxy.get(await proxy.link("six", six.filename))).body == six.data
    assert any(six.filename in each.path for each in upstream.asked)


@pytest_twisted.ensureDeferred
async def test_an_offline_page_lists_no_file_whose_bytes_a_hosted_index_alone_has(serve: Start, upstream: FakeUpstream) -> None:
    own, forged, met = wheel("six", "1.16"), "six-2.0-py3-none-any.whl", wheel("six", "3.0")
    upstream.add_file("six", own.filename, own.data)
    beside = {"core-metadata": {"sha256": hashlib.sha256(SECRET.metadata).hexdigest()}}
    upstream.add_file("six", forged, SECRET.data, metadata=SECRET.metadata, entry=beside)
    upstream.add_file("six", met.filename, met.data)
    pypi = IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False)
    proxy = await serve(upstream, indexes=(pypi, hosted("internal", default=False)), grants=GRANTS)
    assert (await proxy.get(await proxy.link("six", own.filename))).body == own.data
    await proxy.stop()

    offline = replace(pypi, upstreams=(), offline=True)
    proxy = await serve(indexes=(offline, hosted("internal", default=False)), grants=GRANTS)
    receiving = proxy.service.receiving["internal"]
    before = await proxy.get("/simple/six/", Accept=JSON)
    assert [each["filename"] for each in before.json["files"]] == [own.filename]
    assert await upload(receiving, SECRET) is Uploaded.NEW
    assert await upload(receiving, met) is Uploaded.NEW  # the same bytes as those of upstream, which were never fetched
    assert await upload(receiving, own) is Uploaded.NEW  # they were, so both indexes have them
    after = await proxy.get("/simple/six/", Accept=JSON)
    assert (after.body, after.headers["etag"]) == (before.body, before.headers["etag"])
    assert (await proxy.get(await proxy.link("six", own.filename))).body == own.data
    await proxy.stop()


def test_what_a_proxy_index_has_fetched_under_another_name_is_nobodys_secret() -> None:
    ledger = Ledger(MemoryVersioned(), 100_000, Inline())
    of_url = {"earlier": "https://pypi.example/a.whl", "removed": "", "internal": ""}
    for number, (index, url) in enumerate(of_url.items()):
        entry = LedgerEntry(f"{number:064}", 1, {}, url, 0.0)
        completed(ledger.add_all(index, "app", {f"app-{number}.0.tar.gz": entry}))
    private = PrivateBytes(ledger, ["pypi"])
    assert [completed(private.hold(f"{number:064}")) for number in range(4)] == [False, True, True, False]
    private.add(f"{3:064}")
    assert completed(private.hold(f"{3:064}"))
    assert completed(PrivateBytes(ledger, ["pypi", "other"], divided=True).hold(f"{0:064}"))
