"""Uploads into a hosted index, through its port: whole or not at all, once per name, and seen by the very next request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from proxy.core.uploads import Uploaded
from proxy.errors import BadUpload, FileExists, StorageFailed, TooMuch
from proxy.interfaces import IIncoming, IReceiving
from proxy.model import LedgerEntry
from proxy.settings import MIB
from proxy.storage.local import LocalFiles
from tests.hosting import form_of, hosted, listed, standing, upload
from tests.inprocess import JSON, Running, Start
from tests.support.wheels import Distribution, sdist, wheel

APP, OLD, OTHER = wheel("app", "2.0", requires_python=">=3.8"), sdist("app", "1.0"), wheel("app", "2.0", seed=1, size=999)
INDEX = "internal"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the index."""
    return tmp_path / "data" / "hosted" / INDEX


async def served(proxy: Running, each: Distribution) -> bytes:
    page = await listed(proxy, each.project)
    reply = await proxy.get(urljoin(f"/simple/{each.project}/", page[each.filename]["url"]))
    assert reply.status == 200, reply
    return reply.body


def partial_files(tmp_path: Path) -> list[str]:
    return [each.name for each in (tmp_path / "data" / "partial").iterdir()]


@pytest_twisted.ensureDeferred
async def test_an_upload_is_on_every_route_in_the_next_request(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    verifyObject(IReceiving, receiving)
    assert (await proxy.get("/simple/app/")).status == 404
    for each in (APP, OLD):
        assert await upload(receiving, each) is Uploaded.NEW
        page = await proxy.page("app")
        assert each.filename in [file["filename"] for file in page["files"]]
        assert await served(proxy, each) == each.data
    assert page["meta"]["api-version"] == "1.4"
    assert page["versions"] == ["1.0", "2.0"]
    file = (await listed(proxy, "app"))[APP.filename]
    assert file["upload-time"].endswith("Z")
    assert {key: file[key] for key in ("size", "hashes", "requires-python", "yanked")} == {
        "size": len(APP.data),
        "hashes": {"sha256": APP.sha256},
        "requires-python": ">=3.8",
        "yanked": False,
    }
    metadata = await proxy.get(urljoin("/simple/app/", file["url"]) + ".metadata")
    assert (metadata.status, metadata.body) == (200, APP.metadata)
    assert list(file["core-metadata"]) == ["sha256"]
    assert [each["name"] for each in (await proxy.get("/simple/", Accept=JSON)).json["projects"]] == ["app"]
    legacy = (await proxy.get("/pypi/app/json")).json
    assert (legacy["info"]["version"], sorted(legacy["releases"])) == ("2.0", ["1.0", "2.0"])
    assert standing(folder) == {f"app/{each.filename}": each.sha256 for each in (APP, OLD)}


@pytest_twisted.ensureDeferred
async def test_a_hot_page_sees_each_upload_at_once_a_hundred_times_out_of_a_hundred(serve: Start) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    names: set[str] = set()
    etag = ""
    for number in range(100):
        each = wheel("hot" if number % 2 else f"hot{number}", f"{number}.0")
        await upload(receiving, each)
        for _ in range(3):  # the first makes it hot
            assert each.filename in await listed(proxy, each.project)
        names.add(each.project)
        reply = await proxy.get(f"/simple/{each.project}/", Accept=JSON, If_None_Match=etag)
        assert (reply.status, reply.headers["cache-control"]) == (200, "no-cache")
        etag = reply.headers["etag"]
        assert (await proxy.get(f"/simple/{each.project}/", Accept=JSON, If_None_Match=etag)).status == 304
        projects = (await proxy.get("/simple/", Accept=JSON)).json["projects"]
        assert {each["name"] for each in projects} == names


@pytest_twisted.ensureDeferred
async def test_the_same_bytes_again_are_the_same_and_others_are_refused(serve: Start, folder: Path, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    assert [await upload(receiving, APP) for _ in range(2)] == [Uploaded.NEW, Uploaded.SAME]
    before = await proxy.page("app")
    with pytest.raises(FileExists, match=r"^app-2\.0-py3-none-any\.whl is, or was, on index internal"):
        await upload(receiving, OTHER)
    assert await proxy.page("app") == before
    assert await served(proxy, APP) == APP.data
    assert standing(folder) == {f"app/{APP.filename}": APP.sha256}
    assert partial_files(tmp_path) == []


@pytest.mark.parametrize("spelled", ["APP-2.0-py3-none-any.whl", "app-2.0.0-py3-none-any.whl", "App-2-py3-none-any.whl"])
@pytest_twisted.ensureDeferred
async def test_another_spelling_of_the_file_name_does_not_bring_other_bytes(
    serve: Start, folder: Path, tmp_path: Path, spelled: str
) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    await upload(receiving, APP)
    with pytest.raises(FileExists, match=re.escape(f"{APP.filename} is, or was, on index internal with sha256-{APP.sha256}")):
        await upload(receiving, replace(OTHER, filename=spelled))
    assert (await listed(proxy, "app")).keys() == {APP.filename}
    assert partial_files(tmp_path) == []
    (folder / "app" / APP.filename).unlink()
    with pytest.raises(FileExists):
        await upload(receiving, replace(OTHER, filename=spelled))
    another = wheel("app", "2.0.post1")
    assert await upload(receiving, another) is Uploaded.NEW
    assert await upload(receiving, sdist("app", "2.0")) is Uploaded.NEW
    assert await upload(receiving, replace(OTHER, filename="app-2.0-1-py3-none-any.whl")) is Uploaded.NEW


@pytest_twisted.ensureDeferred
async def test_a_name_keeps_its_bytes_after_its_file_was_removed(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    await upload(proxy.service.receiving[INDEX], APP)
    time = (await listed(proxy, "app"))[APP.filename]["upload-time"]
    await proxy.stop()
    (folder / "app" / APP.filename).unlink()
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    assert await listed(proxy, "app") == {}
    with pytest.raises(FileExists):
        await upload(receiving, OTHER)
    assert await upload(receiving, APP) is Uploaded.NEW
    assert (await listed(proxy, "app"))[APP.filename]["upload-time"] == time


@pytest_twisted.ensureDeferred
async def test_of_many_uploads_of_one_name_one_wins(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    rivals = [wheel("app", "2.0", seed=seed, size=10_000) for seed in range(8)]
    outcomes = await DeferredList([Deferred.fromCoroutine(upload(receiving, each)) for each in rivals], consumeErrors=True)
    winners = [each for each, (won, _) in zip(rivals, outcomes, strict=True) if won]
    assert len(winners) == 1
    refusals: list[object] = [outcome for won, outcome in outcomes if not won]
    assert all(isinstance(each, Failure) and each.check(FileExists) for each in refusals)
    assert await served(proxy, winners[0]) == winners[0].data
    assert standing(folder) == {f"app/{APP.filename}": winners[0].sha256}


@pytest_twisted.ensureDeferred
async def test_with_overwrite_other_bytes_take_the_place_and_the_ledger_keeps_the_old_ones(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(overwrite=True),))
    receiving = proxy.service.receiving[INDEX]
    await upload(receiving, APP)
    assert await served(proxy, APP) == APP.data
    assert await upload(receiving, OTHER) is Uploaded.NEW
    assert await served(proxy, OTHER) == OTHER.data
    assert standing(folder) == {f"app/{APP.filename}": OTHER.sha256}
    entries = await proxy.service.caches.ledger.of(INDEX, "app")
    known = {name: each.sha256 for name, each in entries.items() if isinstance(each, LedgerEntry) and ".metadata" not in name}
    assert known == {APP.filename: OTHER.sha256, f"sha256-{APP.sha256}/{APP.filename}": APP.sha256}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("sha256", {"digests": {"sha256": "0" * 64}}),
        ("md5", {"digests": {"md5": "0" * 32}}),
        ("blake2_256", {"digests": {"blake2_256": "0" * 64}}),
        ("version 2.0", {"version": "2.1"}),
        ("the form names other", {"project": "other", "name": "other"}),
        ("attestations", {"attestations": "{}"}),
        ("attestations", {"attestations": "[1]"}),
    ],
)
async def test_what_the_form_says_must_be_true(
    serve: Start, folder: Path, tmp_path: Path, why: str, changes: dict[str, Any]
) -> None:
    proxy = await serve(indexes=(hosted(),))
    with pytest.raises(BadUpload, match=why):
        await upload(proxy.service.receiving[INDEX], APP, **changes)
    assert await listed(proxy, "app") == {}
    assert standing(tmp_path / "data" / "hosted") == {}
    assert partial_files(tmp_path) == []
    assert list((tmp_path / "data" / "files").rglob("*/*")) == []


@pytest_twisted.ensureDeferred
async def test_what_is_no_distribution_leaves_nothing(serve: Start, folder: Path, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    damaged = APP.data.replace(b"version = ", b"version : ")
    for data, filename in ((damaged, APP.filename), (b"", APP.filename), (APP.data, OLD.filename), (APP.data, "app.exe")):
        bad = Distribution("app", filename, data, b"")
        with pytest.raises(BadUpload):
            await upload(receiving, bad, version="2.0" if filename == APP.filename else "1.0")
    assert standing(tmp_path / "data" / "hosted") == {}
    assert partial_files(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_who_leaves_in_mid_upload_leaves_nothing(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    incoming = await receiving.begin(None, None)
    verifyObject(IIncoming, incoming)
    await incoming.write(APP.data[:100])
    assert (incoming.size, len(partial_files(tmp_path))) == (100, 1)
    writing = Deferred.fromCoroutine(incoming.write(APP.data[100:]))
    writing.addErrback(lambda failure: None)
    writing.cancel()
    for _ in range(2):
        await incoming.discard()
    assert partial_files(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_who_leaves_when_it_is_accepted_leaves_the_whole_file_or_nothing(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    receiving = proxy.service.receiving[INDEX]
    incoming = await receiving.begin(APP.filename, len(APP.data))
    await incoming.write(APP.data)
    accepting = Deferred.fromCoroutine(incoming.accept(form_of(APP), "ci"))
    accepting.addErrback(lambda failure: None)
    accepting.cancel()
    await incoming.discard()
    assert await upload(receiving, APP) in (Uploaded.SAME, Uploaded.NEW)
    assert standing(folder) == {f"app/{APP.filename}": APP.sha256}


@pytest_twisted.ensureDeferred
async def test_an_index_has_limits(serve: Start, folder: Path, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(max_files=2, max_size=len(APP.data) + len(OLD.data) + 100),))
    receiving = proxy.service.receiving[INDEX]
    with pytest.raises(TooMuch, match="max_size"):
        await receiving.begin(None, 10_000_000)
    huge = wheel("huge", size=50_000)
    incoming = await receiving.begin(None, None)
    with pytest.raises(TooMuch, match="max_size"):
        await incoming.write(huge.data)
    await incoming.discard()
    await upload(receiving, APP)
    await upload(receiving, OLD)
    with pytest.raises(TooMuch, match=r"max_(files|size)"):
        await upload(receiving, wheel("third"))
    assert sorted(standing(folder)) == sorted(f"app/{each.filename}" for each in (APP, OLD))
    assert partial_files(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_min_free_is_kept_free(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),), min_free=1)
    free = await proxy.service.storage.files.free()
    with pytest.raises(StorageFailed, match="min_free"):
        await proxy.service.receiving[INDEX].begin(None, free)
    assert partial_files(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_min_free_is_kept_free_of_an_upload_that_does_not_state_its_size(
    serve: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, piece = 100 * MIB, bytes(4 * MIB)

    async def free(store: LocalFiles) -> int:
        return left - sum(each.stat().st_size for each in (tmp_path / "data" / "partial").iterdir())

    monkeypatch.setattr(LocalFiles, "free", free)
    proxy = await serve(indexes=(hosted(),), min_free=20 * MIB)
    incoming = await proxy.service.receiving[INDEX].begin(None, None)

    async def sent() -> None:
        for _ in range(20):  # 80 MiB, and twice that are needed
            await incoming.write(piece)

    try:
        with pytest.raises(StorageFailed, match="min_free"):
            await sent()
        assert 0 < incoming.size <= 40 * MIB
    finally:
        await incoming.discard()
    assert partial_files(tmp_path) == []


@pytest_twisted.ensureDeferred
async def test_who_uploaded_when_is_beside_the_file(serve: Start, folder: Path) -> None:
    then = 1_700_000_000.25
    proxy = await serve(indexes=(hosted(),), clock=lambda: then)
    await upload(proxy.service.receiving[INDEX], APP, by="alice")
    noted = json.loads((folder / "app" / f"{APP.filename}.json").read_text())
    assert (noted["uploader"], noted["upload_time"]) == ("alice", "2023-11-14T22:13:20.250000Z")
    assert (noted["sha256"], noted["size"]) == (APP.sha256, len(APP.data))
    assert sorted(noted["digests"]) == ["blake2b_256", "md5"]
    assert (await listed(proxy, "app"))[APP.filename]["upload-time"] == "2023-11-14T22:13:20.250000Z"


@pytest_twisted.ensureDeferred
async def test_everything_is_there_after_a_restart_and_in_another_data_directory(serve: Start, folder: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    for each in (APP, OLD):
        await upload(proxy.service.receiving[INDEX], each)
    before = await proxy.page("app")
    await proxy.stop()
    proxy = await serve(indexes=(hosted(),))
    assert await proxy.page("app") == before
    await proxy.stop()
    elsewhere = await serve(indexes=(hosted(path=folder),), data="elsewhere")
    assert await elsewhere.page("app") == before
    assert await served(elsewhere, APP) == APP.data
    (metadata,) = [each for each in before["files"] if each["filename"] == APP.filename]
    assert (await elsewhere.get(urljoin("/simple/app/", metadata["url"]) + ".metadata")).body == APP.metadata
