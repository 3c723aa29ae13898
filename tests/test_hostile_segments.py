"""No text of a client reaches upstream that is not what it claims to be: every position of every route."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from proxy.commands import asking
from proxy.names import UNSTATED, is_project_name
from proxy.settings import PageLimits
from proxy.warm.inputs import read_arguments, read_input
from proxy.web.routes import CLAIMS
from proxy.web.site import CHANGING, ROUTES
from tests.inprocess import Running, Start, upstream_settings
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

SIX = wheel("six", "1.0")
SHA256 = SIX.sha256
#: What is right at each place.
RIGHT = {
    "{project}": "six",
    "{version}": "1.0",
    "{digest}": f"sha256-{SHA256}",
    "{file}": SIX.filename,
    "{day}": "2026-01-01.bz2",
}

#: Segments as they stand in a request, and where they are right after all.
HOSTILE = {
    "nothing": "",
    "here": ".",
    "up": "..",
    "up, encoded": "%2e%2e",
    "up, encoded twice": "%252e%252e",
    "out of the folder": "..%2F..%2Fapi%2Fsecret%23",
    "out of the folder, upper case": "..%2f..%2fapi%2fsecret%3f",
    "out of the folder, encoded twice": "..%252F..%252Fapi%252Fsecret%2523",
    "with slashes": "a%2Fb",
    "another host": "%2F%2Fevil.example%2F",
    "a URL": "http:%2F%2Fevil.example%2F",
    "backslashes": "..%5C..%5Capi",
    "NUL": "six%00",
    "CR LF": "six%0D%0AX-Injected:%201",
    "a query": "six%3Ftoken=1",
    "a query as it is": "six?token=1",
    "a fragment": "six%23",
    "a parameter": "six;a=b",
    "user information": "a:b@six",
    "a space": "six%20six",
    "white space alone": "%20",
    "a dotless i": "s%C4%B1x",
    "a long s": "%C5%BFix",
    "a full-width slash": "six%EF%BC%8F..%EF%BC%8Fapi",
    "a full-width dot": "%EF%BC%8E%EF%BC%8E",
    "half a surrogate pair": "%ED%A0%80",
    "no UTF-8": "%FF%FE",
    "right to left": "six%E2%80%AExis",
    "broken encoding": "six%2",
    "percent signs": "%25%25",
    "a dash first": "-six",
    "a dot last": "six.",
    "a star": "*",
    "overlong": "a" * 5000,
    "longer than any name": "a" * 260,
    "many digits": "1" * 5000,
    "an unknown digest": "crc32-12345678",
    "a short digest": "sha256-abcd",
    "a long digest": f"sha256-{SHA256}00",
    "a digest in upper case": f"sha256-{SHA256.upper()}",
    "a digest that is none": "md5-" + "g" * 32,
    "a shell's words": "$(id)",
    "markup": "%3Cscript%3E",
}

PLACES = [(route, place) for route in ROUTES for place in CLAIMS if place in route]
#: What upstream may be asked for.
WELL_FORMED = re.compile(
    r"/simple/|/last-modified"
    r"|/simple/[a-z0-9]+(-[a-z0-9]+)*/"
    r"|/pypi/[a-z0-9]+(-[a-z0-9]+)*(/[A-Za-z0-9][A-Za-z0-9._+!-]*)?/json"
    r"|/packages/six/[^/]+"
)


@pytest.fixture
def secretive(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream with something beside its index that is for those with credentials."""
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    upstream.add_path("/api/secret", b'{"secret": "of others"}', "application/json")
    return upstream


async def ask_all(proxy: Running, root: str, route: str, place: str) -> dict[str, Any]:
    """The answers to *route* with each hostile segment at *place*, everything else being right."""
    found = {}
    clients = wire.KeptConnections(proxy.port)
    for name, segment in HOSTILE.items():
        path = route
        for each, right in RIGHT.items():
            path = path.replace(each, segment if each == place else quote(right))
        found[name] = await clients.fetch(f"{root}/{path}", Authorization="Basic eDp5")
    await clients.close()
    return found


