"""Who is let in: every route, for every kind of principal, on every kind of index; and what is hidden looks like nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, get_args

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from zope.interface import implementer

from proxy.access.jobs import Minted
from proxy.access.roles import Permission, Role
from proxy.access.tokens import Confinement
from proxy.accounts.tokens import IssuedScope
from proxy.core.audited import AuditOutcome
from proxy.errors import ExchangeRefused
from proxy.interfaces import IExchange
from proxy.settings import GrantSettings
from proxy.web.changing import CHANGES
from proxy.web.exchanging import EXCHANGES
from proxy.web.operations import ANSWERED
from proxy.web.routes import Below, DiscoveryRoute, ExchangeRoute, NoRoute, OperationsRoute, Route, Slashless, TopLevel
from proxy.web.site import CHANGING, ROUTES
from tests.inprocess import JSON, Start
from tests.shelf import Shelf
from tests.support import wire
from tests.support.browser import BROWSER
from tests.support.counter import post
from tests.support.elsewhere import from_elsewhere
from tests.support.fake_upstream import FakeUpstream
from tests.support.guarded import Guarded, Together, grant
from tests.support.logins import basic
from tests.support.receiving import Shop
from tests.support.wheels import wheel
from tests.support.wire import Reply

reactor: Any = default_reactor

#: A private project and a public one, and names of the same length that nothing has.
ACME, OPEN = wheel("acme-web", "1.0"), wheel("open-lib", "1.0")
NEVER = {"acme-web": "acme-zzz", "open-lib": "open-zzz"}
ALICE, BOB = basic("alice", "alice!"), basic("bob", "bob!")
UPLOADER = IssuedScope(Role.UPLOADER, ("internal",), ("acme-*",))
GRANTS = (
    grant(Role.READER, "user:alice", "internal"),
    grant(Role.READER, "anonymous", "internal", "open-*"),
)

Guard = Callable[..., Awaitable[Guarded]]


@pytest.fixture
def guard(_clean_reactor: None, tmp_path: Path) -> Iterator[Guard]:
    """Opens guarded sites; takes what `Guarded` takes after its folder."""
    opened: list[Guarded] = []

    async def guard(*repositories: Shelf, **options: Any) -> Guarded:
        opened.append(await Guarded(tmp_path, *repositories, **options).open())
        return opened[-1]

    yield guard
    for each in opened:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


# -- every route, every kind of principal, every kind of index ---------------------------------------------------------------


class Asks(Protocol):
    """A site that is asked for a path below the index under test."""

    def __call__(self, path: str, login: str | None, method: str, **headers: str) -> Awaitable[Reply]: ...


def paths(project: str = "acme-web") -> Mapping[str, str]:
    """A path for each route; what is asked for there concerns *project*."""
    digest = f"sha256-{ACME.sha256}"
    name = ACME.filename.replace("acme_web", project.replace("-", "_"))
    return {
        "": "",
        "simple": "simple",
        "simple/": "simple/",
        "simple/{project}/": f"simple/{project}/",
        "simple/{project}": f"simple/{project}",
        "simple//{project}/": f"simple//{project}/",
        "simple//{project}": f"simple//{project}",
        "files/{project}/{digest}/{file}": f"files/{project}/{digest}/{name}",
        "packages/{project}/{digest}/{file}": f"packages/{project}/{digest}/{name}",
        "links/": "links/",
        "links": "links",
        "last-modified": "last-modified",
        "local-stats/days/{day}": f"local-stats/days/{datetime.fromtimestamp(time.time() - 2 * 86400, UTC).date()}.bz2",
        "simple/pypi/{project}/json": f"simple/pypi/{project}/json",
        **{f"projects/{{project}}/{each}": f"projects/{project}/{each}" for each in CHANGES},
        "{project}/json": f"{project}/json",
        "pypi/{project}/json": f"pypi/{project}/json",
        "pypi/{project}/{version}/json": f"pypi/{project}/1.0/json",
        "legacy": "legacy",
        "legacy/": "legacy/",
        "{project}/": f"{project}/",
    }


def test_the_table_has_every_route() -> None:
    assert paths().keys() == ROUTES.keys()


#: Kinds of principals, by how they log in, and whether they may read and upload ``acme-*`` of the restricted index.
class Kind(Struct, frozen=True):
    login: Callable[[Guarded], Awaitable[str | None]]
    #: ``None``: nobody knows who it is.
    may: frozenset[Permission] | None
    #: Whether it may read everything.
    everything: bool = False


async def _nobody(site: Guarded) -> str | None:
    return None


def known(login: str) -> Callable[[Guarded], Awaitable[str | None]]:
    async def given(site: Guarded) -> str | None:
        return login

    return given


def token(*scopes: IssuedScope, **options: Any) -> Callable[[Guarded], Awaitable[str | None]]:
    async def issued(site: Guarded) -> str | None:
        return await site.token(*scopes, **options)

    return issued


NONE: frozenset[Permission] = frozenset()
READ, BOTH = frozenset({Permission.READ}), frozenset({Permission.READ, Permission.UPLOAD})
MAINTAIN = frozenset({Permission.MAINTAIN})
KINDS = {
    "nobody": Kind(_nobody, None),
    "a wrong password": Kind(known(basic("alice", "bob!")), None),
    "an unknown user": Kind(known(basic("carol", "carol!")), None),
    "no credential at all": Kind(known("Nonsense"), None),
    "a user with the right": Kind(known(ALICE), READ, everything=True),
    "a user without": Kind(known(BOB), NONE),
    "a token that uploads": Kind(token(UPLOADER), BOTH),
    "a token of another pattern": Kind(token(IssuedScope(Role.UPLOADER, ("internal",), ("other-*",))), NONE),
    "a token of another index": Kind(token(IssuedScope(Role.READER, ("pypi",), ("*",))), NONE),
    "a token of a user": Kind(token(user="alice"), READ, everything=True),
    "a token of a user without": Kind(token(user="bob"), NONE),
    "a narrowed token": Kind(token(user="alice", confined=Confinement(projects=("acme-w*",))), READ),
    "a token narrowed to something else": Kind(token(user="alice", confined=Confinement(projects=("six",))), NONE),
    "a maintainer": Kind(token(IssuedScope(Role.MAINTAINER, ("internal",), ("*",))), MAINTAIN),
    "a maintainer who did not begin the project": Kind(
        token(IssuedScope(Role.MAINTAINER, ("internal",), ("*",)), user="bob"), NONE
    ),
    "an administrator": Kind(token(IssuedScope(Role.ADMIN, ("internal",), ("*",))), BOTH | MAINTAIN, everything=True),
}
#: Those who have a right on the index at all get its list, with what they may see.
ON_THE_INDEX = frozenset({"a token of another pattern", "a token narrowed to something else"})


async def hosted(guard: Guard) -> tuple[Guarded, str, bool]:
    shop = Shop("internal")
    return await guard(Shelf("internal", ACME, OPEN), shops=[shop], grants=GRANTS[:1]), "/index/internal/", False


def together(site: Guarded) -> Together:
    """The group of `group`."""
    found = site.repositories[2]
    assert isinstance(found, Together)
    return found


async def group(guard: Guard) -> tuple[Guarded, str, bool]:
    internal, pypi = Shelf("internal", ACME), Shelf("pypi", OPEN)
    both = Together("all", internal, pypi, ACME, OPEN)
    both.of_first = {"acme-web"}
    return await guard(internal, pypi, both, grants=GRANTS[:1]), "/index/all/", True


def expected(permission: Permission | None, pattern: str, kind: Kind, name: str, *, is_group: bool) -> set[int]:
    """The statuses that may be answered; those of an answer that is given are 200, 307 and, for forms, 400."""
    given = {200, 307}
    if permission is None:
        return {200, 307, 404, 405}
    whole = "{project}" not in pattern
    if permission is Permission.READ and whole and is_group:
        # The other index is for everybody, so everybody gets a list; who sends a credential sends a right one.
        return {401} if kind.may is None and name != "nobody" else {*given, 404} if pattern == "last-modified" else given
    if kind.may is None:
        return {401}
    if permission is Permission.UPLOAD:
        if is_group:
            return {405}
        return {400} if permission in kind.may or name == "a token of another pattern" else {404}
    if permission is Permission.MAINTAIN:
        return {400} if permission in kind.may else {404}
    allowed = permission in kind.may or (whole and name in ON_THE_INDEX)
    return ({404} if pattern == "last-modified" else given) if allowed else {404}


@pytest.mark.parametrize("place", [hosted, group], ids=["hosted", "group"])
@pytest.mark.parametrize("name", KINDS)
@pytest_twisted.ensureDeferred
async def test_every_route_lets_in_whom_it_should(guard: Guard, name: str, place: Any) -> None:
    site, root, is_group = await place(guard)
    kind = KINDS[name]
    login = await kind.login(site)
    wrong = []
    for pattern, methods in ROUTES.items():
        for method, handling in methods.items():
            path = f"{root}{paths()[pattern]}"
            headers = {"Content_Length": "0"} if method == "POST" else {"Accept": JSON, "User_Agent": "curl/8"}
            if pattern == "{project}/":
                headers["User_Agent"] = "pip/26"
            may_be = expected(handling.permission, pattern, kind, name, is_group=is_group)
            if method == "POST" and is_group:
                may_be = {405}
            for _ in range(3 if method == "GET" else 1):  # what is remembered is answered as it was
                reply = await site.get(path, login, method, **headers)
                if reply.status not in may_be:
                    wrong.append((method, pattern, reply.status, may_be))
                if reply.status == 401:
                    assert reply.headers["www-authenticate"] == 'Basic realm="pypiproxy"'
    assert wrong == []


@pytest.mark.parametrize("place", [hosted, group], ids=["hosted", "group"])
@pytest.mark.parametrize(
    "name",
    [name for name, kind in KINDS.items() if name not in (*ON_THE_INDEX, "an unknown user") and not (kind.may or NONE) & BOTH],
)
@pytest_twisted.ensureDeferred
async def test_what_is_hidden_is_answered_as_what_does_not_exist(guard: Guard, name: str, place: Any) -> None:
    site, root, _ = await place(guard)
    login = await KINDS[name].login(site)
    for pattern, path in paths().items():
        if "{project}" not in pattern:
            continue
        never = paths(NEVER["acme-web"])[pattern]
        endings = ("", ".metadata", ".provenance") if "{file}" in pattern else ("",)
        asked: list[tuple[str, dict[str, str]]] = [
            ("GET", {}),
            ("HEAD", {}),
            ("GET", {"Range": "bytes=0-9"}),
            ("GET", BROWSER),
            ("GET", {"Accept": "image/png"}),
            ("GET", {"Cache_Control": "no-cache"}),
            ("GET", {"User_Agent": "pip/26"}),
        ]
        for method, headers in asked[: 2 if name == "a wrong password" else None]:
            for ending in endings:
                there = await site.get(f"{root}{path}{ending}", login, method, **headers)
                nothing = await site.get(f"{root}{never}{ending}", login, method, **headers)
                assert comparable(there) == comparable(nothing), (method, path)
                if ROUTES[pattern]["GET"].permission is not None:
                    assert there.status == (401 if KINDS[name].may is None else 404)


@implementer(IExchange)
class Refusing:
    """An exchange that knows no job."""

    audience = "pypiproxy"

    async def mint(self, id_token: str, index: str | None, origin: str) -> Minted:
        raise ExchangeRefused("invalid-token", "nobody is known here")

    async def burn(self, token: str, origin: str) -> None:
        return None


def elsewhere() -> Mapping[type, Mapping[tuple[str, str], int]]:
    """The routes beside those below an index: method and path of each, and the status that everybody gets there."""
    key = hashlib.sha256(b"/index/internal/legacy/").hexdigest()
    exchanges = {
        (method, f"{root}_/oidc/{verb}"): {"audience": 200, "mint-token": 422, "burn-token": 202}[verb]
        for verb, method in EXCHANGES.items()
        for root in ("/", "/index/internal/")
    }
    return {
        Below: {},  # they are in ROUTES
        OperationsRoute: {("GET", f"/-/{each}"): 200 for each in ("", *ANSWERED)} | {("POST", "/-/ready"): 405},
        ExchangeRoute: {**exchanges, ("GET", "/_/oidc/mint-token"): 405, ("GET", "/_/oidc/nothing"): 404},
        DiscoveryRoute: {("GET", f"/.well-known/pytp/{key}"): 200, ("GET", "/.well-known/pytp/x"): 404},
        TopLevel: {("GET", "/"): 200, ("GET", "/index/"): 200, ("GET", "/favicon.ico"): 204, ("POST", "/"): 405},
        Slashless: {("GET", "/-"): 307, ("GET", "/index"): 307, ("GET", "/index/internal"): 307},
        NoRoute: {("GET", "/index/none/simple/"): 404, ("GET", "/index/internal/a/b/c"): 404, ("POST", "/nothing"): 405},
    }


def test_the_table_of_other_routes_has_every_kind_of_them() -> None:
    assert set(elsewhere()) == set(get_args(Route))


@pytest_twisted.ensureDeferred
async def test_routes_that_need_no_right_are_the_same_for_everybody(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME, OPEN), shops=[Shop("internal")], grants=GRANTS[:1], exchange=Refusing())
    wrong = []
    for name, kind in KINDS.items():
        login = await kind.login(site)
        for routes in elsewhere().values():
            for (method, path), status in routes.items():
                headers = {} if login is None else {"Authorization": login}
                if "oidc" in path and method == "POST":
                    reply = await post(site.port, path, b'{"token": "x"}', "application/json", **headers)
                else:
                    reply = await site.get(path, login, method, Accept="application/json", Content_Length="0")
                if reply.status != status:
                    wrong.append((name, method, path, reply.status))
                assert b"acme" not in reply.body
    assert wrong == []


def comparable(reply: Reply) -> tuple[int, str, dict[str, str], bytes]:
    """All of *reply* but its request ID, with one name in the place of others of the same length."""

    def renamed(text: str) -> str:
        for name, never in NEVER.items():
            for form in (str, lambda each: each.replace("-", "_")):
                text = text.replace(form(never), form(name))
        return text

    headers = {name: renamed(value) for name, value in reply.headers.items() if name not in ("date", "x-request-id")}
    body = reply.body.decode().replace(reply.headers.get("x-request-id") or "no ID", "ID")
    return reply.status, renamed(reply.reason), headers, renamed(body).encode()


@pytest_twisted.ensureDeferred
async def test_a_proxy_index_is_guarded_like_any_other(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("acme-web", ACME.filename, ACME.data, metadata=ACME.metadata)
    upstream.add_file("open-lib", OPEN.filename, OPEN.data)
    reader = GrantSettings(role="reader", principals=("user:alice",))
    proxy = await run(upstream, grants=(reader,))
    for user in ("alice", "bob"):
        await proxy.service.administration.perform("user_add", user=user, password=f"{user}!")
    for pattern, path in paths().items():
        permission = ROUTES[pattern]["GET"].permission
        # What is posted to says so to everybody, whether there is such a project or not.
        answers = (405,) if pattern in CHANGING else (200, 307, 404)
        for login, status in ((None, 401), (BOB, 404)):
            headers = {} if login is None else {"Authorization": login}
            reply = await proxy.get(f"/{path}", **headers)
            assert reply.status in (answers if permission is None else (status,)), (path, status, reply)
        for _ in range(3):
            reply = await proxy.get(f"/{path}", Authorization=ALICE, Accept=JSON, User_Agent="pip/26")
            assert reply.status in answers, (path, reply)
            assert reply.status != 404 or permission is None or pattern in ("links/", "files/{project}/{digest}/{file}")
            if permission is not None and reply.status == 200:
                assert {"private", "no-store"} & {*reply.headers["cache-control"].split(", ")}
                assert "Authorization" in reply.headers["vary"]


@pytest_twisted.ensureDeferred
async def test_who_asks_for_what_others_ask_for_with_wrong_credentials_does_not_wait_for_their_answers(
    upstream: FakeUpstream, run: Start
) -> None:
    upstream.add_file("acme-web", ACME.filename, ACME.data, metadata=ACME.metadata)
    proxy = await run(upstream, grants=(GrantSettings(role="reader", principals=("user:alice",)),))
    for user in ("alice", "bob"):
        await proxy.service.administration.perform("user_add", user=user, password=f"{user}!")

    async def asked(login: str) -> Reply:
        client = await wire.connect(proxy.port)
        client.ask("/simple/acme-web/", Authorization=login, Accept=JSON)  # on a connection that stays, as those of clients
        reply = await client.reply()
        await client.close()
        return reply

    def get(login: str) -> Deferred[Reply]:
        return Deferred.fromCoroutine(asked(login))

    guesses = await gatherResults([get(basic("bob", f"guess {number}")) for number in range(5)])
    assert {reply.status for reply in guesses} == {401}
    late = get(basic("bob", "another guess"))  # which is answered after more than a second
    while not proxy.service.front.in_progress:
        await deferLater(reactor, 0.001)
    assert (await get(ALICE)).status == 200
    assert not late.called
    assert (await late).status == 401


# -- private answers -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_private_answers_are_private_and_others_are_as_they_were(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME, OPEN), grants=GRANTS)
    for project, dist in (("acme-web", ACME), ("open-lib", OPEN)):
        for path in (f"simple/{project}/", f"files/{project}/sha256-{dist.sha256}/{dist.filename}", f"pypi/{project}/json"):
            for _ in range(3):
                reply = await site.get(f"/index/internal/{path}", ALICE)
                assert reply.status == 200
                is_private = project == "acme-web"
                assert reply.headers["cache-control"].startswith("private, ") is is_private
                assert ("public" in reply.headers["cache-control"]) is (not is_private and path.startswith("files"))
                assert ("Authorization" in reply.headers.get("vary", "")) is is_private


@pytest_twisted.ensureDeferred
async def test_a_project_that_becomes_private_is_private_at_once(guard: Guard) -> None:
    site, root, _ = await group(guard)
    path = f"{root}simple/open-lib/"
    for _ in range(3):
        assert (await site.get(path)).status == 200
    together(site).of_first.add("open-lib")
    assert (await site.get(path)).status == 401
    assert (await site.get(path, BOB)).status == 404
    assert (await site.get(path, ALICE)).headers["cache-control"].startswith("private, ")
    together(site).of_first.discard("open-lib")
    reply = await site.get(path)
    assert (reply.status, "private" in reply.headers["cache-control"]) == (200, False)


# -- lists ---------------------------------------------------------------------------------------------------------------------


def listed(reply: Reply) -> list[str]:
    return [each["name"] for each in reply.json["projects"]]


@pytest_twisted.ensureDeferred
async def test_lists_have_what_their_reader_may_read(guard: Guard) -> None:
    site, root, _ = await group(guard)
    token = await site.token(IssuedScope(Role.READER, ("internal",), ("acme-*",)))
    both, some = ["acme-web", "open-lib"], ["open-lib"]
    for path, everybody in ((f"{root}simple/", some), ("/index/internal/simple/", None)):
        for login, names in ((None, everybody), (ALICE, both if everybody else ["acme-web"]), (token, both)):
            if names is None:
                assert (await site.get(path, login, Accept=JSON)).status == 401
                continue
            first = await site.get(path, login, Accept=JSON)
            assert listed(first) == (names if everybody else ["acme-web"])
            assert "private" in first.headers["cache-control"]
            assert first.headers["vary"].endswith(", Authorization")
            if login != ALICE:  # the name of the whole list is none that an ETag may have
                again = await site.get(path, login, Accept=JSON, If_None_Match=first.headers["etag"])
                assert again.status == 304
            page = await site.get(path, login, **BROWSER)
            assert ("acme-web" in page.body.decode()) is ("acme-web" in listed(first))
    assert listed(await site.get("/index/pypi/simple/", BOB, Accept=JSON)) == some
    assert "private" not in (await site.get("/index/pypi/simple/", Accept=JSON)).headers["cache-control"]


@pytest_twisted.ensureDeferred
async def test_the_same_list_is_made_once_for_all_who_have_the_same_rights(guard: Guard) -> None:
    site, root, _ = await group(guard)
    tokens = [await site.token(IssuedScope(Role.READER, ("internal",), ("acme-*",))) for _ in range(20)]
    etags = {(await site.get(f"{root}simple/", each, Accept=JSON)).headers["etag"] for each in tokens}
    assert len(etags) == 1
    others = [await site.token(IssuedScope(Role.READER, ("internal",), (f"acme-{each}*",))) for each in range(40)]
    assert {tuple(listed(await site.get(f"{root}simple/", each, Accept=JSON))) for each in others} == {("open-lib",)}


# -- credentials ---------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_on_an_open_index_a_credential_is_not_looked_at(guard: Guard) -> None:
    site = await guard(Shelf("pypi", OPEN))
    site.users.path.write_text("nonsense\n")
    for _ in range(3):
        assert (await site.get("/index/pypi/simple/open-lib/", basic("alice", "wrong"))).status == 200
    assert site.audit.entries == []


@pytest_twisted.ensureDeferred
async def test_while_users_cannot_be_read_open_reading_goes_on_and_all_else_is_a_503(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME, OPEN), grants=GRANTS)
    assert (await site.get("/index/internal/simple/acme-web/", ALICE)).status == 200
    site.users.path.write_text("nonsense\n")
    await site.users.look()
    for login, project, status in ((ALICE, "acme-web", 503), (ALICE, "open-lib", 200), (None, "acme-web", 401)):
        reply = await site.get(f"/index/internal/simple/{project}/", login)
        assert reply.status == status
    reply = await site.get("/index/internal/simple/acme-web/", ALICE)
    assert (reply.json["code"], "retry-after" in reply.headers) == ("rights-unknown", True)


@pytest_twisted.ensureDeferred
async def test_another_password_and_a_revoked_token_count_for_what_is_remembered_too(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME), grants=GRANTS)
    path = f"/index/internal/files/acme-web/sha256-{ACME.sha256}/{ACME.filename}"
    name, text = await site.tokens.issue("alice", None, None)
    bearer = f"Bearer {text}"
    for login in (ALICE, bearer):
        for _ in range(3):
            assert (await site.get(path, login)).body == ACME.data
    await site.users.change("alice", b"other")
    await site.tokens.revoke(name)
    site.accounts.forget()
    assert [(await site.get(path, login)).status for login in (ALICE, bearer)] == [401, 401]
    assert (await site.get(path, basic("alice", "other"))).status == 200


@pytest_twisted.ensureDeferred
async def test_a_burst_of_connections_with_one_password_is_never_answered_401(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME), grants=GRANTS)
    replies = await gatherResults(
        [Deferred.fromCoroutine(site.get("/index/internal/simple/acme-web/", ALICE)) for _ in range(100)]
    )
    assert {each.status for each in replies} == {200}
    assert [each.outcome for each in site.audit.entries if each.action == "log in"] == [AuditOutcome.DONE]


@pytest_twisted.ensureDeferred
async def test_a_credential_from_another_machine_is_refused_unencrypted_and_not_examined(guard: Guard) -> None:
    site = await guard(Shelf("internal", ACME, OPEN), grants=GRANTS)
    assert (await site.get("/index/internal/simple/acme-web/", ALICE)).status == 200
    examined = len(site.audit.entries)
    for path, login, status in (
        ("simple/acme-web/", ALICE, 403),
        ("simple/acme-zzz/", basic("alice", "wrong"), 403),
        ("simple/acme-web/", None, 401),
        ("simple/open-lib/", ALICE, 200),
    ):
        reply = await from_elsewhere(
            site.site, f"/index/internal/{path}", **({} if login is None else {"Authorization": login})
        )
        assert reply.status == status
        if status == 403:
            assert reply.json["code"] == "sent-unencrypted"
            assert "use https" in reply.reason
            assert "acme" not in reply.body.decode()
    assert {each.outcome for each in site.audit.entries[examined:]} == {AuditOutcome.PLAINTEXT, AuditOutcome.LOGIN}
    for options in ({"plaintext": True}, {"trusted": ["198.51.100.0/24"]}):
        site.users.path.unlink()
        site = await guard(Shelf("internal", ACME), grants=GRANTS, **options)
        assert (await from_elsewhere(site.site, "/index/internal/simple/acme-web/", Authorization=ALICE)).status == 200
    for peer, secure, confidential in (
        ("198.51.100.7", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("-", False, True),
        ("10.1.2.3", False, False),
        ("2001:db8::1", False, False),
    ):
        assert site.front.callers.at(peer, "192.0.2.9", secure=secure).confidential is confidential
