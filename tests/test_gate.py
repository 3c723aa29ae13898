"""Who asks the gate: every route, for what is stored, arriving and unknown, under every spelling of a project's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_twisted
from msgspec import Struct, field
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from proxy.model import File, LedgerEntry
from proxy.policy.policy import Policy
from proxy.policy.quarantine import Quarantine
from proxy.policy.rules import Project, Rule, Viewpoint
from proxy.policy.verdicts import VISIBLE, Verdict
from proxy.representing import repr_without
from proxy.settings import IndexSettings, PageLimits
from proxy.web.changing import CHANGES
from proxy.web.site import ROUTES
from tests.inprocess import JSON, Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.browser import BROWSER, Page
from tests.support.fake_upstream import FakeUpstream
from tests.support.larger_than import LargerThan
from tests.support.wheels import sdist, wheel
from tests.support.wire import Client, Reply

reactor: Any = default_reactor

#: The project, its spellings, its file that rules hide, and one that they do not.
NAME, SPELLINGS = "my-app", ("my-app", "My_App", "my.app", "MY--APP", "%6Dy-app")
LARGE, SMALL = wheel("my-app", "2.0", size=200_000), sdist("my-app", "1.0")
#: When rules begin to hide, on the wall clock.
THEN = 1_800_000_000.0


class Wall(Struct):
    """A wall clock that tests set."""

    now: float = THEN - 100.0

    def __call__(self) -> float:
        return self.now


class NotNamed(Rule, frozen=True):
    """Hides the project *project* from *since* on."""

    name = "not-named"

    project_name: str
    since: float

    def project(self, name: str, now: float, view: Viewpoint) -> Verdict:
        if name != self.project_name:
            return VISIBLE
        return Verdict(until=self.since) if now < self.since else self.hides("not for sale")


class Yanked(Rule, frozen=True):
    """Hides files that are yanked from *since* on."""

    name = "yanked"

    since: float

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        if file.yanked is False:
            return VISIBLE
        return Verdict(until=self.since) if now < self.since else self.hides("yanked")


class Kept(Rule, frozen=True):
    """Hides files of more than *size* bytes that are stored."""

    name = "kept"

    size: int

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        return VISIBLE if facts is None or facts.size <= self.size else self.hides("stored")


class Held(Rule, frozen=True):
    """Hides nothing, and keeps whoever asks about *subject*, a file or a project, until it is let go."""

    name = "held"

    subject: str
    asked: list[str] = field(default_factory=list)
    go: Event = field(default_factory=Event)

    __repr__ = repr_without("asked", "go")

    def _seen(self, name: str) -> Verdict:
        if name == self.subject:
            self.asked.append(name)
            self.go.wait(10.0)
        return VISIBLE


class HeldFile(Held, frozen=True):
    """For one that goes through pages."""

    def file(self, file: File, project: Project, facts: LedgerEntry | None, now: float, view: Viewpoint) -> Verdict:
        return self._seen(file.filename)


class HeldFiles(Held, frozen=True):
    """For one that asks about all files of a project."""

    def files(self, project: Project, now: float, view: Viewpoint) -> Verdict:
        return self._seen(project.name)


class HeldProject(Held, frozen=True):
    """For one that goes through the list."""

    def project(self, name: str, now: float, view: Viewpoint) -> Verdict:
        return self._seen(name)


OF_FILES = Policy((Quarantine(), LargerThan(100_000, THEN)))
OF_PROJECTS = Policy((Quarantine(), NotNamed(NAME, THEN)))


class Asked(Struct, frozen=True):
    """One row: a path, and what is answered there.

    *visible* looks at the answer while nothing is hidden, *hidden* while the file is.  While its project is hidden the answer
    is a 404, unless the path is *open*: it names no project that must exist.
    """

    path: str
    visible: Callable[[Reply], bool]
    hidden: Callable[[Reply], bool]
    open: bool = False


def missing(reply: Reply) -> bool:
    """Whether *reply* is what anybody gets who asks for what does not exist."""
    return (
        reply.status == 404
        and reply.json.keys() == {"type", "title", "status", "detail", "code", "request_id"}
        and (reply.json["code"], reply.json["title"]) == ("not-found", "Not found")
        and reply.headers["cache-control"] == "no-store"
        and reply.headers["cache-status"] == "pypiproxy; detail=not-found"
    )


def posted(reply: Reply) -> bool:
    """Whether *reply* says that only POST is answered there."""
    return reply.status == 405


def redirected(reply: Reply) -> bool:
    return reply.status == 307


def names(reply: Reply) -> set[str]:
    """The files that a page or a legacy document names."""
    if "files" in reply.json:
        return {each["filename"] for each in reply.json["files"]}
    of_all = [each for files in reply.json.get("releases", {}).values() for each in files]
    return {each["filename"] for each in (*reply.json["urls"], *of_all)}


def files(*expected: str) -> Callable[[Reply], bool]:
    return lambda reply: reply.status == 200 and names(reply) == set(expected)


def body(data: bytes) -> Callable[[Reply], bool]:
    return lambda reply: reply.status == 200 and reply.body == data


def versions(*expected: str) -> Callable[[Reply], bool]:
    return lambda reply: set(reply.json["releases"]) == set(expected) and reply.json["info"]["version"] == max(expected)


def both(*checks: Callable[[Reply], bool]) -> Callable[[Reply], bool]:
    return lambda reply: all(check(reply) for check in checks)


BOTH, LEFT = files(LARGE.filename, SMALL.filename), files(SMALL.filename)
PROVENANCE = b'{"version":1}'
OF_FILE = {"": LARGE.data, ".metadata": LARGE.metadata, ".provenance": PROVENANCE}


def listing(reply: Reply) -> bool:
    return [each["name"] for each in reply.json["projects"]] == [NAME, "other"]


def table(name: str) -> dict[str, list[Asked]]:
    """What is answered at each route when the project is spelled *name*."""
    is_normal = unquote(name) == NAME
    page = Asked(f"simple/{name}/", BOTH, LEFT) if is_normal else Asked(f"simple/{name}/", redirected, redirected, open=True)
    stored = f"/{name}/sha256-{LARGE.sha256}/{LARGE.filename}"
    legacy = (both(BOTH, versions("1.0", "2.0")), both(LEFT, versions("1.0")))
    return {
        "": [Asked("", missing, missing, open=True)],  # to a client of the Simple API
        "simple": [Asked("simple", redirected, redirected, open=True)],
        "simple/": [Asked("simple/", listing, listing, open=True)],
        "simple/{project}/": [page],
        "simple/{project}": [Asked(f"simple/{name}", redirected, redirected, open=True)],
        "simple//{project}/": [Asked(f"simple//{name}/", redirected, redirected, open=True)],
        "simple//{project}": [Asked(f"simple//{name}", redirected, redirected, open=True)],
        "files/{project}/{digest}/{file}": [Asked(f"files{stored}{end}", body(data), missing) for end, data in OF_FILE.items()],
        "packages/{project}/{digest}/{file}": [
            Asked(f"packages{stored}{end}", body(data), missing) for end, data in OF_FILE.items()
        ],
        "links/": [Asked("links/", missing, missing, open=True)],
        "links": [Asked("links", redirected, redirected, open=True)],
        "last-modified": [Asked("last-modified", lambda reply: True, lambda reply: True, open=True)],
        "local-stats/days/{day}": [Asked("local-stats/days/2024-10-04.bz2", missing, missing, open=True)],
        "simple/pypi/{project}/json": [Asked(f"simple/pypi/{name}/json", *legacy)],
        **{f"projects/{{project}}/{each}": [Asked(f"projects/{name}/{each}", posted, posted, open=True)] for each in CHANGES},
        "{project}/json": [Asked(f"{name}/json", *legacy)],
        "pypi/{project}/json": [Asked(f"pypi/{name}/json", *legacy)],
        "pypi/{project}/{version}/json": [
            Asked(f"pypi/{name}/2.0/json", files(LARGE.filename), missing),
            Asked(f"pypi/{name}/2/json", files(LARGE.filename), missing),
            Asked(f"pypi/{name}/1.0/json", LEFT, LEFT),
        ],
        "legacy": [Asked("legacy", redirected, redirected, open=True)],  # to a client of the Simple API: the project legacy
        "legacy/": [Asked("legacy/", redirected, redirected, open=True)],
        "{project}/": [Asked(f"{name}/", redirected, redirected, open=True)],
    }


def rows() -> list[Asked]:
    """Every row of the table, under every spelling."""
    found = [row for name in SPELLINGS for each in table(name).values() for row in each]
    return list({row.path: row for row in found}.values())


def test_the_table_has_every_route() -> None:
    assert table(NAME).keys() == ROUTES.keys()


@pytest.fixture
def stocked(make_upstream: Callable[..., FakeUpstream]) -> FakeUpstream:
    upstream = make_upstream(tls=certs.server_context())
    provenance = f"{upstream.base}/integrity/my-app/provenance"
    upstream.add_file(NAME, LARGE.filename, LARGE.data, metadata=LARGE.metadata, provenance=provenance)
    upstream.add_file(NAME, SMALL.filename, SMALL.data)
    upstream.add_file("other", "other-1.0.tar.gz", b"other" * 100)
    upstream.add_path("/integrity/my-app/provenance", PROVENANCE, "application/json")
    return upstream


Open = Callable[..., Any]


@pytest.fixture
def serving(stocked: FakeUpstream, run: Start, tmp_path: Path) -> Open:
    """Starts a proxy on the stocked upstream; takes a policy, a wall clock, and what the index is to be like."""

    async def serving(policy: Policy, wall: Wall, **index: Any) -> Running:
        settings = upstream_settings(stocked.url, "up0", ca_file=certs.authority().write(tmp_path, "ca")[0])
        options = {"upstreams": ("up0",), "limits": PageLimits(ttl=300.0, soft_deadline=5.0), "prefetch": False, **index}
        indexes = (IndexSettings(name="pypi", default=True, **options),)
        return await run(settings, indexes=indexes, policy=policy, clock=wall)

    return serving


async def replies(proxy: Running, asked: list[Asked]) -> list[Client]:
    return [await proxy.connect(f"/{row.path}", Accept=JSON) for row in asked]


async def read(clients: list[Client]) -> list[Reply]:
    return await gatherResults([Deferred.fromCoroutine(each.reply()) for each in clients], consumeErrors=True)


def wrong(asked: list[Asked], got: list[Reply], check: Callable[[Asked, Reply], bool]) -> list[str]:
    return [f"{row.path}: {reply}" for row, reply in zip(asked, got, strict=True) if not check(row, reply)]


STATES = ("stored", "arriving", "unknown")


async def bring(proxy: Running, stocked: FakeUpstream, state: str) -> tuple[list[Client], Any]:
    """Have the large file in *state*; who is waiting for it, and what holds it back."""
    path = f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}"
    if state == "stored":
        for row in rows():
            await proxy.get(f"/{row.path}", Accept=JSON)
        return [], None
    if state == "unknown":
        return [], None
    gate = stocked.hold(f"*/{LARGE.filename}", after=50_000)
    client = await proxy.connect(path)
    await client.got_body(20_000)
    return [client], gate


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("policy", [OF_FILES, OF_PROJECTS], ids=["files", "projects"])
@pytest.mark.parametrize("state", STATES)
async def test_what_is_visible_is_answered_at_every_route(
    stocked: FakeUpstream, serving: Open, state: str, policy: Policy
) -> None:
    proxy = await serving(policy, Wall())
    waiting, gate = await bring(proxy, stocked, state)
    clients = await replies(proxy, rows())
    if gate is not None:
        gate.release()
    assert wrong(rows(), await read(clients), lambda row, reply: row.visible(reply)) == []
    for each in waiting:
        assert (await each.reply()).body == LARGE.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("state", STATES)
async def test_a_hidden_file_does_not_exist_at_any_route(stocked: FakeUpstream, serving: Open, state: str) -> None:
    wall = Wall()
    proxy = await serving(OF_FILES, wall)
    waiting, gate = await bring(proxy, stocked, state)
    before = stocked.count(f"*{LARGE.filename}*") + stocked.count("*provenance")
    wall.now = THEN
    for _ in range(2):  # the second time as a request that was seen before
        got = await read(await replies(proxy, rows()))
        assert wrong(rows(), got, lambda row, reply: row.hidden(reply)) == []
    assert stocked.count(f"*{LARGE.filename}*") + stocked.count("*provenance") == before
    if gate is not None:
        gate.release()
    for each in waiting:  # who was served before goes on being served
        assert (await each.reply()).body == LARGE.data


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("state", STATES)
async def test_a_hidden_project_does_not_exist_at_any_route(stocked: FakeUpstream, serving: Open, state: str) -> None:
    wall = Wall()
    proxy = await serving(OF_PROJECTS, wall)
    waiting, gate = await bring(proxy, stocked, state)
    before = stocked.count(f"*{NAME}*") + stocked.count(f"*{LARGE.filename}*")
    wall.now = THEN
    for _ in range(2):
        got = await read(await replies(proxy, rows()))

        def right(row: Asked, reply: Reply) -> bool:
            if row.path == "simple/":
                return [each["name"] for each in reply.json["projects"]] == ["other"]
            return row.hidden(reply) if row.open else missing(reply)

        assert wrong(rows(), got, right) == []
    assert stocked.count(f"*{NAME}*") + stocked.count(f"*{LARGE.filename}*") == before
    if gate is not None:
        gate.release()
    for each in waiting:
        assert (await each.reply()).body == LARGE.data


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_about_a_hidden_file_that_its_page_lists_no_longer(stocked: FakeUpstream, serving: Open) -> None:
    """The ledger knows enough of it."""
    wall = Wall()
    proxy = await serving(OF_FILES, wall, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    path = f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}"
    assert (await proxy.get(path)).body == LARGE.data
    stocked.remove_file(NAME, LARGE.filename)
    await proxy.service.administration.operations["refresh"](lambda said: None, project=NAME)
    before = stocked.count()
    wall.now = THEN
    for end in OF_FILE:
        assert missing(await proxy.get(path + end)), end
    assert stocked.count() == before


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("policy", [OF_PROJECTS, Policy((*OF_PROJECTS.rules, LargerThan(100_000)))], ids=["projects", "both"])
async def test_no_page_of_a_hidden_project_is_at_hand(serving: Open, policy: Policy) -> None:
    wall = Wall()
    repository = (await serving(policy, wall)).service.indexes["pypi"].repository
    await repository.page(NAME)
    assert repository.page_at_hand(NAME).project == NAME
    wall.now = THEN
    assert repository.page_at_hand(NAME) is None


@pytest_twisted.ensureDeferred
async def test_a_hidden_file_whose_digest_can_no_longer_be_one_is_hidden_too(stocked: FakeUpstream, serving: Open) -> None:
    wall = Wall()
    proxy = await serving(OF_FILES, wall)
    assert (await proxy.get(f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}")).status == 200
    stocked.add_file(NAME, LARGE.filename, LARGE.data, entry={"hashes": {"sha256": "ab" * 20}})
    await proxy.service.administration.operations["refresh"](lambda said: None, project=NAME)
    assert BOTH(await proxy.get(f"/simple/{NAME}/", Accept=JSON))
    wall.now = THEN
    assert LEFT(await proxy.get(f"/simple/{NAME}/", Accept=JSON))


@pytest_twisted.ensureDeferred
async def test_a_hidden_project_is_not_among_the_cached_ones_that_browsers_see(serving: Open) -> None:
    wall = Wall()
    proxy = await serving(OF_PROJECTS, wall)
    for project in (NAME, "other"):
        assert (await proxy.get(f"/simple/{project}/")).status == 200
    shown = Page(await proxy.get("/simple/", **BROWSER), "/simple/")
    assert {NAME, "other"} <= shown.links.keys()
    wall.now = THEN
    for path in ("/simple/", f"/simple/?q={NAME}"):
        shown = Page(await proxy.get(path, **BROWSER), "/simple/")
        assert NAME not in shown.links
        assert "1 project is cached" in shown.text


# -- time -------------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("policy", "path"), [(OF_FILES, f"simple/{NAME}/"), (OF_PROJECTS, "simple/")], ids=["page", "list"])
async def test_between_two_moments_answers_are_identical_and_after_one_they_are_not(
    serving: Open, policy: Policy, path: str
) -> None:
    wall = Wall(THEN - 2000.0)
    proxy = await serving(policy, wall)
    first = await proxy.get(f"/{path}", Accept=JSON)
    wall.now = THEN - 1.0
    second = await proxy.get(f"/{path}", Accept=JSON)
    assert (second.headers["etag"], second.body) == (first.headers["etag"], first.body)
    known = {"Accept": JSON, "If-None-Match": first.headers["etag"]}
    assert (await proxy.get(f"/{path}", **known)).status == 304
    wall.now = THEN
    third = await proxy.get(f"/{path}", **known)
    assert third.status == 200
    assert third.headers["etag"] != first.headers["etag"]
    wall.now = THEN + 10_000.0
    assert (await proxy.get(f"/{path}", Accept=JSON)).headers["etag"] == third.headers["etag"]
    wall.now = THEN - 1.0  # the clock was set back
    assert (await proxy.get(f"/{path}", Accept=JSON)).headers["etag"] == first.headers["etag"]


@pytest_twisted.ensureDeferred
async def test_nothing_is_called_fresh_beyond_the_moment_at_which_its_verdict_changes(serving: Open) -> None:
    wall = Wall(THEN - 7.5)
    proxy = await serving(OF_FILES, wall)
    file = f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}"
    small = f"/files/{NAME}/sha256-{SMALL.sha256}/{SMALL.filename}"
    for path, cached in (
        (f"/simple/{NAME}/", "max-age=7"),
        (f"/pypi/{NAME}/json", "max-age=7"),
        (f"{file}.provenance", "max-age=7"),
        (f"{file}.metadata", "public, max-age=7"),
        (file, "public, max-age=7"),
        (small, "public, immutable, max-age=31536000"),
    ):
        for _ in range(2):
            assert (await proxy.get(path)).headers["cache-control"] == cached, path
    wall.now = THEN
    for path in ("/simple/other/", f"/simple/{NAME}/"):
        assert int((await proxy.get(path)).headers["cache-control"].removeprefix("max-age=")) > 100


@pytest_twisted.ensureDeferred
async def test_a_page_changes_with_what_the_ledger_knows_of_its_files_if_that_hides_one(serving: Open) -> None:
    proxy = await serving(Policy((Quarantine(), Kept(100_000))), Wall())
    client = await wire.connect(proxy.port)

    async def page() -> Reply:
        client.ask(f"/simple/{NAME}/", Accept=JSON)
        return await client.reply()

    first = await page()
    assert BOTH(first)
    assert (await proxy.get(f"/files/{NAME}/sha256-{SMALL.sha256}/{SMALL.filename}")).status == 200
    assert (await page()).headers["etag"] == first.headers["etag"]  # and yet it has been gone through again
    assert (await proxy.get(f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}")).status == 200
    for reply in (await page(), await page(), await proxy.get(f"/pypi/{NAME}/json")):
        assert LEFT(reply)
        assert reply.headers["etag"] != first.headers["etag"]
    await client.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("rule", "path"), [(HeldFile(SMALL.filename), f"simple/{NAME}/"), (HeldProject("other"), "simple/")], ids=["page", "list"]
)
async def test_however_many_ask_for_what_has_changed_it_is_gone_through_once_for_all(
    serving: Open, rule: Held, path: str
) -> None:
    rule.go.clear()
    proxy = await serving(Policy((rule,)), Wall())
    clients = await replies(proxy, [Asked(path, missing, missing)] * 30)
    while proxy.service.front.in_progress < 30 or not rule.asked:
        await deferLater(reactor, 0.001)
    rule.go.set()
    assert {each.status for each in await read(clients)} == {200}
    assert len(rule.asked) <= 3  # for what it says of the moment, and to render it


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("rule", [HeldFile(SMALL.filename), HeldFiles(NAME)], ids=["file", "project"])
async def test_names_that_clients_invent_push_out_no_verdict_on_what_there_is(
    serving: Open, monkeypatch: pytest.MonkeyPatch, rule: Held
) -> None:
    monkeypatch.setattr("proxy.repository.gate._FILES", 1000)
    monkeypatch.setattr("proxy.repository.gate._PROJECTS", 1000)
    rule.go.set()
    proxy = await serving(Policy((rule,)), Wall())
    client = await wire.connect(proxy.port)

    async def ask() -> None:
        client.ask(f"/files/{NAME}/sha256-{SMALL.sha256}/{SMALL.filename}")
        assert (await client.reply()).status == 200

    for _ in range(3):
        await ask()
    before = len(rule.asked)
    for path in [f"{NAME}/none/my-app-{number}.tar.gz" for number in range(2, 5)] + [
        f"made-up-{number}/none/made-up-1.0.tar.gz" for number in range(3)
    ]:
        assert (await proxy.get(f"/files/{path}")).status == 404
    rule.asked.clear()
    for _ in range(3):
        await ask()
    assert (before > 0, rule.asked) == (True, [])
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_request_that_was_seen_before_is_told_of_the_moment_that_a_new_page_brings(
    stocked: FakeUpstream, serving: Open
) -> None:
    """A file that is small enough to be answered from memory."""
    proxy = await serving(Policy((Quarantine(), Yanked(THEN))), Wall(THEN - 7.5))
    client = await wire.connect(proxy.port)

    async def lifetime() -> str:
        client.ask(f"/files/{NAME}/sha256-{SMALL.sha256}/{SMALL.filename}")
        return (await client.reply()).headers["cache-control"]

    for _ in range(3):
        assert await lifetime() == "public, immutable, max-age=31536000"
    stocked.add_file(NAME, SMALL.filename, SMALL.data, entry={"yanked": True})
    await proxy.service.administration.operations["refresh"](lambda said: None, project=NAME)
    for _ in range(3):
        assert await lifetime() == "public, max-age=7"
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_document_that_describes_a_visible_version_stays_upstreams_own(stocked: FakeUpstream, serving: Open) -> None:
    older = wheel(NAME, "0.5", size=150_000)
    stocked.add_file(NAME, older.filename, older.data)
    stocked.remove_file(NAME, LARGE.filename)
    proxy = await serving(Policy((LargerThan(100_000),)), Wall())
    document = (await proxy.get(f"/pypi/{NAME}/json")).json
    assert (set(document["releases"]), document["info"]) == ({"1.0"}, {"name": NAME, "version": "1.0"})


# -- who asks beside the routes ------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_nothing_hidden_is_asked_for_ahead_of_clients(stocked: FakeUpstream, serving: Open) -> None:
    tool = wheel("tool", "1.0", requires=["my-app", "lib"])
    newer = wheel("tool", "2.0", requires=["other"], size=200_000)
    lib = wheel("lib", "1.0")
    for each in (tool, newer, lib):
        stocked.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    policy = Policy((LargerThan(100_000), NotNamed(NAME, 0.0)))
    proxy = await serving(policy, Wall(), prefetch=True)
    await proxy.page("tool")
    await stocked.until(lambda: stocked.count(f"*{lib.filename}.metadata") == 1)
    assert stocked.count(f"*{tool.filename}.metadata") == 1
    assert stocked.count(f"*{newer.filename}*") + stocked.count(f"*{NAME}*") + stocked.count("*other*") == 0


@pytest_twisted.ensureDeferred
async def test_an_offline_index_hides_what_is_there(stocked: FakeUpstream, serving: Open) -> None:
    wall = Wall()
    proxy = await serving(OF_FILES, wall)
    for each in (LARGE, SMALL):
        assert (await proxy.get(await proxy.link(NAME, each.filename))).status == 200
    await proxy.stop()
    proxy = await serving(OF_FILES, wall, offline=True, upstreams=())
    shown = await proxy.get(f"/simple/{NAME}/", Accept=JSON)
    assert (BOTH(shown), shown.json["versions"]) == (True, ["1.0", "2.0"])
    wall.now = THEN
    shown = await proxy.get(f"/simple/{NAME}/", Accept=JSON)
    assert (LEFT(shown), shown.json["versions"]) == (True, ["1.0"])
    for end in OF_FILE:
        assert missing(await proxy.get(f"/files/{NAME}/sha256-{LARGE.sha256}/{LARGE.filename}{end}"))
