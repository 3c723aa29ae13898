"""Dependency confusion: no name that belongs to a hosted index ever reaches upstream, in any spelling and on any route.

The whole service, over its sockets; a fake upstream has packages of the private names and records every request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.internet import reactor as default_reactor

from proxy.administration.parts import IndexParts
from proxy.composition.indexes import BuiltIndex
from proxy.errors import BadRequest, NotFound
from proxy.names import normalize
from proxy.settings import GroupSettings, HostedSettings, IndexSettings, PageLimits
from proxy.warm.looking import Goal, Warmed, look
from proxy.warm.progress import Quiet
from proxy.warm.targets import targets
from tests.inprocess import JSON, Running, Start
from tests.shelf import Shelf
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

OURS, OUR_TOOL = wheel("acme-app", "1.0"), wheel("acme-tool", "1.0")
#: What an attacker has put on the public index, and a public project that requires both.
THEIRS, THEIR_TOOL = wheel("acme-app", "99.0"), wheel("acme-tool", "99.0")
PUBLIC, DEEPER = wheel("public", requires=["acme-app", "Acme.Tool", "deeper"]), wheel("deeper")
#: ``acme-app`` is claimed, ``acme-tool`` matches a pattern.
SPELLINGS = ("acme-app", "Acme_App", "ACME.app", "acme--app", "acme-_.aPP", "acme-tool", "Acme.Tool")
#: Below an index: each route with the name of a project, and the names of its files.
ROUTES = (
    "simple/{project}/",
    "simple/{project}",
    "simple//{project}/",
    "files/{project}/{digest}/{file}",
    "files/{project}/{digest}/{file}.metadata",
    "files/{project}/{digest}/{file}.provenance",
    "files/{project}/none/{file}",
    "packages/{project}/{digest}/{file}",
    "packages/{project}/{digest}/{file}.metadata",
    "pypi/{project}/json",
    "pypi/{project}/99.0/json",
    "simple/pypi/{project}/json",
    "{project}/json",
    "{project}/",
)
HEADERS: tuple[Mapping[str, str], ...] = (
    {"Accept": JSON},
    {"Accept": "text/html", "Cache-Control": "no-cache"},
    {"Range": "bytes=0-99"},
    {"User-Agent": "Mozilla/5.0", "Accept": "text/html,application/xhtml+xml"},
)
STATES = ("there", "emptied", "removed", "failing")


class World(Struct):
    """The group ``all``, which is the default index, of the shelf *internal* and the proxy index ``pypi``."""

    proxy: Running
    internal: Shelf
    upstream: FakeUpstream

    def told(self) -> list[str]:
        """The targets of requests that told upstream a private name."""
        targets = [unquote(each.path) for each in self.upstream.asked]
        return [each for each in targets if "acme-" in normalize(each.replace("/", " / "))]

    async def follow(self, path: str, method: str, headers: Mapping[str, str]) -> wire.Reply:
        """The answer to a request, redirects followed."""
        for _ in range(4):
            reply = await self.proxy.fetch(path, method, **headers)
            if reply.status not in (302, 307):
                break
            path = urljoin(path, reply.headers["location"])
        return reply


Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(upstream: FakeUpstream, serve: Start) -> Make:
    """Makes a `World` in which the internal index has claimed ``acme-app``, with *state* being how it is by then."""
    for each in (THEIRS, THEIR_TOOL, PUBLIC, DEEPER):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)

    async def make(state: str = "there", *, prefetch: bool = False) -> World:
        internal = Shelf("internal", OURS, OUR_TOOL)
        hosted = HostedSettings(owns=("acme-t*",))
        limits = PageLimits(soft_deadline=0.1)
        indexes = (
            IndexSettings(name="internal", kind="hosted", hosted=hosted),
            IndexSettings(name="pypi", upstreams=("up0",), limits=limits, prefetch=prefetch),
            IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=("internal", "pypi"))),
        )
        built = BuiltIndex(IndexParts(internal, internal), closing=())
        proxy = await serve(upstream, indexes=indexes, kinds={"hosted": lambda index, members: built})
        await proxy.service.claims.claim("internal", "acme-app", "a test")
        if state == "emptied":
            internal.empty("acme-app")
            internal.empty("acme-tool")
        elif state == "removed":
            internal.remove("acme-app")
            internal.remove("acme-tool")
        internal.fails = state == "failing"
        return World(proxy, internal, upstream)

    return make


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_route_tells_upstream_a_private_name(make: Make, spelling: str, state: str) -> None:
    world = await make(state)
    theirs, ours = (THEIRS, OURS) if "pp" in spelling.lower() else (THEIR_TOOL, OUR_TOOL)
    for root in ("/", "/index/all/"):
        for route in ROUTES:
            for of in (theirs, ours):
                path = root + route.format(project=spelling, digest=f"sha256-{of.sha256}", file=of.filename)
                for headers in HEADERS:
                    reply = await world.follow(path, "GET", headers)
                    assert theirs.data not in reply.body
                    assert reply.status != 200 or b"99.0" not in reply.body
                    assert reply.status == 503 or state != "failing" or reply.status == 404
                await world.follow(path, "HEAD", HEADERS[0])
    assert world.told() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("state", STATES)
async def test_a_private_project_is_served_or_is_an_error(make: Make, state: str) -> None:
    world = await make(state)
    status = {"there": 200, "failing": 503}.get(state, 404)
    for path in ("/simple/acme-app/", "/simple/acme-tool/", "/pypi/acme-app/json"):
        assert (await world.proxy.get(path, Accept=JSON)).status == status
    file = f"/files/acme-app/sha256-{OURS.sha256}/{OURS.filename}"
    for path in (file, f"{file}.metadata"):
        assert (await world.proxy.get(path)).status == status
    assert world.told() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("state", STATES)
async def test_lists_have_no_public_project_of_a_private_name(make: Make, state: str) -> None:
    world = await make(state)
    for path in ("/simple/", "/index/all/simple/"):
        for headers in HEADERS[:2]:
            reply = await world.proxy.get(path, **headers)
            if state == "failing":
                assert reply.status == 503
                continue
            assert reply.status == 200
            assert b"deeper" in reply.body
            assert reply.body.count(b"acme-app") == (0 if state == "removed" else 1 if headers is HEADERS[0] else 2)
    await world.proxy.get("/simple/", **HEADERS[3])
    assert world.told() == []


@pytest_twisted.ensureDeferred
async def test_the_proxy_index_itself_still_has_what_is_public(make: Make) -> None:
    """Whoever asks that index asks for the public package."""
    world = await make()
    assert [each["filename"] for each in (await world.proxy.page("acme-app", "/index/pypi"))["files"]] == [THEIRS.filename]
    assert [each["filename"] for each in (await world.proxy.page("acme-app"))["files"]] == [OURS.filename]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("index", ["", "/index/pypi"])
async def test_a_public_project_that_requires_a_private_one_has_nothing_prefetched_of_it(make: Make, index: str) -> None:
    world = await make(prefetch=True)
    await world.proxy.page("public", index)
    await world.upstream.arrived("*deeper*")  # it is required last
    assert world.told() == []


@pytest_twisted.ensureDeferred
async def test_warming_a_public_project_that_requires_private_ones_takes_them_from_the_group(
    make: Make, tmp_path: Path
) -> None:
    world = await make(prefetch=True)
    goal = Goal(requirements=("public",), targets=tuple(targets((), (), "cp")))
    warmed = Warmed(world.proxy.url, world.proxy.service.administration.perform)
    report = await look(goal, warmed, tmp_path, Quiet(), default_reactor)
    assert report.failures == []
    assert {each.filename for each in report.there} == {each.filename for each in (PUBLIC, DEEPER, OURS, OUR_TOOL)}
    assert world.told() == []


async def asked(world: World, operation: str, **arguments: Any) -> Any:
    return await world.proxy.service.administration.perform(operation, **arguments)


@pytest_twisted.ensureDeferred
async def test_operators_do_not_tell_upstream_a_private_name_by_accident(make: Make) -> None:
    world = await make()
    for project in ("Acme_App", "acme.tool"):
        for index in (None, "pypi"):
            with pytest.raises(BadRequest, match="belongs to a hosted index in a group with pypi"):
                await asked(world, "refresh", project=project, index=index)
    with pytest.raises(BadRequest):
        await asked(world, "refresh", project="acme-app", index="all")
    with pytest.raises(NotFound):
        await asked(world, "purge", project="acme-app")
    assert world.told() == []
    assert (await asked(world, "refresh", project="public"))[0]["outcome"] == "new"


@pytest_twisted.ensureDeferred
async def test_what_was_public_before_a_claim_is_neither_warmed_nor_fetched_again(make: Make, upstream: FakeUpstream) -> None:
    world = await make()
    before = wheel("later-ours")
    upstream.add_file("later-ours", before.filename, before.data)
    assert (await world.proxy.get(await world.proxy.link("later-ours", before.filename))).body == before.data
    assert await asked(world, "recent", seconds=3600.0) == ["later-ours"]
    await asked(world, "claim_add", index="internal", projects=["later-ours"])
    assert await asked(world, "recent", seconds=3600.0) == []
    assert await world.proxy.service.storage.files.delete(before.sha256)
    requests = len(upstream.asked)
    summary = await asked(world, "verify", repair=True)
    assert len(upstream.asked) == requests
    assert summary
    assert (await world.proxy.get("/simple/later-ours/", Accept=JSON)).status == 404
