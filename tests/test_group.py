"""Groups: where each project comes from, and what is never asked of whom."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.logger import LogEvent, formatEvent

from proxy.core.claims import ClaimState, NameClaim
from proxy.core.views import LegacyName, ProvenanceName
from proxy.errors import NameAbandoned, NotFound, StorageFailed, UpstreamFailed
from proxy.interfaces import IRepository
from proxy.mechanism.offload import Inline
from proxy.model import body_digest
from proxy.repository.offered import segment
from proxy.settings import GroupSettings, IndexSettings, PageLimits
from proxy.simple.media import MediaType
from proxy.storage.memory import MemoryVersioned
from proxy.storage.mirrored import MirroredRecords
from tests.groups import Grouped, a_group
from tests.inprocess import JSON, Running, Start
from tests.shelf import Shelf
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import Distribution, sdist, wheel
from tests.test_repositories import read

OURS = wheel("acme-app", "1.0")
#: What an attacker has put on the public index.
THEIRS, SQUATTED = wheel("acme-app", "99.0"), wheel("acme-tool", "99.0")
SIX, OTHER = wheel("six"), wheel("other")
OWNS: Mapping[str, Collection[str]] = {"internal": ("acme-t*",)}
Ask = Callable[[IRepository, Distribution], Awaitable[object]]


class World(Struct):
    """A group of the shelf *internal* and the proxy index of *service*."""

    group: Grouped
    internal: Shelf
    service: Running
    records: MemoryVersioned

    @property
    def repository(self) -> IRepository:
        return self.group.repository

    async def files(self, project: str) -> list[str]:
        """The names of the files on the group's page of *project*."""
        return [each.filename for each in (await (await self.repository.page(project)).load()).files]


@pytest.fixture
def public(upstream: FakeUpstream) -> FakeUpstream:
    for each in (THEIRS, SQUATTED, SIX, OTHER):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    return upstream


Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(public: FakeUpstream, serve: Start, tmp_path: Path) -> Make:
    """Makes the group, with `OURS` on its shelf and claimed, unless others are *claimed*."""

    async def make(*, merge: Collection[str] = (), claimed: Collection[str] = ("acme-app",)) -> World:
        service = await serve(public)
        internal, records = Shelf("internal", OURS), MemoryVersioned()
        members = {"internal": internal, "pypi": service.service.indexes["pypi"].repository}
        group = a_group(tmp_path, records, members, OWNS, merge=merge, service=service)
        await group.claimed("internal", *claimed)
        return World(group, internal, service, records)

    return make


async def _page(repository: IRepository, of: Distribution) -> object:
    return await (await repository.page(of.project)).load()


async def _legacy(repository: IRepository, of: Distribution) -> object:
    return await (await repository.document(LegacyName(of.project))).load()


async def _file(repository: IRepository, of: Distribution) -> None:
    (await repository.file(of.project, f"sha256-{of.sha256}", of.filename)).close()


async def _metadata(repository: IRepository, of: Distribution) -> None:
    (await repository.file(of.project, f"sha256-{of.sha256}", f"{of.filename}.metadata")).close()


async def _provenance(repository: IRepository, of: Distribution) -> object:
    return await repository.document(ProvenanceName(of.project, f"sha256-{of.sha256}", of.filename))


ROUTES = {"page": _page, "legacy": _legacy, "file": _file, "metadata": _metadata, "provenance": _provenance}


# -- a name that belongs to a hosted member is asked of nobody else ------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_claimed_project_comes_from_its_index_and_nowhere_else(make: Make, public: FakeUpstream) -> None:
    world = await make()
    assert await world.files("acme-app") == [OURS.filename]
    assert public.asked == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("state", ["emptied", "removed", "never there"])