@pytest.mark.parametrize(("route", "place"), PLACES, ids=[f"{route} {place}" for route, place in PLACES])
@pytest.mark.parametrize("root", ["", "/index/pypi"])
@pytest_twisted.ensureDeferred
async def test_hostile_segments_are_404_and_upstream_is_asked_for_nothing_odd(
    secretive: FakeUpstream, run: Start, route: str, place: str, root: str
) -> None:
    proxy = await run(upstream_settings(secretive.url, username="proxy", password="secret"))
    for name, reply in (await ask_all(proxy, root, route, place)).items():
        assert b"of others" not in reply.body, name
        assert "x-injected" not in reply.headers, name
        if CLAIMS[place](unquote(HOSTILE[name].partition("?")[0], errors="replace")):
            assert reply.status in ((404, 405) if route in CHANGING else (200, 307, 404)), (name, reply)
        elif HOSTILE[name]:
            assert reply.status == 404, (name, reply)
        else:
            assert reply.status in (200, 307, 404), (name, reply)  # without its segment it is another route
    odd = [each.path for each in secretive.asked if not WELL_FORMED.fullmatch(each.path)]
    assert odd == []


@pytest.mark.parametrize("root", ["", "/index/pypi"])
@pytest_twisted.ensureDeferred
async def test_installers_are_redirected_to_names_and_nothing_else(secretive: FakeUpstream, run: Start, root: str) -> None:
    proxy = await run(secretive)
    for name, segment in HOSTILE.items():
        reply = await proxy.get(f"{root}/{segment}/", Accept="application/vnd.pypi.simple.v1+json", User_Agent="pip/26.3")
        if reply.status == 307:
            assert re.fullmatch(r"\.\./simple/[a-z0-9]+(-[a-z0-9]+)*/", reply.headers["location"]), name
        else:
            assert reply.status == 404, name
            assert len(reply.body) < 2000
    assert secretive.asked == []


@pytest_twisted.ensureDeferred
async def test_hostile_names_of_indexes_and_operations_ask_nobody(secretive: FakeUpstream, run: Start) -> None:
    proxy = await run(secretive)
    for path in [each.format(name) for name in HOSTILE.values() for each in ("/index/{}/simple/six/", "/-/{}", "/index/{}")]:
        reply = await proxy.get(path)
        assert reply.status == (200 if path in ("/-/", "/index/") else 404), reply
        assert len(reply.body) < 2000
    assert secretive.asked == []


@pytest_twisted.ensureDeferred
async def test_what_is_no_name_is_refused_before_anybody_is_asked(secretive: FakeUpstream, run: Start, data_dir: Path) -> None:
    proxy = await run(secretive, limits=PageLimits(negative_ttl=0.0))
    paths = [
        "/simple/..%2Fsecret/",
        "/pypi/six/..%2F..%2Fapi%2Fsecret%23/json",
        "/pypi/..%2Fapi/json",
        "/..%2Fapi/json",
        f"/files/six/sha256-abcd/{SIX.filename}",
        f"/files/six/sha512-{SHA256}/{SIX.filename}",
        f"/files/six/SHA256-{SHA256}/{SIX.filename}",
        f"/files/six//{SIX.filename}",
        f"/files/six/sha256-{SHA256}/..%2Fsecret",
        f"/files/six/sha256-{SHA256}/{'a' * 256}",
        f"/packages/{'a' * 247}/none/six.zip",
        f"/simple/{'a' * 247}/",
        f"/pypi/six/{'1' * 247}/json",
    ]
    for path in paths:
        assert (await proxy.get(path)).status == 404, path
    assert secretive.asked == []


