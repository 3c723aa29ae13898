"""The names of hosted projects are claimed before anybody sees their files, and without a claim there is no file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from proxy.composition.caches import build_caches
from proxy.composition.hosted import HostedKind
from proxy.composition.indexes import BuiltIndex
from proxy.composition.means import build_means
from proxy.composition.storage import open_storage
from proxy.errors import NotFound, StorageFailed
from proxy.interfaces import IClaims, IReceiving, IRepository
from proxy.policy.policy import STANDARD
from proxy.settings import ServerSettings, Settings
from tests.hosting import drop, hosted, standing, upload
from tests.support.wheels import wheel

reactor: Any = default_reactor
APP = wheel("app")


@implementer(IClaims)
class NotedClaims:
    """Claims in memory, and whether anybody could see a file when its name was claimed."""

    def __init__(self) -> None:
        self.repository: IRepository | None = None
        self.made: list[tuple[str, str, str, bool]] = []
        self.failing = False

    async def ready(self) -> None:
        """They are."""

    async def claim(self, index: str, project: str, by: str, given_by: str | None = None) -> None:
        if self.failing:
            raise StorageFailed("claims cannot be written")
        seen = self.repository is not None and self.repository.page_at_hand(project) is not None
        self.made.append((index, project, by, seen))

    async def adopt(self, index: str, project: str, by: str) -> None:
        """Nobody has claimed a name but for a file."""

    def claimed(self, index: str, project: str) -> bool:
        return any(each[:2] == (index, project) for each in self.made)

    def second(self, index: str, project: str) -> bool:
        return False

    def held(self, index: str, project: str) -> str | None:
        return None


@pytest.fixture
def claims() -> NotedClaims:
    return NotedClaims()


@pytest.fixture
def built(tmp_path: Path, claims: NotedClaims) -> Iterator[BuiltIndex]:
    """A hosted index whose claims are noted."""
    means = build_means(reactor, time.time)
    server = ServerSettings(data_dir=tmp_path / "data")
    settings = Settings(server=server, upstreams=(), indexes=(hosted(),))
    storage = open_storage(server, means)
    caches = build_caches(settings, storage, means)
    index = HostedKind(settings, storage, caches, STANDARD, means, claims).build(settings.indexes[0], {})
    claims.repository = index.parts.repository
    yield index
    for each in index.closing:
        each.close()
    for closing in (caches.close(), storage.close()):
        pytest_twisted.blockon(Deferred.fromCoroutine(closing))
    means.stop()
    storage.stop()


def receiving_of(built: BuiltIndex) -> IReceiving:
    assert built.receiving is not None
    return built.receiving


@pytest_twisted.ensureDeferred
async def test_an_upload_claims_its_name_before_its_file_is_seen(built: BuiltIndex, claims: NotedClaims) -> None:
    await upload(receiving_of(built), APP, by="alice")
    assert claims.made == [("internal", "app", "alice", False)]
    assert (await built.parts.repository.page("app")).project == "app"


@pytest_twisted.ensureDeferred
async def test_a_copied_file_claims_its_name_before_it_is_seen(built: BuiltIndex, claims: NotedClaims, tmp_path: Path) -> None:
    drop(tmp_path / "data" / "hosted" / "internal", APP)
    assert (await built.parts.repository.page("app")).project == "app"
    assert claims.made == [("internal", "app", "the drop directory", False)]


@pytest_twisted.ensureDeferred
async def test_without_a_claim_there_is_no_file(built: BuiltIndex, claims: NotedClaims, tmp_path: Path) -> None:
    claims.failing = True
    folder = tmp_path / "data" / "hosted" / "internal"
    drop(folder, other := wheel("other"))
    with pytest.raises(StorageFailed, match="claims cannot be written"):
        await upload(receiving_of(built), APP)
    assert standing(folder) == {f"other/{other.filename}": other.sha256}
    assert list((tmp_path / "data" / "partial").iterdir()) == []
    for project, error in (("app", NotFound), ("other", StorageFailed)):  # an outage is no 404
        with pytest.raises(error):
            await built.parts.repository.page(project)
    claims.failing = False
    await upload(receiving_of(built), APP)
    assert (await built.parts.repository.page("app")).project == "app"


@pytest_twisted.ensureDeferred
async def test_a_file_with_a_note_from_elsewhere_is_claimed_too(built: BuiltIndex, claims: NotedClaims, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "hosted" / "internal"
    path = drop(folder, APP)
    facts = path.stat()
    note = {
        "sha256": APP.sha256,
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "upload_time": "2020-01-02T03:04:05.000000Z",
        "metadata": hashlib.sha256(APP.metadata).hexdigest(),
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(note))
    claims.failing = True
    with pytest.raises(StorageFailed):
        await built.parts.repository.page("app")
    claims.failing = False
    page = await (await built.parts.repository.page("app")).load()
    assert [each.upload_time for each in page.files] == ["2020-01-02T03:04:05.000000Z"]
    assert claims.made == [("internal", "app", "the drop directory", False)]
    handle = await built.parts.repository.file("app", f"sha256-{APP.sha256}", APP.filename)
    assert (handle.size, handle.stored) == (len(APP.data), True)
    handle.close()
