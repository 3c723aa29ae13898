"""Whose rights count in a group with real members, when these have different readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from proxy.settings import AccessSettings, GrantSettings, GroupSettings, HostedSettings, IndexSettings, PageLimits
from tests.hosting import drop
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.logins import basic, write_users
from tests.support.wheels import Distribution, wheel

ALICE, BOB = basic("alice", "alice!"), basic("bob", "bob!")
OURS, THEIRS, SIX = wheel("acme-app", "1.0"), wheel("bought-lib", "1.0"), wheel("six", "1.16")


def reader(principal: str, *indexes: str) -> GrantSettings:
    return GrantSettings(role="reader", principals=(principal,), indexes=indexes)


@pytest.fixture
def access(tmp_path: Path) -> AccessSettings:
    """Alice and Bob have passwords."""
    return AccessSettings(users_file=write_users(tmp_path / "users", "alice", "bob"))


@pytest.fixture
def public(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    return upstream


@pytest.fixture
def vendor(make_upstream: Callable[..., FakeUpstream]) -> FakeUpstream:
    """Another upstream, whose files are not for everybody."""
    made = make_upstream()
    made.add_file("bought-lib", THEIRS.filename, THEIRS.data, metadata=THEIRS.metadata)
    return made


def paths(of: Distribution) -> list[str]:
    file = f"files/{of.project}/sha256-{of.sha256}/{of.filename}"
    return [f"/simple/{of.project}/", f"/{file}", f"/{file}.metadata", f"/pypi/{of.project}/json"]


async def statuses(proxy: Running, of: Distribution, **headers: str) -> set[int]:
    """What is answered for all that there is of *of*, twice: the second time it is known."""
    return {(await proxy.get(path, Accept=JSON, **headers)).status for path in paths(of) * 2}


def proxies(*members: str) -> tuple[IndexSettings, ...]:
    """The proxy indexes ``open`` and ``bought``, and the group of *members*."""
    limits = PageLimits(soft_deadline=0.1)
    return (
        IndexSettings(name="open", upstreams=("up0",), limits=limits, prefetch=False),
        IndexSettings(name="bought", upstreams=("up1",), limits=limits, prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=members)),
    )


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("members", [("open", "bought"), ("bought", "open")])
async def test_what_any_proxy_of_a_group_may_have_is_for_those_who_may_read_all_of_them(
    public: FakeUpstream, vendor: FakeUpstream, serve: Start, access: AccessSettings, members: tuple[str, ...]
) -> None:
    grants = (reader("user:alice", "bought"),)
    proxy = await serve(public, vendor, indexes=proxies(*members), access=access, grants=grants)
    # By the name alone nobody can tell which of them has a project; so the answer is that for one that does not exist.
    for each in (THEIRS, SIX, wheel("nowhere", "1.0")):
        assert await statuses(proxy, each) == {401}
        assert await statuses(proxy, each, Authorization=BOB) == {404}
    for each in (THEIRS, SIX):
        assert await statuses(proxy, each, Authorization=ALICE) == {200}
        assert await statuses(proxy, each, Authorization=BOB) == {404}
        assert await statuses(proxy, each) == {401}
    assert (await proxy.get("/index/open/simple/six/", Accept=JSON)).status == 200


@pytest_twisted.ensureDeferred
async def test_the_list_of_a_group_has_nothing_of_a_proxy_that_is_not_for_its_reader(
    public: FakeUpstream, vendor: FakeUpstream, serve: Start, access: AccessSettings
) -> None:
    grants = (reader("user:alice", "bought"),)
    proxy = await serve(public, vendor, indexes=proxies("open", "bought"), access=access, grants=grants)
    everything = await proxy.get("/simple/", Accept=JSON, Authorization=ALICE)
    assert {each["name"] for each in everything.json["projects"]} == {"bought-lib", "six"}
    for headers in ({}, {"Authorization": BOB}):
        assert b"bought-lib" not in (await proxy.get("/simple/", Accept=JSON, **headers)).body


def beside(*hosted: str) -> tuple[IndexSettings, ...]:
    """The *hosted* indexes and the proxy index ``pypi``, and all of them as a group."""
    return (
        *(IndexSettings(name=name, kind="hosted", hosted=HostedSettings()) for name in hosted),
        IndexSettings(name="pypi", upstreams=("up0",), limits=PageLimits(soft_deadline=0.1), prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=(*hosted, "pypi"))),
    )


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", paths(OURS))
@pytest.mark.parametrize(("headers", "expected"), [({}, 401), ({"Authorization": BOB}, 404), ({"Authorization": ALICE}, 200)])
async def test_the_first_who_asks_for_files_that_nobody_has_looked_at_needs_the_right_to_read_them(
    public: FakeUpstream,
    serve: Start,
    access: AccessSettings,
    tmp_path: Path,
    path: str,
    headers: dict[str, str],
    expected: int,
) -> None:
    drop(tmp_path / "data" / "hosted" / "internal", OURS)
    proxy = await serve(public, indexes=beside("internal"), access=access, grants=(reader("user:alice", "internal"),))
    first = await proxy.get(path, Accept=JSON, **headers)
    assert first.status == expected, first
    assert ("private" in first.headers.get("cache-control", "")) is (expected == 200)
    assert await statuses(proxy, OURS) == {401}
    assert await statuses(proxy, OURS, Authorization=BOB) == {404}
    assert await statuses(proxy, OURS, Authorization=ALICE) == {200}