async def test_a_reserved_name_without_files_is_not_found_and_upstream_is_not_asked(
    make: Make, public: FakeUpstream, state: str, route: str
) -> None:
    world = await make()
    theirs = THEIRS
    if state == "emptied":
        world.internal.empty("acme-app")
    elif state == "removed":
        world.internal.remove("acme-app")
    else:
        theirs = SQUATTED  # its name matches what the index owns
    with pytest.raises(NotFound):
        await ROUTES[route](world.repository, theirs)
    assert public.asked == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("of", [THEIRS, SQUATTED], ids=["claimed", "owned"])
async def test_while_the_hosted_index_fails_its_names_fail_and_upstream_is_not_asked(
    make: Make, public: FakeUpstream, of: Distribution, route: str
) -> None:
    world = await make()
    world.internal.fails = True
    with pytest.raises(StorageFailed):
        await ROUTES[route](world.repository, of)
    assert public.asked == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("route", ROUTES)
async def test_while_claims_cannot_be_read_no_name_is_asked_of_upstream(
    public: FakeUpstream, serve: Start, tmp_path: Path, route: str
) -> None:
    service = await serve(public)
    pypi = service.service.indexes["pypi"].repository
    lost = MirroredRecords(tmp_path / "ledger", tmp_path / "copy", Inline(), ours=lambda: False)
    members = {"internal": Shelf("internal", OURS), "pypi": pypi}
    group = a_group(tmp_path, lost, members, OWNS)
    for of in (OURS, SIX):
        with pytest.raises(StorageFailed):
            await ROUTES[route](group.repository, of)
        assert group.repository.page_at_hand(of.project) is None
        with pytest.raises(StorageFailed):
            group.repository.owners(of.project)
    for listed in (group.repository.projects(), group.repository.cached()):
        with pytest.raises(StorageFailed):
            await listed
    assert public.asked == []
    without_hosted = a_group(tmp_path, lost, {"pypi": pypi}, {})
    assert await (await without_hosted.repository.page("six")).load()
    await lost.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("route", ROUTES)
async def test_a_name_of_an_index_that_is_not_configured_any_more_is_refused_with_the_way_out(
    make: Make, public: FakeUpstream, route: str
) -> None:
    world = await make()
    await world.group.book.enter([NameClaim("earlier", "six", ClaimState.CLAIMED, 0.0, "ann")])
    with pytest.raises(NameAbandoned, match="pypiproxy claims add internal six"):
        await ROUTES[route](world.repository, SIX)
    assert world.repository.page_at_hand("six") is None
    assert world.repository.owners("six") == ("internal",)
    assert public.asked == []
    await world.group.claims.claim("internal", "six", "bob")
    assert "claimed by earlier" in (world.group.claims.held("internal", "six") or "")


# -- what belongs to nobody ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_any_other_project_comes_from_the_proxy_with_all_that_is_beside_it(make: Make) -> None:
    world = await make()
    assert await world.files("six") == [SIX.filename]
    assert await _legacy(world.repository, SIX)
    for name, data in ((SIX.filename, SIX.data), (f"{SIX.filename}.metadata", SIX.metadata)):
        handle = await world.repository.file("six", f"sha256-{SIX.sha256}", name)
        assert await read(await handle.open()) == data
        handle.close()
    assert (world.repository.owners("six"), world.repository.owners("acme-app")) == (("pypi",), ("internal",))


@pytest_twisted.ensureDeferred
async def test_a_claim_counts_at_once_for_what_was_at_hand(make: Make) -> None:
    world = await make()
    await world.files("six")
    path = "six", f"sha256-{SIX.sha256}", SIX.filename
    await read(await (await world.repository.file(*path)).open())
    at_hand, handle = world.repository.page_at_hand("six"), await world.repository.file(*path)
    handle.close()
    assert at_hand is not None
    assert handle.is_current()
    assert handle.is_unchanged()
    await world.group.book.put([NameClaim("internal", "six", ClaimState.CLAIMED, 0.0, "ann")])
    assert world.repository.page_at_hand("six") is None
    assert (handle.is_current(), handle.is_unchanged()) == (False, False)
    with pytest.raises(NotFound):
        await world.repository.page("six")


