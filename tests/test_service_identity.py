"""A whole service in which CI jobs, users of a directory and users of a reverse proxy read a restricted index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.logger import LogEvent, formatEvent

from proxy.settings import (
    AccessSettings,
    CiRule,
    CiSettings,
    GrantSettings,
    IssuerSettings,
    LdapSettings,
    ReverseProxySettings,
)
from tests.inprocess import Running, Start
from tests.support.counter import post
from tests.support.fake_upstream import FakeUpstream
from tests.support.issuer import FakeIssuer
from tests.support.logins import basic
from tests.support.slapd import BASE, READER, READER_PASSWORD, SLAPADD, SLAPD, Slapd
from tests.support.wheels import wheel

JSON = "application/json"
READERS = (GrantSettings(role="reader", principals=("group:web", "ci:builds")),)


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream with a project."""
    made = wheel("six")
    upstream.add_file("six", made.filename, made.data)
    return upstream


@pytest.fixture
def issuer(_clean_reactor: None) -> Iterator[FakeIssuer]:
    made = FakeIssuer().start()
    yield made
    made.stop()


async def status(service: Running, login: str | None = None, **headers: str) -> int:
    """That of the answer to a request for a page."""
    credential = {} if login is None else {"Authorization": login}
    return (await service.get("/simple/six/", **credential, **headers)).status


# -- CI jobs -----------------------------------------------------------------------------------------------------------------


def jobs_of(issuer: FakeIssuer) -> CiSettings:
    owner = ((("repository_owner",), ("acme",)),)
    return CiSettings(
        issuers=(IssuerSettings(name="github", url=issuer.url),),
        rules=(
            CiRule(name="reads", issuer="github", claims=((("ref",), ("refs/heads/main",)),), role="reader", indexes=("*",)),
            CiRule(name="builds", issuer="github", claims=owner),
        ),
    )


async def exchanged(service: Running, token: str) -> Any:
    reply = await post(service.port, "/_/oidc/mint-token", json.dumps({"token": token}).encode(), JSON)
    assert reply.status == 200, reply.body
    return reply.json["token"]


@pytest_twisted.ensureDeferred
async def test_a_job_reads_a_restricted_index(
    run: Start, stocked: FakeUpstream, issuer: FakeIssuer, tmp_path: Path, logged: list[LogEvent]
) -> None:
    access = AccessSettings(groups={"web": ("alice",)})
    service = await run(stocked, access=access, grants=READERS, ci=jobs_of(issuer))
    assert await status(service) == 401
    id_token = issuer.token()
    token = await exchanged(service, id_token)
    assert await status(service, basic("__token__", token)) == 200
    assert await status(service, f"Bearer {token}") == 200
    granted = await exchanged(service, issuer.token({"ref": "refs/heads/feature"}))
    assert await status(service, basic("any", granted)) == 200
    burnt = await post(service.port, "/_/oidc/burn-token", json.dumps({"token": granted}).encode(), JSON)
    assert burnt.status == 202
    assert await status(service, basic("any", granted)) == 401
    issuer.stop()
    assert await status(service, f"Bearer {token}") == 200
    await service.stop()
    audit = (tmp_path / "data" / "audit.jsonl").read_text()
    lines = [json.loads(each) for each in audit.splitlines()]
    assert [(each["who"], each["outcome"]) for each in lines if each["action"] == "exchange an ID token"] == [
        ("ci:reads", "done"),
        ("ci:builds", "done"),
    ]
    everything = audit + "\n".join(f"{formatEvent(each)} {each}" for each in logged)
    assert not any(each in everything for each in (id_token, token, granted))


@pytest_twisted.ensureDeferred
async def test_a_rule_that_lets_jobs_read_restricts_what_they_read(
    run: Start, stocked: FakeUpstream, issuer: FakeIssuer
) -> None:
    service = await run(stocked, ci=jobs_of(issuer))
    assert await status(service) == 401
    assert await status(service, f"Bearer {await exchanged(service, issuer.token())}") == 200


@pytest_twisted.ensureDeferred
async def test_an_issuer_that_is_down_is_reported_and_changes_nothing_else(
    run: Start, stocked: FakeUpstream, issuer: FakeIssuer
) -> None:
    service = await run(stocked, ci=jobs_of(issuer), grants=(GrantSettings(role="reader", principals=("anonymous",)),))
    id_token = issuer.token()
    issuer.stop()
    reply = await post(service.port, "/_/oidc/mint-token", json.dumps({"token": id_token}).encode(), JSON)
    assert reply.status == 503, reply
    ready = await service.get("/-/ready")
    words = f"degraded: the issuer github ({issuer.url}) connection refused"
    assert (ready.status, words in ready.body.decode()) == (200, True), ready
    assert 'pypiproxy_degraded{reason="issuer-down"} 1.0' in (await service.get("/-/metrics")).body.decode()
    assert await status(service) == 200


@pytest_twisted.ensureDeferred
async def test_without_the_table_there_is_no_exchange(run: Start, stocked: FakeUpstream) -> None:
    service = await run(stocked)
    assert (await service.get("/_/oidc/audience")).status == 404


