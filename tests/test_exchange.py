"""CI jobs exchange ID tokens over HTTP: what they are given, what is refused and how that is told, and what is written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.access.principals import Principal
from proxy.access.rights import Access, Grant, GrantedRights, Permission
from proxy.access.roles import Extent, Role, Scope
from proxy.access.tokens import Confinement, narrowed, read_token
from proxy.core.audited import Audited, AuditOutcome
from proxy.errors import ExchangeRefused
from proxy.identity.exchange import MOST_FAILURES, MOST_TOKENS
from proxy.identity.issuers import PAUSE
from proxy.interfaces import IExchange
from proxy.settings import CiRule
from tests.support import wire
from tests.support.counter import Counter, post
from tests.support.exchanges import JSON, ExchangePlace
from tests.support.issuer import FakeIssuer, rsa_key
from tests.support.receiving import Shop

reactor: Any = default_reactor

RULES = (
    CiRule(
        name="release",
        issuer="github",
        claims=((("repository",), ("acme/widgets",)), (("ref",), ("refs/heads/main", "refs/tags/v*"))),
        role="uploader",
        indexes=("internal",),
        projects=("acme-*",),
    ),
    CiRule(name="builds", issuer="github", claims=((("repository_owner",), ("acme",)),), lifetime=3600.0),
)


class Place(ExchangePlace):
    """A site with an exchange for the jobs of *fake*."""

    def __init__(self, fake: FakeIssuer, folder: Path) -> None:
        super().__init__(fake.url, RULES, folder)
        self.fake = fake

    async def minted(self, token: str | None = None, root: str = "/") -> str:
        """What is given for an ID token."""
        return await self.exchanged(token or self.fake.token(), root)


@pytest.fixture
def place(_clean_reactor: None, tmp_path: Path) -> Iterator[Place]:
    fake = FakeIssuer().start()
    made = Place(fake, tmp_path)
    yield made
    pytest_twisted.blockon(Deferred.fromCoroutine(made.close()))
    fake.stop()


def may(principal: Principal | None, permission: Permission, index: str, project: str, *grants: Grant) -> bool:
    assert principal is not None
    return GrantedRights(grants).may(principal, permission, index, project) is Access.ALLOWED


# -- what a job is given -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_job_is_given_what_its_rule_says_and_no_more(place: Place) -> None:
    principal = await place.who(await place.minted())
    assert str(principal).endswith(" of ci:release")
    assert principal is not None
    assert principal.uploads_as == "ci:release"
    assert may(principal, Permission.UPLOAD, "internal", "acme-widgets")
    assert not may(principal, Permission.UPLOAD, "internal", "other")
    assert not may(principal, Permission.UPLOAD, "closed", "acme-widgets")
    assert not may(principal, Permission.MAINTAIN, "internal", "acme-widgets")
    restricted = Grant(Scope(Role.READER), ("authenticated",))
    assert may(principal, Permission.READ, "internal", "acme-widgets", restricted)
    assert not may(principal, Permission.READ, "internal", "other", restricted)


@pytest_twisted.ensureDeferred
async def test_the_first_rule_that_fits_counts_and_grants_name_jobs(place: Place) -> None:
    principal = await place.who(await place.minted(place.fake.token({"ref": "refs/heads/feature"})))
    assert str(principal).endswith(" of ci:builds")
    assert not may(principal, Permission.UPLOAD, "internal", "acme-widgets")
    granted = Grant(Scope(Role.UPLOADER, Extent(("internal",))), ("ci:builds",))
    assert may(principal, Permission.UPLOAD, "internal", "acme-widgets", granted)
    assert not may(principal, Permission.UPLOAD, "internal", "acme-widgets", replace(granted, principals=("ci:release",)))
    assert not may(principal, Permission.UPLOAD, "internal", "acme-widgets", replace(granted, principals=("authenticated",)))


@pytest_twisted.ensureDeferred
async def test_a_token_lives_as_long_as_its_rule_says(place: Place) -> None:
    reply = await place.send("mint-token", {"token": place.fake.token()})
    assert 899 <= reply.json["expires"] - place.ahead.wall() <= 900
    assert reply.headers["cache-control"] == "no-store"
    token = reply.json["token"]
    assert await place.who(token) is not None
    place.ahead.by += 890
    assert await place.who(token) is not None
    place.ahead.by += 10
    assert await place.who(token) is None


@pytest_twisted.ensureDeferred
async def test_an_id_token_may_be_exchanged_again(place: Place) -> None:
    id_token = place.fake.token({"jti": "once"})
    first, second = await place.minted(id_token), await place.minted(id_token)
    assert first != second
    assert await place.who(first) is not None
    assert await place.who(second) is not None


@pytest_twisted.ensureDeferred
async def test_a_token_from_the_endpoint_of_an_index_is_good_there_alone(place: Place) -> None:
    id_token = place.fake.token({"ref": "refs/heads/feature"})
    everywhere = Grant(Scope(Role.UPLOADER), ("ci:builds",))
    principal = await place.who(await place.minted(id_token, "/index/internal/"))
    assert may(principal, Permission.UPLOAD, "internal", "six", everywhere)
    assert not may(principal, Permission.UPLOAD, "closed", "six", everywhere)
    reply = await place.send("mint-token", {"token": place.fake.token()}, "/index/closed/")
    assert reply.status == 422
    assert reply.json["errors"][0]["description"] == "the token is good, but its job may do nothing on closed"


@pytest_twisted.ensureDeferred
async def test_what_is_not_needed_any_more_is_given_back(place: Place) -> None:
    burnt, kept = await place.minted(), await place.minted()
    assert await place.who(burnt) is not None
    assert await place.who(kept) is not None
    reply = await place.send("burn-token", {"token": burnt})
    assert reply.status == 202
    assert await place.who(burnt) is None
    assert await place.who(kept) is not None
    for other in (burnt, "ppx_none", ""):
        assert (await place.send("burn-token", {"token": other})).status == 202
    shorter = narrowed(read_token(kept), Confinement(projects=("acme-x",)), bytes(range(32)))
    assert (await place.send("burn-token", {"token": str(shorter)})).status == 202
    assert await place.who(kept) is None


# -- what is refused ---------------------------------------------------------------------------------------------------------


def tokens() -> Mapping[str, tuple[Callable[[FakeIssuer], str], str, str]]:
    """ID tokens that are not exchanged, by what is wrong; the code and a part of the description of the answer."""
    other = rsa_key("first")
    return {
        "no token": (lambda fake: "x", "invalid-payload", "no signed JSON Web Token"),
        "another issuer": (
            lambda fake: fake.token({"iss": "https://ci.example"}),
            "invalid-issuer",
            "the issuer of the token, 'https://ci.example', is not known here",
        ),
        "an issuer that is nearly the same": (lambda fake: fake.token({"iss": f"{fake.url}/"}), "invalid-issuer", "not known"),
        "another audience": (lambda fake: fake.token({"aud": "pypi"}), "invalid-token", "audience 'pypiproxy'"),
        "a job of others": (
            lambda fake: fake.token({"repository": "evil/widgets", "repository_owner": "evil"}),
            "invalid-publisher",
            "no rule of this proxy is for its job (sub: repo:acme/widgets:ref:refs/heads/main; repository: evil/widgets;",
        ),
        "expired": (lambda fake: fake.token({"exp": 1}), "invalid-token", "has expired"),
        "another key": (lambda fake: fake.token(key=other), "invalid-token", "not signed by its issuer"),
        "an unknown key": (
            lambda fake: fake.token(header={"kid": "third"}),
            "invalid-token",
            "a key that its issuer does not publish",
        ),
        "no algorithm": (lambda fake: "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.AAAA", "invalid-algorithm", "signed with 'none'"),
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("what", tokens())
async def test_what_is_not_exchanged_is_told(place: Place, what: str) -> None:
    make, code, said = tokens()[what]
    status, answered, description = await place.refusal(make(place.fake))
    assert (status, answered) == (422, code)
    assert said in description
    assert place.audit.entries == [
        Audited("an ID token", "127.0.0.1", "exchange an ID token", AuditOutcome.WRONG, what=code),
    ]


@pytest_twisted.ensureDeferred
async def test_the_rules_are_told_to_operators_alone(place: Place, logged: list[LogEvent]) -> None:
    token = place.fake.token({"repository": "evil/widgets", "repository_owner": "evil"})
    _, _, description = await place.refusal(token)
    assert "builds" not in description
    assert "v*" not in description
    (line,) = [formatEvent(each) for each in logged if each.get("log_namespace", "").startswith("proxy.identity.exchange")]
    assert line == (
        "an ID token of 'repo:acme/widgets:ref:refs/heads/main' fits no rule: ci:release wants repository to be one of"
        " ['acme/widgets'], and it is ['evil/widgets']"
    )


@pytest_twisted.ensureDeferred
async def test_an_issuer_that_is_down_affects_only_new_tokens(place: Place) -> None:
    minted = await place.minted()
    place.fake.stop()
    assert await place.minted()  # its keys are known
    place.ahead.by += 86_400
    now = int(place.ahead.wall())
    status, code, description = await place.refusal(place.fake.token({"iat": now, "nbf": now, "exp": now + 300}))
    assert (status, code) == (503, "issuer-down")
    assert description == f"the issuer {place.fake.url} connection refused; try again in a moment"
    place.ahead.by -= 86_400
    assert await place.who(minted) is not None


@pytest_twisted.ensureDeferred
async def test_keys_that_were_changed_are_used_at_once(place: Place) -> None:
    await place.minted()
    before = place.fake.token()
    place.fake.rotate()
    place.ahead.by += PAUSE
    await place.minted()
    assert (await place.refusal(before))[1] == "invalid-token"


@pytest_twisted.ensureDeferred
async def test_failures_of_one_address_are_limited_and_delay_nobody_who_is_right(place: Place) -> None:
    for _ in range(MOST_FAILURES):
        assert (await place.refusal("x"))[0] == 422
    reply = await place.send("mint-token", {"token": "x"})
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) > 0
    assert await place.minted()
    place.ahead.by += 60
    assert (await place.refusal("x"))[0] == 422


@pytest_twisted.ensureDeferred
async def test_all_addresses_of_an_ipv6_network_have_the_failures_of_one(place: Place) -> None:
    async def status(address: str) -> int:
        with pytest.raises(ExchangeRefused) as caught:
            await place.exchange.mint("x", None, address)
        return caught.value.status

    assert {await status(f"2001:db8::{number:x}") for number in range(MOST_FAILURES)} == {422}
    assert [await status(each) for each in ("2001:db8::1:1", "2001:db8:0:1::1", "192.0.2.1")] == [429, 422, 422]


@pytest_twisted.ensureDeferred
async def test_nobody_is_given_tokens_without_end(place: Place) -> None:
    token = place.fake.token()
    for _ in range(MOST_TOKENS):
        await place.minted(token)
    status, code, _ = await place.refusal(token)
    assert (status, code) == (429, "too-many-requests")
    assert await place.minted(place.fake.token({"sub": "another job"}))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b'{"token": 1}', 400),
        (b"\xff", 400),
        (b'{"token": "' + b"[" * 5000, 400),
        (b'{"token": "' + b"x" * 65_536 + b'"}', 413),
        (b'{"token": ""}', 422),
    ],
)
async def test_bodies_that_are_none_are_told_in_the_same_form(place: Place, body: bytes, status: int) -> None:
    reply = await post(place.counter.port, "/_/oidc/mint-token", body, JSON)
    assert reply.status == status
    assert reply.json["message"] == "Token request failed"
    assert set(reply.json["errors"][0]) == {"code", "description"}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("verb", ["mint-token", "burn-token"])
async def test_tokens_that_others_may_have_read_are_not_looked_at(place: Place, verb: str) -> None:
    transport = StringTransport(peerAddress=IPv4Address("TCP", "198.51.100.7", 40000))
    channel = place.counter.site.buildProtocol(None)
    channel.makeConnection(transport)
    body = json.dumps({"token": place.fake.token()}).encode()
    head = f"POST /_/oidc/{verb} HTTP/1.1\r\nHost: proxy.example\r\nContent-Length: {len(body)}\r\n\r\n"
    channel.dataReceived(head.encode() + body)
    while b"\r\n\r\n" not in transport.value():
        await deferLater(reactor, 0)
    channel.connectionLost(Failure(ConnectionDone()))
    reply = wire.parse(transport.value())
    assert reply.status == 403
    assert reply.json["errors"][0]["code"] == "sent-unencrypted"
    assert "token" not in reply.json
    assert place.fake.asked == []


# -- what is written down ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_what_was_given_to_whom_is_written_down_without_secrets(place: Place, logged: list[LogEvent]) -> None:
    id_token = place.fake.token()
    minted = await place.minted(id_token, "/index/internal/")
    await place.send("burn-token", {"token": minted})
    subject = "github: repo:acme/widgets:ref:refs/heads/main"
    assert place.audit.entries == [
        Audited("ci:release", "127.0.0.1", "exchange an ID token", AuditOutcome.DONE, "internal", what=subject),
        Audited("ci:release", "127.0.0.1", "give back a token", AuditOutcome.DONE),
    ]
    everything = "\n".join(f"{formatEvent(each)} {each}" for each in logged)
    assert id_token not in everything
    assert minted not in everything


# -- the endpoints -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("root", ["/", "/index/internal/", "/index/shelf/"])
async def test_the_audience_is_told(place: Place, root: str) -> None:
    reply = await wire.fetch(place.counter.port, f"{root}_/oidc/audience")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {"audience": "pypiproxy"}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/_/oidc/audience", 405, "GET, HEAD"),
        ("GET", "/_/oidc/mint-token", 405, "POST"),
        ("PUT", "/_/oidc/mint-token", 405, "POST"),
        ("GET", "/_/oidc/burn-token", 405, "POST"),
        ("HEAD", "/_/oidc/audience", 200, None),
        ("GET", "/_/oidc/other", 404, None),
        ("GET", "/_/oidc/", 404, None),
        ("GET", "/index/none/_/oidc/audience", 404, None),
        ("GET", "/.well-known/pytp/none", 404, None),
        ("GET", "/.well-known/pytp/", 404, None),
        ("POST", "/.well-known/pytp/none", 405, "GET, HEAD"),
    ],
)
async def test_methods_and_paths_that_there_are_not(
    place: Place, method: str, path: str, status: int, allow: str | None
) -> None:
    reply = await wire.fetch(place.counter.port, path, method)
    assert reply.status == status
    assert reply.headers.get("allow") == allow


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/index/internal/", "/index/internal", "/index/internal/legacy/", "/index/internal/legacy"])
async def test_the_endpoints_of_an_upload_url_are_discovered(place: Place, path: str) -> None:
    key = hashlib.sha256(path.encode()).hexdigest()
    media = "application/vnd.pypi.pytp.v1+json"
    reply = await wire.fetch(place.counter.port, f"/.well-known/pytp/{key}", Host="packages.example", Accept=media)
    assert reply.status == 200
    assert reply.headers["content-type"] == media
    base = "http://packages.example/index/internal/_/oidc/"
    assert reply.json == {"audience-endpoint": f"{base}audience", "mint-token-endpoint": f"{base}mint-token"}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/", "", "/legacy/", "/index/closed/", "/index/closed/legacy/", "/index/shelf/", "/simple/"])
async def test_what_takes_no_uploads_has_no_endpoints_to_discover(place: Place, path: str) -> None:
    key = hashlib.sha256(path.encode()).hexdigest()
    assert (await wire.fetch(place.counter.port, f"/.well-known/pytp/{key}")).status == 404


@pytest_twisted.ensureDeferred
async def test_the_default_index_has_its_endpoints_at_the_root(place: Place) -> None:
    counter = Counter(Shop("internal"), default="internal", exchange=Silent()).open()
    for path in ("/", "", "/legacy/", "/legacy"):
        key = hashlib.sha256(path.encode()).hexdigest()
        reply = await wire.fetch(counter.port, f"/.well-known/pytp/{key}", Host="packages.example")
        assert reply.json["audience-endpoint"] == "http://packages.example/_/oidc/audience"
    await counter.close()


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("_clean_reactor")
async def test_without_rules_there_is_no_exchange() -> None:
    counter = Counter(Shop("internal"), default="internal").open()
    key = hashlib.sha256(b"/").hexdigest()
    for path in ("/_/oidc/audience", "/index/internal/_/oidc/audience", f"/.well-known/pytp/{key}"):
        assert (await wire.fetch(counter.port, path)).status == 404
    assert (await post(counter.port, "/_/oidc/mint-token", b'{"token": "x"}', JSON)).status == 404
    await counter.close()


@implementer(IExchange)
class Silent:
    """An exchange that nobody asks anything."""

    audience = "pypiproxy"

    async def mint(self, id_token: str, index: str | None, origin: str) -> Any:
        raise AssertionError(id_token)

    async def burn(self, token: str, origin: str) -> None:
        raise AssertionError(token)