@pytest.fixture
def second(make_upstream: Callable[..., FakeUpstream]) -> FakeUpstream:
    """Another upstream, with other files."""
    made = make_upstream()
    for each in (sdist("six", "9.0"), wheel("only-here")):
        made.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    return made


def proxies(*names: str, **group: Any) -> tuple[IndexSettings, ...]:
    """A proxy index for each of the upstreams ``up0``, ``up1``, …, and the group ``all`` of these, which is the default."""
    limits = PageLimits(soft_deadline=0.1)
    indexes = [
        IndexSettings(name=name, upstreams=(f"up{number}",), limits=limits, prefetch=False) for number, name in enumerate(names)
    ]
    settings = GroupSettings(**{"members": names, **group})
    return (*indexes, IndexSettings(name="all", kind="group", default=True, group=settings))


@pytest_twisted.ensureDeferred
async def test_the_first_proxy_that_has_a_project_counts(public: FakeUpstream, second: FakeUpstream, serve: Start) -> None:
    service = await serve(public, second, indexes=proxies("one", "two"))
    assert [each["filename"] for each in (await service.page("six"))["files"]] == [SIX.filename]
    assert second.asked == []
    path = await service.link("only-here", "only_here-1.0-py3-none-any.whl")
    assert (await service.get(path)).body == wheel("only-here").data
    assert (await service.get(f"{path}.metadata")).body == wheel("only-here").metadata
    assert (await service.get("/pypi/only-here/json")).json["info"]["name"] == "only-here"
    assert (await service.get("/simple/nowhere/", Accept=JSON)).status == 404


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_first_proxy_leads_nowhere(public: FakeUpstream, second: FakeUpstream, serve: Start) -> None:
    public.script("*six*", Fault(status=500))
    service = await serve(public, second, indexes=proxies("one", "two"))
    assert (await service.get("/simple/six/", Accept=JSON)).status == 503
    assert second.asked == []


