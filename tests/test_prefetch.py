"""What is asked for ahead of the clients: metadata of the newest release, pages of what that requires, older releases."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from packaging.version import Version
from twisted.internet.defer import CancelledError, Deferred

from proxy.model import File, Page
from proxy.repository.prefetch import newest_final, next_wanted, requirements, series
from proxy.settings import IndexSettings, PageLimits, UpstreamSettings
from tests.inprocess import Start, upstream_settings
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

AHEAD = (IndexSettings(name="pypi", upstreams=("up0",), default=True, limits=PageLimits(soft_deadline=0.1)),)
OLD, NEW = wheel("six", "1.9"), wheel("six", "1.10")


def patient(upstream: FakeUpstream, **settings: Any) -> UpstreamSettings:
    """Settings that bear it when answers are held back while a busy machine is slow."""
    return upstream_settings(upstream.url, "up0", first_byte_timeout=60.0, **settings)


@pytest.fixture
def six(upstream: FakeUpstream) -> FakeUpstream:
    for each in (OLD, NEW):
        upstream.add_file("six", each.filename, each.data, metadata=each.metadata)
    return upstream


@pytest_twisted.ensureDeferred
async def test_the_newest_metadata_is_there_when_it_is_asked_for(six: FakeUpstream, run: Start) -> None:
    proxy = await run(patient(six), indexes=AHEAD)
    path = await proxy.link("six", NEW.filename) + ".metadata"
    await six.until(lambda: six.answered == 2)
    assert [each.path.endswith(f"{NEW.filename}.metadata") for each in six.asked] == [False, True]
    assert (await proxy.get(path)).body == NEW.metadata
    await proxy.page("six")
    assert len(six.asked) == 2


@pytest_twisted.ensureDeferred
async def test_a_client_that_asks_meanwhile_shares_the_request(six: FakeUpstream, run: Start) -> None:
    gate = six.hold("*.metadata")
    proxy = await run(patient(six), indexes=AHEAD)
    path = await proxy.link("six", NEW.filename) + ".metadata"
    await six.arrived("*.metadata")
    client = await proxy.connect(path)
    gate.release()
    assert (await client.reply()).body == NEW.metadata
    assert six.count("*.metadata") == 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=404), Fault(silent=True)], ids=["500", "404", "silent"])
async def test_when_it_fails_the_page_is_as_good_as_ever(six: FakeUpstream, run: Start, fault: Fault) -> None:
    six.script("*.metadata", fault)
    proxy = await run(patient(six), indexes=AHEAD)
    assert len((await proxy.page("six"))["files"]) == 2
    await six.arrived("*.metadata")
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_an_older_release_that_is_asked_for_is_not_waited_for(six: FakeUpstream, run: Start) -> None:
    gate = six.hold(f"*{NEW.filename}.metadata")
    proxy = await run(patient(six), indexes=AHEAD)
    path = await proxy.link("six", OLD.filename) + ".metadata"
    assert (await proxy.get(path)).body == OLD.metadata
    gate.release()


# -- the tree of dependencies -----------------------------------------------------------------------------------------------


def add(upstream: FakeUpstream, project: str, *requires: str, version: str = "1.0") -> str:
    """A wheel; the name of its file."""
    made = wheel(project, version, requires=requires)
    upstream.add_file(project, made.filename, made.data, metadata=made.metadata)
    return made.filename


def pages(upstream: FakeUpstream) -> list[str]:
    """The projects whose pages were asked for, sorted."""
    return sorted(each.path.split("/")[2] for each in upstream.asked if each.path.startswith("/simple/"))


@pytest_twisted.ensureDeferred
async def test_what_the_newest_release_requires_is_there_too_down_to_the_leaves(upstream: FakeUpstream, run: Start) -> None:
    add(upstream, "app", "never; extra == 'dev'", "Some.Lib>=1")
    add(upstream, "some-lib", "leaf", "app")
    add(upstream, "leaf", "never; python_version < '3'")
    proxy = await run(patient(upstream), indexes=AHEAD)
    await proxy.page("app")
    await upstream.until(lambda: upstream.answered == 6)
    assert pages(upstream) == ["app", "leaf", "some-lib"]
    assert upstream.count("*.metadata") == 3
    for project in ("app", "leaf", "some-lib"):
        path = await proxy.link(project, f"{project.replace('-', '_')}-1.0-py3-none-any.whl") + ".metadata"
        assert (await proxy.get(path)).status == 200
    assert upstream.answered == 6


@pytest_twisted.ensureDeferred
async def test_what_is_known_is_not_asked_for_again(upstream: FakeUpstream, run: Start) -> None:
    add(upstream, "lib", "leaf")
    upstream.script("/simple/gone/", Fault(status=404))
    proxy = await run(patient(upstream), indexes=AHEAD)
    await proxy.page("lib")
    await upstream.arrived("/simple/leaf/")
    assert (await proxy.get("/simple/gone/")).status == 404
    add(upstream, "app", "gone", "lib", "last")
    await proxy.page("app")
    await upstream.arrived("/simple/last/")
    assert pages(upstream) == ["app", "gone", "last", "leaf", "lib"]


@pytest_twisted.ensureDeferred
async def test_hundreds_of_requirements_that_are_known_already_are_passed_over(upstream: FakeUpstream, run: Start) -> None:
    names = [f"lib{number}" for number in range(450)]
    upstream.script("/simple/lib*", Fault(status=404))
    add(upstream, "first")
    proxy = await run(patient(upstream), indexes=AHEAD)
    await proxy.page("first")  # an upstream that never had a page is asked for HTML as well
    for name in names:
        assert (await proxy.get(f"/simple/{name}/")).status == 404
    gate = upstream.hold("/simple/slow*")
    add(upstream, "app", *(f"slow{number}" for number in range(16)), *names, "last")
    await proxy.page("app")
    await upstream.arrived("/simple/slow*", 16)
    gate.release()
    await upstream.arrived("/simple/last/")
    assert len(pages(upstream)) == 1 + 450 + 16 + 2


@pytest_twisted.ensureDeferred
async def test_clients_of_two_platforms_do_not_confuse_each_other(upstream: FakeUpstream, run: Start) -> None:
    for number in range(12):
        for tag in ("cp311-cp311-win32", "cp312-cp312-win32"):
            made = wheel("many", f"1.{number}")
            name = made.filename.replace("py3-none-any", tag)
            upstream.add_file("many", name, made.data + tag.encode(), metadata=made.metadata)
    proxy = await run(patient(upstream), indexes=AHEAD)

    async def ask(number: int, tag: str) -> None:
        path = await proxy.link("many", f"many-1.{number}-{tag}.whl") + ".metadata"
        assert (await proxy.get(path)).status == 200

    for number in (11, 10):
        await ask(number, "cp311-cp311-win32")
        await ask(3, "cp312-cp312-win32")
    await upstream.until(lambda: upstream.answered == 1 + 5)
    asked = [each.path.rpartition("/")[2] for each in upstream.asked[1:]]
    assert sorted(each.split("-")[1] + each.split("-")[2] for each in asked) == sorted(
        ["1.11cp311", "1.3cp312", "1.10cp311", "1.9cp311", "1.8cp311"]
    )


@pytest_twisted.ensureDeferred
async def test_when_upstream_fails_no_more_is_asked_ahead(upstream: FakeUpstream, run: Start) -> None:
    add(upstream, "app", *(f"lib{number}" for number in range(40)))
    upstream.script("/simple/lib*", Fault(status=500))
    gate = upstream.hold("/simple/lib*")
    proxy = await run(patient(upstream), indexes=AHEAD)
    await proxy.page("app")
    await upstream.arrived("/simple/lib*", 16)
    gate.release()
    await upstream.until(lambda: upstream.answered >= 2 + 16)
    upstream.heal()
    assert (await proxy.get("/simple/app/")).status == 200
    assert len(set(pages(upstream))) == 1 + 16


@pytest_twisted.ensureDeferred
async def test_while_requests_wait_for_their_turn_nothing_is_asked_ahead(upstream: FakeUpstream, run: Start) -> None:
    """One request in a hundred seconds, and the first has been."""
    add(upstream, "app")
    proxy = await run(upstream_settings(upstream.url, "up0", max_rate=0.01), indexes=(replace(AHEAD[0], prefetch=False),))
    upstreams = proxy.service.proxied["pypi"].upstreams
    await proxy.page("app")
    assert upstreams.spare()
    waiting = Deferred.fromCoroutine(upstreams.page("other", None))
    assert not upstreams.spare()
    waiting.cancel()
    with pytest.raises(CancelledError):
        await waiting
    assert upstreams.spare()


@pytest_twisted.ensureDeferred
async def test_clients_go_first_where_connections_are_few(upstream: FakeUpstream, run: Start) -> None:
    """Of two connections one may be for files."""
    for project in ("lib", "app", "other", "more"):
        add(upstream, project)
    gate = upstream.hold("*app*.metadata")
    proxy = await run(patient(upstream, max_connections=2), indexes=AHEAD)
    states = proxy.service.proxied["pypi"].upstreams.states
    wheel_path = await proxy.link("lib", "lib-1.0-py3-none-any.whl")
    await upstream.arrived("*lib*.metadata")
    await proxy.page("app")
    await upstream.arrived("*app*.metadata")
    while not states()[0].waiting:
        await proxy.page("other")
    await proxy.page("more")
    client = await proxy.connect(wheel_path)
    while states()[0].waiting < 2:
        await proxy.page("other")
    gate.release()
    assert (await client.reply()).status == 200
    await upstream.arrived("*more*.metadata")
    files = [each.path.rpartition("/")[2].partition("-")[0] for each in upstream.asked if each.path.startswith("/packages/")]
    assert files == ["lib", "app", "other", "lib", "more"]


# -- back through the releases ----------------------------------------------------------------------------------------------


@pytest.fixture
def many(upstream: FakeUpstream) -> FakeUpstream:
    """Releases 1.0 to 1.29 of one project."""
    for number in range(30):
        add(upstream, "many", version=f"1.{number}")
    return upstream


def numbers(upstream: FakeUpstream) -> list[int]:
    """The releases whose metadata was asked for, in that order."""
    paths = [each.path for each in upstream.asked if each.path.endswith(".metadata")]
    return [int(path.rpartition("many-1.")[2].partition("-")[0]) for path in paths]


async def resolve(proxy: Any, *asked: int) -> None:
    """What a resolver does that tries these releases, one after the other."""
    for number in asked:
        path = await proxy.link("many", f"many-1.{number}-py3-none-any.whl") + ".metadata"
        assert f"Version: 1.{number}\n".encode() in (await proxy.get(path)).body


@pytest_twisted.ensureDeferred
async def test_ahead_of_a_resolver_that_goes_back_the_next_releases_are_fetched(many: FakeUpstream, run: Start) -> None:
    proxy = await run(patient(many), indexes=AHEAD)
    await resolve(proxy, 29)
    assert numbers(many) == [29]
    await resolve(proxy, 28)
    await many.until(lambda: many.answered == 1 + 4)
    assert sorted(numbers(many)) == [26, 27, 28, 29]
    await resolve(proxy, 27)
    await many.until(lambda: many.answered == 1 + 7)
    assert sorted(numbers(many)) == [23, 24, 25, 26, 27, 28, 29]
    await resolve(proxy, 26, 25, 24, 23)
    await many.until(lambda: many.answered == 1 + 15)
    assert sorted(numbers(many)) == list(range(15, 30))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("asked", [(29, 3, 2), (3, 9, 15), (7,), (29, 29)], ids=["a leap", "forward", "one", "the same"])
async def test_who_does_not_go_back_gets_what_was_asked_for(many: FakeUpstream, run: Start, asked: tuple[int, ...]) -> None:
    proxy = await run(patient(many), indexes=AHEAD)
    await resolve(proxy, *asked[:2])
    await many.until(lambda: 29 in numbers(many))  # what follows the page
    assert set(numbers(many)) == {29, *asked[:2]}


@pytest_twisted.ensureDeferred
async def test_the_way_back_ends_at_the_oldest_release(many: FakeUpstream, run: Start) -> None:
    proxy = await run(patient(many), indexes=AHEAD)
    await resolve(proxy, 2, 1, 0)
    await many.until(lambda: 29 in numbers(many))
    assert set(numbers(many)) == {29, 2, 1, 0}


# -- choices ----------------------------------------------------------------------------------------------------------------


def file(filename: str, **keys: Any) -> File:
    return File(filename, f"https://files.example/{filename}", {"sha256": "a" * 64}, **{"core_metadata": True, **keys})


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            [file("x-1.0-py3-none-any.whl"), file("x-1.10-py3-none-any.whl"), file("x-1.9-py3-none-any.whl")],
            "x-1.10-py3-none-any.whl",
        ),
        ([file("x-1.0-py3-none-any.whl"), file("x-2.0rc1-py3-none-any.whl")], "x-1.0-py3-none-any.whl"),
        ([file("x-1.0-py3-none-any.whl"), file("x-2.0-py3-none-any.whl", yanked=True)], None),
        ([file("x-1.0-cp312-cp312-win_amd64.whl"), file("x-1.0-py3-none-any.whl")], None),
        ([file("x-1.0-py3-none-any.whl", core_metadata=None)], None),
        ([file("x-1.0.tar.gz"), file("odd.whl")], None),
        ([], None),
    ],
    ids=["newest", "final", "not yanked", "a choice", "not offered", "no wheel", "nothing"],
)
def test_only_what_surely_comes_next_is_wanted(files: list[File], wanted: str | None) -> None:
    versions = tuple({each.filename.removesuffix(".tar.gz").split("-")[1] for each in files if "-" in each.filename})
    found = next_wanted(Page("x", tuple(files), versions=versions))
    assert (found and found.filename) == wanted


releases = st.lists(st.sampled_from(["0", "00", "1", "2", "10", "010", "2024"]), min_size=1, max_size=4).map(".".join)
endings = st.sampled_from(["", "", "", ".post1", "rc1", "+a", "x", ".dev0"])


@given(st.lists(st.builds(str.__add__, releases, endings)))
def test_the_newest_version_is_the_one_that_pep_440_says(texts: list[str]) -> None:
    read = [Version(each) for each in texts if "x" not in each]
    expected = max((each for each in read if not each.is_prerelease), default=None)
    assert str(newest_final(texts)) == str(expected)


def test_a_series_is_of_the_same_tags_newest_first() -> None:
    other = "cp312-cp312-win_amd64.whl"
    files = [
        *(file(f"x-{version}-py3-none-any.whl") for version in ("1.0", "1.10", "1.9", "2.0rc1")),
        file("x-1.11-py3-none-any.whl", yanked="broken"),
        file("x-1.12-py3-none-any.whl", core_metadata=None),
        file("x-1.13-1build-py3-none-any.whl"),
        file(f"x-1.14-{other}"),
        *(file(name) for name in ("x-1.0.tar.gz", "odd.whl", "x-odd-py3-none-any.whl")),
    ]
    page = Page("x", tuple(files))
    found = [name for _, name in series(page, "x-1.9-py3-none-any.whl")]
    assert found == [f"x-{each}-py3-none-any.whl" for each in ("1.13-1build", "1.10", "1.9", "1.0")]
    assert series(page, f"x-1.0-{other}") == [("sha256-" + "a" * 64, f"x-1.14-{other}")]


@pytest.mark.parametrize("odd", [b"", b"\xff\xfe", b"Requires-Dist: ===\n\n", b"Name"], ids=["empty", "binary", "odd", "cut"])
def test_metadata_that_says_nothing_leads_nowhere(odd: bytes) -> None:
    assert requirements(odd) == []


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_only_what_every_environment_needs_is_followed(end: str) -> None:
    lines = [
        *("Some_Lib (>=1)", "a[x]>=2", "b; sys_platform == 'win32'", "c @ https://files.example/c.whl", "no name !"),
        *(
            "d[x, y] ~= 1.0, != 1.0.*",
            "e",
            "f>=1 ;extra == 'x'",
            "g>=1\n  ; extra == 'x'",
            "h\n  >=1",
            "-i",
            "l==1.0+l",
        ),
    ]
    metadata = "Metadata-Version: 2.1\n" + "".join(f"Requires-Dist: {line}\n" for line in lines) + "\nRequires-Dist: body\n"
    assert requirements(metadata.replace("\n", end).encode()) == ["some-lib", "a", "d", "e", "h", "l"]


@pytest.mark.parametrize("endless", [b" ", b"a", b"a ", b"a[", b"a[x", b"a>=1", b"a (", b"a\n "])
def test_metadata_of_any_form_is_read_in_time_proportional_to_its_length(endless: bytes) -> None:
    assert requirements(b"Requires-Dist: a" + endless * 300_000 + b"?\n") == []
