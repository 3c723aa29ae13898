"""One compliance suite for every repository, and for the handles of its files: proxy indexes, groups, and the smallest one."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from proxy.core.views import LegacyName, ProvenanceName
from proxy.errors import DigestChanged, NotFound
from proxy.interfaces import IBytesSource, IFileHandle, IProjectsView, IRepository
from proxy.repository.metadata import until_whole
from proxy.repository.offered import segment
from proxy.settings import HostedSettings, IndexSettings, PageLimits
from proxy.simple.media import MediaType
from proxy.storage.memory import MemoryVersioned
from tests.groups import a_group
from tests.inprocess import Start
from tests.shelf import Shelf
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import sdist, wheel

#: What is on every index.
APP, OLD, OTHER = wheel("app", "2.0", size=100_000), sdist("app", "1.0"), wheel("other")
STOCK = (APP, OLD, OTHER)
DIGEST = f"sha256-{APP.sha256}"

Make = Callable[[str], Awaitable[IRepository]]
KINDS = ("proxy", "stored", "operators", "offline", "shelf", "hosted", "group", "united")


@pytest.fixture
def make(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> Make:
    """Makes a repository of one of `KINDS` with `STOCK`."""

    async def make(kind: str) -> IRepository:
        shelved = {"shelf": STOCK, "group": (APP, OLD), "united": (APP,)}.get(kind, ())
        for each in STOCK:
            if each not in shelved:
                upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
        if kind == "shelf":
            return Shelf("pypi", *STOCK)
        if kind == "hosted":
            for each in STOCK:
                folder = tmp_path / "data" / "hosted" / "pypi" / each.project
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (folder / each.filename).write_bytes(each.data)
            proxy = await serve(indexes=(IndexSettings(name="pypi", kind="hosted", default=True, hosted=HostedSettings()),))
            return proxy.service.indexes["pypi"].repository
        if kind in ("group", "united"):
            proxy = await serve(upstream)
            members = {"internal": Shelf("internal", *shelved), "public": proxy.service.indexes["pypi"].repository}
            merge = ("app",) if kind == "united" else ()
            made = a_group(tmp_path, MemoryVersioned(), members, {"internal": ()}, name="pypi", merge=merge)
            await made.claimed("internal", "app")
            return made.repository
        proxy = await serve(upstream)
        if kind in ("stored", "offline"):
            for each in STOCK:
                path = await proxy.link(each.project, each.filename)
                assert (await proxy.get(path)).body == each.data
                assert (await proxy.get(f"{path}.metadata")).status in (200, 404)
        if kind == "offline":
            await proxy.stop()
            offline = IndexSettings(name="pypi", default=True, offline=True, limits=PageLimits(stale_if_error=0.0))
            proxy = await serve(upstream, indexes=(offline,))
        index = proxy.service.indexes["pypi"]
        return index.everything if kind == "operators" else index.repository

    return make


async def read(source: IBytesSource) -> bytes:
    """All bytes of *source*, which is closed."""
    try:
        await until_whole(source, "it")
        return os.pread(source.fileno(), source.extent() + 1, 0)
    finally:
        source.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_lists_files_that_can_be_had_under_what_it_says_of_them(make: Make, kind: str) -> None:
    repository = await make(kind)
    verifyObject(IRepository, repository)
    view = await repository.page("app")
    page = await view.load()
    assert (repository.name, view.project, page.project) == ("pypi", "app", "app")
    assert {file.filename for file in page.files} == {APP.filename, OLD.filename}
    for file in page.files:
        handle = await repository.file("app", segment(file), file.filename)
        data = await read(await handle.open())
        handle.close()
        assert (data, len(data)) == ({each.filename: each.data for each in STOCK}[file.filename], file.size)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_page_has_the_same_state_and_what_is_at_hand_is_what_is_awaited(make: Make, kind: str) -> None:
    repository = await make(kind)
    first, second = await repository.page("app"), await repository.page("app")
    assert first.state == second.state != (await repository.page("other")).state
    assert await first.load() == await second.load()
    at_hand = repository.page_at_hand("app")
    assert at_hand is None or (at_hand.state, await at_hand.load()) == (first.state, await first.load())
    assert repository.page_at_hand("nothing") is None
    assert first.max_age >= 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_not_exist_is_not_found(make: Make, kind: str) -> None:
    repository = await make(kind)
    await repository.page("app")
    unknown = "sha256-" + "ab" * 32
    for asked in (
        repository.page("nothing"),
        repository.document(LegacyName("nothing")),
        repository.document(ProvenanceName("app", DIGEST, APP.filename)),
        repository.document(ProvenanceName("nothing", DIGEST, APP.filename)),
        repository.file("nothing", DIGEST, APP.filename),
        repository.file("app", DIGEST, "app-9.9-py3-none-any.whl"),
        repository.file("app", DIGEST, "app-9.9-py3-none-any.whl.metadata"),
    ):
        with pytest.raises(NotFound):
            await asked
    with pytest.raises((NotFound, DigestChanged)):
        await repository.file("app", unknown, APP.filename)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_the_list_has_every_project_in_every_form(make: Make, kind: str) -> None:
    repository = await make(kind)
    view = await repository.projects()
    verifyObject(IProjectsView, view)
    documents = {
        (media, coding): await read(await view.open(media, coding)) for media in MediaType for coding in ("identity", "gzip")
    }
    assert [each["name"] for each in json.loads(documents[MediaType.JSON, "identity"])["projects"]] == ["app", "other"]
    for media in MediaType:
        assert gzip.decompress(documents[media, "gzip"]) == documents[media, "identity"]
        assert media is MediaType.JSON or b'<a href="other/">other</a>' in documents[media, "identity"]
    assert (await repository.projects()).state == view.state


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_cached_has_been_asked_for_and_is_on_the_list(make: Make, kind: str) -> None:
    repository = await make(kind)
    await repository.page("app")
    assert "app" in await repository.cached()
    await repository.page("other")
    with pytest.raises(NotFound):
        await repository.page("nothing")
    assert await repository.cached() == ["app", "other"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_projects_come_from_upstream_or_are_its_own(make: Make, kind: str) -> None:
    repository = await make(kind)
    everything = ["app", "other"]
    own = {"shelf": everything, "hosted": everything, "group": ["app"], "united": ["app"]}
    assert await repository.own() == own.get(kind)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_a_legacy_document_comes_with_the_page_that_says_what_it_may_name(make: Make, kind: str) -> None:
    repository = await make(kind)
    page = await (await repository.page("app")).load()
    for name in (LegacyName("app"), LegacyName("app", "2.0")):
        document = await (await repository.document(name)).load()
        assert document.page is not None
        assert {file.filename for file in document.page.files} == {file.filename for file in page.files}
        assert document.body is None or b"app" in document.body


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_metadata_is_a_file_of_its_own(make: Make, kind: str) -> None:
    repository = await make(kind)
    file, metadata = [await repository.file("app", DIGEST, f"{APP.filename}{end}") for end in ("", ".metadata")]
    assert (await metadata.find_size(), metadata.stored) == (len(APP.metadata), True)
    assert metadata.etag != file.etag
    assert await read(await metadata.open()) == APP.metadata
    for each in (file, metadata):
        each.close()


# -- handles ----------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handle_knows_its_file_before_a_byte_is_read(make: Make, upstream: FakeUpstream, kind: str) -> None:
    repository = await make(kind)
    handle = await repository.file("app", DIGEST, APP.filename)
    verifyObject(IFileHandle, handle)
    stored = kind not in ("proxy", "operators")
    assert (handle.stored, handle.in_progress, handle.size, await handle.find_size()) == (
        *(stored, False),
        *(len(APP.data), len(APP.data)),
    )
    assert handle.status.hit is stored
    assert handle.growing() is None
    assert stored or upstream.count(f"*{APP.filename}") == 0
    assert await read(await handle.open()) == APP.data
    again = await repository.file("app", DIGEST, APP.filename)
    assert (again.stored, again.size, again.etag) == (True, len(APP.data), handle.etag)
    for each in (handle, again, again):  # as often as one likes
        each.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handle_gives_its_file_away_and_closes_what_it_has_not_given(make: Make, kind: str) -> None:
    repository = await make(kind)
    unread = await repository.file("app", DIGEST, APP.filename)
    unread.close()
    handle = await repository.file("app", DIGEST, APP.filename)
    source = await handle.open()
    handle.close()
    assert await read(source) == APP.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["proxy", "operators"])
async def test_a_file_that_is_not_stored_can_be_had_in_parts_and_while_it_grows(
    make: Make, upstream: FakeUpstream, kind: str
) -> None:
    repository = await make(kind)
    handle = await repository.file("app", DIGEST, APP.filename)
    reader = await handle.open_range(10, 2_010)
    part = b""
    while piece := await reader.read():
        part += piece
    reader.close()
    assert (part, handle.in_progress) == (APP.data[10:2_010], False)
    gate = upstream.hold(f"*/{APP.filename}", after=50_000)
    first = await handle.open()
    assert (handle.in_progress, handle.status.collapsed) == (True, True)
    growing = handle.growing()
    assert growing is not None
    gate.release()
    assert [await read(each) for each in (first, growing)] == [APP.data] * 2
    assert upstream.count(f"*/{APP.filename}") == 2


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", KINDS)
async def test_a_handle_tells_whether_its_bytes_are_still_those_of_the_name(make: Make, kind: str) -> None:
    repository = await make(kind)
    await repository.page("app")
    handle = await repository.file("app", DIGEST, APP.filename)
    handle.close()
    assert handle.is_current() is (kind in ("stored", "offline", "hosted"))
    if kind in ("stored", "offline", "hosted"):
        assert handle.is_unchanged()