@pytest_twisted.ensureDeferred
async def test_a_project_without_files_is_not_found_and_hides_the_one_behind_it(
    public: FakeUpstream, second: FakeUpstream, serve: Start
) -> None:
    public.remove_file("six", SIX.filename)
    service = await serve(public, second, indexes=proxies("one", "two"))
    reply = await service.get("/simple/six/", Accept=JSON)
    assert (reply.status, second.asked) == (404, [])
    assert "belongs to one" in reply.json["detail"]
    assert (await service.get("/index/one/simple/six/", Accept=JSON)).json["files"] == []
    assert (await service.get("/pypi/six/json")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_page_of_a_group_is_answered_at_once_the_next_time(public: FakeUpstream, serve: Start) -> None:
    service = await serve(public, indexes=proxies("one"))
    first = await service.get("/simple/six/", Accept=JSON)
    assert service.service.indexes["all"].repository.page_at_hand("six") is not None
    again = await service.get("/simple/six/", **{"Accept": JSON, "If-None-Match": first.headers["etag"]})
    assert (again.status, again.headers["etag"]) == (304, first.headers["etag"])
    assert first.headers["cache-control"] == (await service.get("/index/one/simple/six/", Accept=JSON)).headers["cache-control"]


@pytest_twisted.ensureDeferred
async def test_a_later_member_answers_at_once_as_long_as_earlier_ones_had_no_such_project_lately(
    public: FakeUpstream, second: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    service, moment = await serve(public, second, indexes=proxies("one", "two")), [1000.0]
    members = {name: service.service.indexes[name].repository for name in ("one", "two")}
    group = a_group(tmp_path, MemoryVersioned(), members, {}, steady=lambda: moment[0]).repository
    assert group.page_at_hand("only-here") is None
    view = await group.page("only-here")
    at_hand = group.page_at_hand("only-here")
    assert at_hand is not None
    assert at_hand.state == view.state
    moment[0] += 5.0
    assert group.page_at_hand("only-here") is None
    await group.page("only-here")
    assert group.page_at_hand("only-here") is not None


@pytest_twisted.ensureDeferred
async def test_a_group_of_groups_consists_of_their_members(public: FakeUpstream, second: FakeUpstream, serve: Start) -> None:
    indexes = (
        *proxies("one", "two", members=("inner", "one")),
        IndexSettings(name="inner", kind="group", group=GroupSettings(members=("two", "one"))),
    )
    service = await serve(public, second, indexes=indexes)
    assert service.service.indexes["all"].repository.leaves == ("two", "one")
    assert [each["filename"] for each in (await service.page("six"))["files"]] == ["six-9.0.tar.gz"]
    assert [each["filename"] for each in (await service.page("other"))["files"]] == [OTHER.filename]


# -- lists ---------------------------------------------------------------------------------------------------------------------


async def listed(repository: IRepository) -> list[str]:
    view = await repository.projects()
    return [each["name"] for each in json.loads(await read(await view.open(MediaType.JSON, "identity")))["projects"]]


@pytest_twisted.ensureDeferred
async def test_the_list_has_each_project_once_and_none_that_a_reserved_name_hides(make: Make, public: FakeUpstream) -> None:
    public.add_file("Acme.App", "Acme.App-98.tar.gz", b"in another spelling")
    world = await make()
    world.internal.put(wheel("acme-only"))
    await world.group.claimed("internal", "acme-only")
    assert sorted(await listed(world.repository)) == ["acme-app", "acme-only", "other", "six"]
    before = (await world.repository.projects()).state
    world.internal.remove("acme-app")
    assert sorted(await listed(world.repository)) == ["acme-only", "other", "six"]
    assert (await world.repository.projects()).state != before


@pytest_twisted.ensureDeferred
async def test_the_list_is_made_once_for_one_state_of_members_and_claims(make: Make, tmp_path: Path) -> None:
    world = await make()
    assert await listed(world.repository) == await listed(world.repository)
    states = [(await world.repository.projects()).state for _ in range(2)]
    made = {each.name: each.stat().st_ino for each in (tmp_path / "lists").iterdir()}
    await listed(world.repository)
    assert states[0] == states[1]
    assert made == {each.name: each.stat().st_ino for each in (tmp_path / "lists").iterdir()}
    await world.group.book.put([NameClaim("internal", "six", ClaimState.CLAIMED, 0.0, "ann")])
    assert "six" not in await listed(world.repository)
    assert not made.keys() & {each.name for each in (tmp_path / "lists").iterdir()}


@pytest_twisted.ensureDeferred
async def test_what_several_proxies_have_is_listed_once(public: FakeUpstream, second: FakeUpstream, serve: Start) -> None:
    service = await serve(public, second, indexes=proxies("one", "two"))
    reply = await service.get("/simple/", Accept=JSON)
    assert sorted(each["name"] for each in reply.json["projects"]) == ["acme-app", "acme-tool", "only-here", "other", "six"]
    assert (await service.get("/last-modified")).status == 200


@pytest_twisted.ensureDeferred
async def test_what_is_cached_in_a_group_is_what_its_clients_would_get(make: Make) -> None:
    world = await make()
    for project in ("acme-app", "acme-tool", "six"):
        await world.service.page(project, "/index/pypi")
    assert list(await world.repository.cached()) == ["acme-app", "six"]
    world.internal.remove("acme-app")
    assert list(await world.repository.cached()) == ["six"]


# -- names that are merged -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_merged_project_has_the_files_of_all_members(make: Make, public: FakeUpstream) -> None:
    public.add_file("acme-app", OURS.filename, b"of the same name")
    world = await make(merge=("acme-app",))
    page = await (await world.repository.page("acme-app")).load()
    assert [each.filename for each in page.files] == [OURS.filename, THEIRS.filename]
    for file, expected in zip(page.files, (OURS, THEIRS), strict=True):
        for name, data in ((file.filename, expected.data), (f"{file.filename}.metadata", expected.metadata)):
            handle = await world.repository.file("acme-app", segment(file), name)
            assert await read(await handle.open()) == data
            handle.close()
    document = await (await world.repository.document(LegacyName("acme-app", "99.0"))).load()
    assert document.page == page
    assert world.repository.owners("acme-app") == ("internal", "pypi")
    assert sorted(await listed(world.repository)) == ["acme-app", "other", "six"]
    hidden = f"sha256-{body_digest(b'of the same name')}"
    with pytest.raises(NotFound):
        await world.repository.file("acme-app", hidden, OURS.filename)


@pytest_twisted.ensureDeferred
async def test_a_merged_project_fails_with_any_member(make: Make, public: FakeUpstream) -> None:
    public.script("*acme-app*", Fault(status=500))
    world = await make(merge=("acme-app",))
    with pytest.raises(UpstreamFailed):
        await world.repository.page("acme-app")
    public.heal()
    world.internal.fails = True
    with pytest.raises(StorageFailed):
        await world.repository.page("acme-app")


@pytest_twisted.ensureDeferred
async def test_a_merged_project_that_only_one_member_has_is_that_members(make: Make, public: FakeUpstream) -> None:
    world = await make(merge=("acme-app", "six", "nowhere"))
    public.remove_project("acme-app")
    assert await world.files("acme-app") == [OURS.filename]
    assert await world.files("six") == [SIX.filename]
    with pytest.raises(NotFound):
        await world.repository.page("nowhere")


# -- names that are held -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("known_by", ["page", "list"])
async def test_a_new_name_that_the_proxy_is_known_to_serve_is_held(
    make: Make, public: FakeUpstream, logged: list[LogEvent], known_by: str
) -> None:
    world = await make()
    if known_by == "page":
        await world.repository.page("six")
    else:
        await listed(world.repository)
    asked = len(public.asked)
    world.internal.put(rebuilt := wheel("six", "1.0", seed=1, size=10))
    await world.group.claims.claim("internal", "six", "ann")
    assert len(public.asked) == asked
    said = world.group.claims.held("internal", "six") or ""
    assert "index pypi serves a project of that name" in said
    assert "pypiproxy claims add internal six" in said
    assert [formatEvent(each) for each in logged].count(said) == 1
    page = await (await world.repository.page("six")).load()
    assert [each.hashes["sha256"] for each in page.files] == [SIX.sha256]
    (own,) = (await (await world.internal.page("six")).load()).files
    assert own.hashes["sha256"] == rebuilt.sha256
    await world.group.book.put([NameClaim("internal", "six", ClaimState.CLAIMED, 0.0, "ann")])
    assert world.group.claims.held("internal", "six") is None
    page = await (await world.repository.page("six")).load()
    assert [each.hashes["sha256"] for each in page.files] == [rebuilt.sha256]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("project", "merge"), [("acme-tool", ()), ("six", ("six",)), ("new-here", ())], ids=["owned", "merged", "nobody's"]
)
async def test_a_name_about_which_nothing_is_to_be_decided_is_claimed_at_once(
    make: Make, project: str, merge: Collection[str]
) -> None:
    world = await make(merge=merge)
    await listed(world.repository)
    await world.group.claims.claim("internal", project, "ann")
    assert world.group.claims.held("internal", project) is None
    assert world.group.claims.claimed("internal", project)


@pytest_twisted.ensureDeferred
async def test_many_names_are_compared_with_what_is_cached_at_once(make: Make, public: FakeUpstream) -> None:
    world = await make()
    await world.repository.page("six")
    await listed(world.repository)
    asked = len(public.asked)
    names = ["acme-app", "acme-tool", "other", "six", *(f"new-{number}" for number in range(50))]
    found = await world.group.claims.colliding("internal", names)
    assert sorted(found) == ["other", "six"]
    assert len(public.asked) == asked
