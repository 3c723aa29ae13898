"""The keys of issuers: when they are asked for, over what, and what happens when they cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from joserfc.jwk import Key
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import LogEvent, formatEvent

from proxy.core.troubles import Reason
from proxy.identity.issuers import FRESH, PAUSE, USABLE, Issuer, IssuerDown
from proxy.settings import IssuerSettings
from tests.support import certs
from tests.support.exchanges import Ahead, asking
from tests.support.issuer import FakeIssuer

reactor: Any = default_reactor


Make = Callable[..., Issuer]


@pytest.fixture
def ahead() -> Ahead:
    return Ahead()


@pytest.fixture
def make(_clean_reactor: None, ahead: Ahead) -> Iterator[Make]:
    """Makes what asks the given issuer."""
    made: list[Issuer] = []

    def make(fake: FakeIssuer, **settings: Any) -> Issuer:
        made.append(asking(replace(IssuerSettings(name="ci", url=fake.url), **settings), ahead))
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


@pytest.fixture
def start(_clean_reactor: None) -> Iterator[Callable[..., FakeIssuer]]:
    """Starts issuers."""
    made: list[FakeIssuer] = []

    def start(**options: Any) -> FakeIssuer:
        made.append(FakeIssuer(**options).start())
        return made[-1]

    yield start
    for each in made:
        each.stop()


@pytest_twisted.ensureDeferred
async def test_keys_are_fetched_once_for_all_who_ask(start: Callable[..., FakeIssuer], make: Make) -> None:
    fake = start()
    issuer = make(fake)
    asking = [Deferred.fromCoroutine(issuer.key("first", "RS256")) for _ in range(20)]
    found = await DeferredList(asking, fireOnOneErrback=True)
    assert {key and key.kid for _, key in found} == {"first"}
    assert await issuer.key("first", "RS256") is not None
    assert fake.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest_twisted.ensureDeferred
async def test_the_path_of_an_issuer_stays(start: Callable[..., FakeIssuer], make: Make) -> None:
    fake = start(path="/realms/ci")
    assert await make(fake).key("first", "RS256") is not None
    assert fake.asked == ["/realms/ci/.well-known/openid-configuration", "/realms/ci/keys"]


@pytest_twisted.ensureDeferred
async def test_an_authority_of_ones_own_is_trusted_if_it_is_named(
    start: Callable[..., FakeIssuer], make: Make, tmp_path: Path
) -> None:
    fake = start(tls=certs.plain_context(tmp_path))
    with pytest.raises(IssuerDown, match="TLS failure"):
        await make(fake).key("first", "RS256")
    authority = tmp_path / "ca.pem"
    authority.write_bytes(certs.authority().certificate_pem)
    assert await make(fake, ca_file=authority).key("first", "RS256") is not None


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_had_is_reported_for_an_hour_or_until_it_can(
    start: Callable[..., FakeIssuer], make: Make, ahead: Ahead
) -> None:
    fake = start()
    issuer, broken = make(fake), {"/keys": b"no keys"}
    assert issuer.look() is None
    fake.documents.update(broken)
    with pytest.raises(IssuerDown):
        await issuer.key("first", "RS256")
    trouble = issuer.look()
    assert trouble is not None
    assert trouble.reason is Reason.ISSUER
    assert trouble.words.startswith(f"the issuer ci ({fake.url}) ")
    assert trouble.words.endswith(": its CI jobs get no tokens")
    ahead.by += FRESH
    assert issuer.look() is None
    fake.documents.clear()
    assert await issuer.key("first", "RS256") is not None
    fake.documents.update(broken)
    ahead.by += FRESH
    assert await issuer.key("first", "RS256") is not None
    assert str(issuer.look()).count("the keys that are known are used") == 1
    fake.documents.clear()
    ahead.by += PAUSE
    assert await issuer.key("second", "RS256") is None
    assert issuer.look() is None


@pytest_twisted.ensureDeferred
async def test_keys_elsewhere_need_no_discovery(start: Callable[..., FakeIssuer], make: Make) -> None:
    fake = start()
    fake.documents["/elsewhere"] = json.dumps({"keys": [fake.key.as_dict(private=False)]}).encode()
    assert await make(fake, jwks_url=f"{fake.url}/elsewhere").key("first", "RS256") is not None
    assert fake.asked == ["/elsewhere"]


@pytest_twisted.ensureDeferred
async def test_a_new_key_is_fetched_when_a_token_names_it(start: Callable[..., FakeIssuer], make: Make, ahead: Ahead) -> None:
    fake = start()
    issuer = make(fake)
    assert await issuer.key("first", "RS256") is not None
    fake.rotate()
    ahead.by += PAUSE
    assert await issuer.key("second", "ES256") is not None
    assert await issuer.key("first", "RS256") is None
    assert fake.asked.count("/keys") == 2


@pytest_twisted.ensureDeferred
async def test_invented_names_of_keys_make_nobody_ask_without_end(
    start: Callable[..., FakeIssuer], make: Make, ahead: Ahead
) -> None:
    fake = start()
    issuer = make(fake)
    for number in range(50):
        assert await issuer.key(f"invented-{number}", "RS256") is None
    assert fake.asked.count("/keys") == 1
    ahead.by += PAUSE
    for number in range(50):
        assert await issuer.key(f"invented-{number}", "RS256") is None
    assert fake.asked.count("/keys") == 2
    assert await issuer.key("first", "RS256") is not None


@pytest_twisted.ensureDeferred
async def test_keys_are_renewed_every_hour(start: Callable[..., FakeIssuer], make: Make, ahead: Ahead) -> None:
    fake = start()
    issuer = make(fake)
    first = await issuer.key("first", "RS256")
    fake.rotate("first")
    ahead.by += FRESH - 1
    assert await issuer.key("first", "RS256") == first
    ahead.by += 1
    assert await issuer.key("first", "RS256") is None
    assert await issuer.key("first", "ES256") is not None


@pytest_twisted.ensureDeferred
async def test_known_keys_are_used_for_a_day_while_an_issuer_is_down(
    start: Callable[..., FakeIssuer], make: Make, ahead: Ahead, logged: list[LogEvent]
) -> None:
    fake = start()
    issuer = make(fake)
    first = await issuer.key("first", "RS256")
    fake.stop()
    ahead.by += FRESH
    assert await issuer.key("first", "RS256") == first
    ahead.by += USABLE - FRESH - 10
    assert await issuer.key("first", "RS256") == first
    ahead.by += 20
    with pytest.raises(IssuerDown, match=f"the issuer {fake.url} connection refused"):
        await issuer.key("first", "RS256")
    fake.start()
    ahead.by += PAUSE
    assert await issuer.key("first", "RS256") == first
    lines = [formatEvent(each) for each in logged if each.get("log_namespace") == "proxy.identity.issuers.Issuer"]
    assert lines == [f"issuer ci ({fake.url}): connection refused", "issuer ci answers again"]


@pytest_twisted.ensureDeferred
async def test_an_issuer_that_was_never_reached_is_asked_again_after_a_pause(
    start: Callable[..., FakeIssuer], make: Make, ahead: Ahead
) -> None:
    fake = start()
    fake.stop()
    issuer = make(fake)
    for _ in range(2):
        with pytest.raises(IssuerDown, match="connection refused"):
            await issuer.key("first", "RS256")
    fake.start()
    with pytest.raises(IssuerDown, match="connection refused"):
        await issuer.key("first", "RS256")
    assert fake.asked == []
    ahead.by += PAUSE
    assert await issuer.key("first", "RS256") is not None


@pytest_twisted.ensureDeferred
async def test_a_silent_issuer_is_given_up(start: Callable[..., FakeIssuer], make: Make) -> None:
    fake = start()
    fake.hold()
    with pytest.raises(IssuerDown, match="no first byte within"):
        await make(fake).key("first", "RS256")


def discovery(fake: FakeIssuer, **members: object) -> bytes:
    return json.dumps({"issuer": fake.url, "jwks_uri": f"{fake.url}/keys", **members}).encode()


def a_key(key: Key, **members: object) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(private=False), **members}]}).encode()


_DISCOVERY = "/.well-known/openid-configuration"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("path", "document", "said"),
    [
        (_DISCOVERY, lambda fake: b"<html>", "its discovery document is none"),
        (_DISCOVERY, lambda fake: discovery(fake, issuer="https://other.example"), "is that of 'https://other.example'"),
        (_DISCOVERY, lambda fake: discovery(fake, jwks_uri="file:///etc/passwd"), "keys at a URL that is not https"),
        (_DISCOVERY, lambda fake: discovery(fake, jwks_uri=f"{fake.url}/none"), "answered 404"),
        (_DISCOVERY, lambda fake: b" " * 262_145, "sent more than 262,144 bytes"),
        ("/keys", lambda fake: b"<html>", "its keys are none"),
        ("/keys", lambda fake: b'{"keys": []}', "publishes no key"),
        ("/keys", lambda fake: a_key(fake.key, use="enc"), "publishes no key"),
        ("/keys", lambda fake: b" " * 262_145, "sent more than 262,144 bytes"),
    ],
)
async def test_documents_that_cannot_be_used_are_told(
    start: Callable[..., FakeIssuer], make: Make, path: str, document: Callable[[FakeIssuer], bytes], said: str
) -> None:
    fake = start()
    fake.documents[path] = document(fake)
    with pytest.raises(IssuerDown, match=said):
        await make(fake).key("first", "RS256")


@pytest_twisted.ensureDeferred
async def test_an_issuer_over_https_has_its_keys_there_too(
    start: Callable[..., FakeIssuer], make: Make, tmp_path: Path
) -> None:
    plain, fake = start(), start(tls=certs.plain_context(tmp_path))
    fake.documents[_DISCOVERY] = discovery(fake, jwks_uri=f"{plain.url}/keys")
    authority = tmp_path / "ca.pem"
    authority.write_bytes(certs.authority().certificate_pem)
    with pytest.raises(IssuerDown, match="keys at a URL that is not https"):
        await make(fake, ca_file=authority).key("first", "RS256")
    assert plain.asked == []
