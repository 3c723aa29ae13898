"""What takes the place of a page that is kept: as a decision, and over HTTP with a stand-in and a changed upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.logger import LogEvent, formatEvent

from proxy.core import succession
from proxy.core.succession import CONFIRMED_AFTER, Candidate, Doubt, Doubts, doubt
from proxy.model import Head
from proxy.settings import PageLimits
from tests.inprocess import JSON, Running, upstream_settings
from tests.support.fake_upstream import FakeUpstream, Fault

Serve = Callable[..., Awaitable[Running]]

EXPIRES_AT_ONCE = PageLimits(ttl=0.0, soft_deadline=1.0)
KEPT = Head(True, "a", "https://a.example/simple/six/", 0.0, serial=10, asked="https://a.example/simple/six/")


@pytest.mark.parametrize(
    ("changes", "candidate", "expected"),
    [
        ({}, {}, None),
        ({"serial": 11}, {}, None),
        ({"serial": 9}, {}, Doubt.OLDER),
        ({"serial": None}, {}, None),
        ({"serial": 9, "asked": "https://new.example/simple/six/"}, {}, None),
        ({"serial": 9, "upstream": "b", "asked": "https://b.example/simple/six/"}, {}, Doubt.LAGS),
        ({"serial": 9, "upstream": "b", "asked": "https://b.example/simple/six/"}, {"preferred": True}, None),
        ({"upstream": "b"}, {"other_bytes": True}, Doubt.OTHER_BYTES),
        ({"upstream": "b"}, {"stands_in": True, "lacks_files": True}, Doubt.LACKS_FILES),
        ({"upstream": "b"}, {"stands_in": True}, None),
        ({"upstream": "b"}, {"lacks_files": True}, None),
        ({}, {"emptied": True}, Doubt.EMPTIED),
        ({"upstream": "b"}, {"emptied": True}, Doubt.EMPTIED),
    ],
)
def test_a_page_is_doubted_for_one_reason_or_taken(
    changes: dict[str, Any], candidate: dict[str, bool], expected: Doubt | None
) -> None:
    assert doubt(KEPT, replace(KEPT, **changes), Candidate(**candidate)) is expected


@pytest.mark.parametrize("kept", [None, replace(KEPT, found=False)])
def test_what_is_not_kept_is_not_defended(kept: Head | None) -> None:
    candidate = Candidate(stands_in=True, other_bytes=True, lacks_files=True, emptied=True)
    assert doubt(kept, replace(KEPT, serial=1, upstream="b"), candidate) is None


def test_what_may_be_true_is_believed_when_the_same_upstream_says_it_for_long_enough() -> None:
    doubts = Doubts()
    assert doubts.stands("six", Doubt.OLDER, "a", 0.0, forced=False)
    assert doubts.stands("six", Doubt.OLDER, "a", CONFIRMED_AFTER - 1, forced=False)
    assert doubts.stands("six", Doubt.OLDER, "b", CONFIRMED_AFTER, forced=False), "another one says it for the first time"
    assert not doubts.stands("six", Doubt.OLDER, "b", 2 * CONFIRMED_AFTER, forced=False)
    assert doubts.stands("six", Doubt.OLDER, "b", 2 * CONFIRMED_AFTER, forced=False), "the next time is another time"


def test_saying_something_else_in_between_begins_anew() -> None:
    doubts = Doubts()
    assert doubts.stands("six", Doubt.EMPTIED, "a", 0.0, forced=False)
    assert not doubts.stands("six", None, "a", 300.0, forced=False)
    assert doubts.stands("six", Doubt.EMPTIED, "a", CONFIRMED_AFTER, forced=False)


@given(st.sampled_from(Doubt), st.floats(0.0, 1e9))
def test_an_operator_is_believed_in_everything_but_other_bytes(doubted: Doubt, now: float) -> None:
    assert Doubts().stands("six", doubted, "a", now, forced=True) is (doubted is Doubt.OTHER_BYTES)


# -- over HTTP ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(make_upstream: Callable[..., FakeUpstream]) -> list[FakeUpstream]:
    """The preferred upstream with two releases, and a stand-in that lags one behind."""
    made = [make_upstream(), make_upstream()]
    for number, each in enumerate(made):
        for version in ("1.0", "2.0")[: 2 - number]:
            each.add_file("six", f"six-{version}.tar.gz", version.encode())
    return made


async def versions(proxy: Running) -> list[str]:
    return sorted(file["filename"][4:7] for file in (await proxy.page("six"))["files"])


@pytest_twisted.ensureDeferred
async def test_a_stand_in_that_lists_fewer_files_does_not_shrink_the_page(pair: list[FakeUpstream], run: Serve) -> None:
    proxy = await run(*pair, limits=EXPIRES_AT_ONCE)
    assert await versions(proxy) == ["1.0", "2.0"]
    path = await proxy.link("six", "six-2.0.tar.gz")
    assert (await proxy.get(path)).body == b"2.0"
    await pair[0].down()
    for _ in range(3):
        assert await versions(proxy) == ["1.0", "2.0"]
    assert (await proxy.get(path)).body == b"2.0"


@pytest_twisted.ensureDeferred
async def test_a_stand_in_that_has_all_files_and_more_is_taken(pair: list[FakeUpstream], run: Serve) -> None:
    for version in ("2.0", "3.0"):
        pair[1].add_file("six", f"six-{version}.tar.gz", version.encode())
    proxy = await run(*pair, limits=EXPIRES_AT_ONCE)
    assert await versions(proxy) == ["1.0", "2.0"]
    await pair[0].down()
    assert await versions(proxy) == ["1.0", "2.0", "3.0"]
    pair[0].up()


@pytest_twisted.ensureDeferred
async def test_a_new_url_under_the_same_name_is_asked_unconditionally_and_believed(
    pair: list[FakeUpstream], run: Serve
) -> None:
    for number, each in enumerate(pair):
        each.project("six").serial = 20 - number
    first = await run(upstream_settings(pair[0].url, "up0"), limits=EXPIRES_AT_ONCE)
    assert await versions(first) == ["1.0", "2.0"]
    await first.stop()
    second = await run(upstream_settings(pair[1].url, "up0"), limits=EXPIRES_AT_ONCE)
    assert await versions(second) == ["1.0"]
    assert "if-none-match" not in pair[1].asked[0].headers


@pytest_twisted.ensureDeferred
async def test_a_lower_serial_is_believed_when_an_operator_asks(
    upstream: FakeUpstream, run: Serve, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    upstream.project("six").serial = 20
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    assert await versions(proxy) == ["1.0"]
    upstream.add_file("six", "six-2.0.tar.gz", b"restored")
    upstream.project("six").serial = 10
    assert await versions(proxy) == ["1.0"]
    await proxy.service.proxied["pypi"].pages.refresh("six")
    assert await versions(proxy) == ["1.0", "2.0"]
    assert any("an operator asked for it" in formatEvent(each) for each in logged)


@pytest_twisted.ensureDeferred
async def test_a_page_that_loses_all_its_files_is_believed_when_it_is_confirmed(
    upstream: FakeUpstream, run: Serve, monkeypatch: pytest.MonkeyPatch, logged: list[LogEvent]
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    assert await versions(proxy) == ["1.0"]
    upstream.content.json = True
    upstream.script("/simple/six/", Fault(body=b'{"meta": {"api-version": "1.0"}, "name": "six", "files": []}'))
    assert await versions(proxy) == ["1.0"]
    monkeypatch.setattr(succession, "CONFIRMED_AFTER", 0.0)
    await proxy.service.proxied["pypi"].pages.refresh("six")
    assert await versions(proxy) == []
    assert any("has no files any more" in formatEvent(each) for each in logged)


@pytest_twisted.ensureDeferred
async def test_a_project_status_explains_an_empty_page(upstream: FakeUpstream, run: Serve) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    assert await versions(proxy) == ["1.0"]
    page = b'{"meta": {"api-version": "1.4"}, "name": "six", "files": [], "project-status": {"status": "archived"}}'
    upstream.script("/simple/six/", Fault(body=page))
    assert await versions(proxy) == []


@pytest.mark.parametrize("control", ["no-store", "no-cache", "max-age=0, private", "private, no-cache, no-store"])
@pytest_twisted.ensureDeferred
async def test_no_cache_control_makes_a_build_ask_for_the_same_page_again_and_again(
    upstream: FakeUpstream, run: Serve, control: str
) -> None:
    for number in range(30):
        upstream.add_file("six", f"six-{number}.tar.gz", b"%d" % number)
    upstream.script("/simple/*", Fault(headers={"Cache-Control": control}))
    proxy = await run(upstream)
    page = await proxy.get("/simple/six/", Accept=JSON)
    for file in page.json["files"]:
        assert (await proxy.get(urljoin("/simple/six/", file["url"]))).status == 200
    assert upstream.count("/simple/six/") == 1
    await upstream.down()
    assert (await proxy.get("/simple/six/")).status == 200


@pytest_twisted.ensureDeferred
async def test_files_are_found_on_an_expired_page_without_asking_for_it(upstream: FakeUpstream, run: Serve) -> None:
    for number in range(10):
        upstream.add_file("six", f"six-{number}.tar.gz", b"%d" % number)
    proxy = await run(upstream, limits=EXPIRES_AT_ONCE)
    page = await proxy.get("/simple/six/", Accept=JSON)
    for file in page.json["files"]:
        assert (await proxy.get(urljoin("/simple/six/", file["url"]))).status == 200
    assert upstream.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_a_304_without_cache_control_keeps_the_lifetime_that_was_stated(upstream: FakeUpstream, run: Serve) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"x")
    upstream.script("/simple/six/", Fault(headers={"Cache-Control": "max-age=60"}), times=1)
    upstream.script("/simple/six/", Fault(headers={"Cache-Control": None}))
    proxy = await run(upstream)
    assert "max-age=60" in (await proxy.get("/simple/six/", Accept=JSON)).headers["cache-control"]
    await proxy.service.proxied["pypi"].pages.refresh("six")
    head = await proxy.service.proxied["pypi"].pages.remembered("six")
    assert head is not None
    assert head.max_age in (60.0, None)