@pytest_twisted.ensureDeferred
async def test_names_up_to_the_limits_are_asked_for(secretive: FakeUpstream, run: Start) -> None:
    proxy = await run(secretive)
    longest = "a" * 246
    for path in (f"/simple/{longest}/", f"/files/{longest}/{UNSTATED}/{'a' * 255}.metadata", f"/pypi/{longest}/json"):
        assert (await proxy.get(path)).status == 404, path
    assert secretive.count(f"/simple/{longest}/") == 2  # for JSON, then for HTML
    for version in ("1.0", "2004b", "1!2.0+local.1", "0.1dev-r1716"):
        await proxy.get(f"/pypi/six/{quote(version, safe='')}/json")
    assert {each.path for each in secretive.asked if each.path.startswith("/pypi/six/")} == {
        "/pypi/six/1.0/json",
        "/pypi/six/2004b0/json",
        "/pypi/six/1!2.0+local.1/json",
        "/pypi/six/0.1dev-r1716/json",
    }


@pytest_twisted.ensureDeferred
async def test_spellings_of_one_version_are_asked_for_once(secretive: FakeUpstream, run: Start) -> None:
    proxy = await run(secretive)
    answers = [await proxy.get(f"/pypi/six/{each}/json") for each in ("1.0", "v1.0", "01.0", "0!1.0", "1.00")]
    assert [each.status for each in answers] == [200] * 5
    assert secretive.count("/pypi/*") == 1


# -- operators and their files ------------------------------------------------------------------------------------------------

OPERATIONS = [
    ("purge", {"project": "{}"}),
    ("purge", {"project": "six", "which": "{}"}),
    ("purge", {"project": "six", "index": "{}"}),
    ("refresh", {"project": "{}", "index": "pypi"}),
    ("pin", {"project": "{}"}),
    ("pin", {"project": "six", "which": "{}"}),
    ("unpin", {"project": "{}", "which": "{}"}),
    ("ls", {"project": "{}"}),
    ("ls", {"index": "{}"}),
    ("pins", {"index": "{}"}),
    ("upstreams", {"index": "{}"}),
]


@pytest.mark.parametrize(("operation", "arguments"), OPERATIONS, ids=[f"{name} {keys}" for name, keys in OPERATIONS])
@pytest_twisted.ensureDeferred
async def test_what_operators_write_is_a_name_or_refused(
    secretive: FakeUpstream, run: Start, tmp_path: Path, operation: str, arguments: dict[str, str]
) -> None:
    await run(secretive)
    texts = [unquote(each, errors="replace") for each in HOSTILE.values()]
    odd: list[Any] = [each for each in texts if not is_project_name(each)]
    for value in [*odd, 5, 1e300, True, ["six"], {"a": 1}]:
        given = {name: value if text == "{}" else text for name, text in arguments.items()}
        with pytest.raises(asking.OperationFailed) as refused:
            await deferToThread(asking.ask, tmp_path / "data", operation, given, lambda said: None)
        assert "fault of its own" not in str(refused.value), value
    assert [each.path for each in secretive.asked if not WELL_FORMED.fullmatch(each.path)] == []


@pytest.mark.parametrize("name", ["../../api/secret#", "a?b", "a/b", "", "x" * 300, "a\nb"])
def test_a_lock_file_names_projects_and_nothing_else(tmp_path: Path, name: str) -> None:
    lock = tmp_path / "uv.lock"
    package = f'name = {json.dumps(name)}\nversion = "1.0"\nsource = {{ registry = "https://pypi.example/simple" }}'
    lock.write_text(f"version = 1\n[[package]]\n{package}\n")
    group = read_input(lock)
    assert group.locked == []
    assert "is no name of a project" in str(group.problems[0])


def test_a_version_of_5000_digits_is_a_problem_of_its_file(tmp_path: Path) -> None:
    lock = tmp_path / "uv.lock"
    package = f'name = "six"\nversion = "{"1" * 5000}"\nsource = {{ registry = "https://pypi.example/simple" }}'
    lock.write_text(f"version = 1\n[[package]]\n{package}\n")
    assert "which is none (PEP 440)" in str(read_input(lock).problems[0])


def test_a_url_in_a_requirement_is_shown_without_its_secrets() -> None:
    group = read_arguments(("six @ https://user:hunter2@host.example/six.zip?token=hunter2",))
    assert "hunter2" not in str(group.problems[0])