# -- users of a reverse proxy ------------------------------------------------------------------------------------------------

STATED = ReverseProxySettings(user_header="X-Remote-User", groups_header="X-Remote-Groups")
WEB = {"X-Remote-User": "carol", "X-Remote-Groups": "Web Developers, others"}
STATING = AccessSettings(groups={"web": ("alice", "group:Web Developers")}, reverse_proxy=STATED)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (WEB, 200),
        ({"X-Remote-User": "alice"}, 200),
        ({"X-Remote-User": "carol"}, 404),
        ({"X-Remote-User": "carol", "X-Remote-Groups": "web"}, 404),
        ({"X-Remote-Groups": "Web Developers"}, 401),
        ({"X-Remote-User": "not a name", "X-Remote-Groups": "Web Developers"}, 401),
        ({}, 401),
    ],
)
async def test_who_a_trusted_proxy_states_reads_what_it_may(
    run: Start, stocked: FakeUpstream, stated: Mapping[str, str], expected: int
) -> None:
    service = await run(stocked, access=STATING, grants=READERS, trusted_proxies=("127.0.0.1",))
    for _ in range(3):  # the third time from what is remembered of the first
        assert await status(service, **stated) == expected


@pytest_twisted.ensureDeferred
async def test_what_is_remembered_for_one_user_is_not_for_another(run: Start, stocked: FakeUpstream) -> None:
    service = await run(stocked, access=STATING, grants=READERS, trusted_proxies=("127.0.0.1",))
    for _ in range(3):
        assert await status(service, X_Remote_User="alice") == 200
        assert await status(service, X_Remote_User="bob") == 404
        assert await status(service) == 401
    reply = await service.get("/simple/six/", X_Remote_User="alice")
    assert "private" in reply.headers["cache-control"]


@pytest_twisted.ensureDeferred
async def test_nobody_else_states_anybody(run: Start, stocked: FakeUpstream) -> None:
    service = await run(stocked, access=STATING, grants=READERS, trusted_proxies=("192.0.2.1",))
    for _ in range(3):
        assert await status(service, **WEB) == 401
        assert await status(service, X_Forwarded_For="192.0.2.1", **WEB) == 401


@pytest_twisted.ensureDeferred
async def test_without_the_table_the_headers_mean_nothing(run: Start, stocked: FakeUpstream) -> None:
    access = AccessSettings(groups={"web": ("alice",)})
    service = await run(stocked, access=access, grants=READERS, trusted_proxies=("127.0.0.1",))
    assert await status(service, X_Remote_User="alice") == 401


@pytest_twisted.ensureDeferred
async def test_a_stated_user_goes_before_a_credential(run: Start, stocked: FakeUpstream, issuer: FakeIssuer) -> None:
    service = await run(stocked, access=STATING, grants=READERS, ci=jobs_of(issuer), trusted_proxies=("127.0.0.1",))
    token = basic("__token__", await exchanged(service, issuer.token()))
    assert await status(service, token) == 200
    assert await status(service, token, X_Remote_User="bob") == 404
    assert await status(service, basic("alice", "wrong"), X_Remote_User="alice") == 200


# -- users of a directory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def slapd(tmp_path: Path) -> Iterator[Slapd]:
    pytest.importorskip("ldap", reason="python-ldap is not here (pip install 'pypiproxy[ldap]')")
    if SLAPD is None or SLAPADD is None:
        pytest.skip("slapd is not here (Debian: apt install slapd)")
    made = Slapd(tmp_path / "slapd").prepare().start()
    yield made
    made.stop()


@pytest_twisted.ensureDeferred
async def test_users_of_a_directory_read_what_their_groups_may(run: Start, stocked: FakeUpstream, slapd: Slapd) -> None:
    ldap = LdapSettings(
        url=slapd.url,
        ca_file=slapd.ca_file,
        bind_dn=READER,
        bind_password=READER_PASSWORD,
        base=f"ou=people,{BASE}",
        group_base=f"ou=groups,{BASE}",
    )
    access = AccessSettings(groups={"web": ("group:Web Developers",)}, ldap=ldap)
    service = await run(stocked, access=access, grants=READERS)
    assert await status(service) == 401
    assert await status(service, basic("alice", "alice's pässword")) == 200
    assert await status(service, basic("bob", "bob's")) == 404
    assert await status(service, basic("alice", "wrong")) == 401
    slapd.stop()
    assert await status(service, basic("alice", "alice's pässword")) == 200  # for a minute
    reply = await service.get("/simple/six/", Authorization=basic("odd", "odd's"))
    assert reply.status == 503
    assert "the directory does not answer" in reply.reason
    ready = await service.get("/-/ready")
    assert (ready.status, b"degraded: the directory of access.ldap does not answer (" in ready.body) == (200, True), ready
    assert 'pypiproxy_degraded{reason="rights-unknown"} 1.0' in (await service.get("/-/metrics")).body.decode()
    slapd.start()
    assert await status(service, basic("bob", "wrong")) == 401
    assert (await service.get("/-/ready")).body == b"ready\n"
