"""Passwords, tokens, certificates and authorities of an upstream that are replaced while the proxy runs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.logger import LogEvent, formatEvent

from tests.inprocess import Running, Start, upstream_settings
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream, Fault, Request
from tests.support.replacing import replace

Make = Callable[..., FakeUpstream]

DATA = b"data" * 3000
FILE = "six-1.0.tar.gz"
NAMES = ("six", "seven", "eight", "nine")


def filled(upstream: FakeUpstream) -> FakeUpstream:
    for name in NAMES:
        upstream.add_file(name, FILE, DATA)
    return upstream


async def status(proxy: Running, name: str) -> int:
    return (await proxy.get(f"/simple/{name}/")).status


async def looked(proxy: Running) -> str:
    """What the proxy says of itself, after a look at all files."""
    return (await proxy.get("/-/ready")).body.decode()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("old\n")
    path.chmod(0o600)
    return path


def with_token(upstream: FakeUpstream, file: Path) -> Any:
    return upstream_settings(upstream.url, "corp", token="old", token_file=file)


def refuse_all_but(upstream: FakeUpstream, token: str) -> None:
    """Have *upstream* answer 401 to everything without *token*."""

    def refused(request: Request) -> bool:
        return request.headers.get("authorization") != f"Bearer {token}"

    upstream.script(refused, Fault(status=401))


# -- passwords and tokens -----------------------------------------------------------------------------------------------------


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("key", "before", "after", "sent"),
    [
        ("token_file", "old\n", "new\n", ["Bearer old", "Bearer new"]),
        ("password_file", "old\n", "new\n", [basic("ci", "old"), basic("ci", "new")]),
        (
            "netrc",
            "machine 127.0.0.1 login ci password old\n",
            "machine 127.0.0.1 login bot password new\n",
            [basic("ci", "old"), basic("bot", "new")],
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_next_request_has_the_new_secret(
    upstream: FakeUpstream, run: Start, secret: Path, key: str, before: str, after: str, sent: list[str]
) -> None:
    secret.write_text(before)
    known = {"token": "old"} if key == "token_file" else {"username": "ci", "password": "old"}
    proxy = await run(upstream_settings(filled(upstream).url, "corp", **{**known, key: secret}))
    assert await status(proxy, "six") == 200
    replace(secret, after)
    assert await looked(proxy) == "ready\n"
    assert await status(proxy, "seven") == 200
    assert [request.headers["authorization"] for request in upstream.asked] == sent


@pytest_twisted.ensureDeferred
async def test_a_401_is_reason_to_look_at_once_and_to_ask_once_more(upstream: FakeUpstream, run: Start, secret: Path) -> None:
    proxy = await run(with_token(filled(upstream), secret))
    assert await status(proxy, "six") == 200
    assert await looked(proxy) == "ready\n"  # the look at the start may come as late as this
    refuse_all_but(upstream, "new")
    replace(secret, "new")
    assert await status(proxy, "seven") == 200
    assert [request.headers["authorization"] for request in upstream.asked] == ["Bearer old", "Bearer old", "Bearer new"]


@pytest.mark.parametrize(("there", "asked"), [("old", 1), ("other", 2), (None, 1)], ids=["unchanged", "wrong too", "gone"])
@pytest_twisted.ensureDeferred
async def test_a_401_is_the_answer_if_the_file_has_nothing_better(
    upstream: FakeUpstream, run: Start, secret: Path, there: str | None, asked: int, logged: list[LogEvent]
) -> None:
    proxy = await run(with_token(filled(upstream), secret))
    refuse_all_but(upstream, "new")
    if there is None:
        secret.unlink()
    else:
        secret.write_text(there)
    reply = await proxy.get("/simple/six/")
    assert (reply.status, "401" in reply.reason, upstream.count()) == (503, True, asked)
    assert not any(word in repr(logged) + reply.reason for word in ("Bearer", "other"))


@pytest_twisted.ensureDeferred
async def test_a_401_without_a_file_is_the_answer(upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream_settings(filled(upstream).url, "corp", token="old"))
    refuse_all_but(upstream, "new")
    assert await status(proxy, "six") == 503
    assert upstream.count() == 1


@pytest_twisted.ensureDeferred
async def test_a_file_that_breaks_leaves_the_last_secret_and_is_told_until_it_is_mended(
    upstream: FakeUpstream, run: Start, secret: Path, logged: list[LogEvent]
) -> None:
    proxy = await run(with_token(filled(upstream), secret))
    words = "upstream.corp.token_file cannot be read: No such file or directory"
    secret.unlink()
    for _ in range(3):
        assert await looked(proxy) == f"degraded: {words}: the last good value is still used\n"
    metrics = (await proxy.get("/-/metrics")).body.decode()
    assert 'pypiproxy_degraded{reason="secret-not-usable"} 1.0' in metrics
    assert 'pypiproxy_events_total{event="replaced secret or certificate not usable"} 1.0' in metrics
    assert await status(proxy, "six") == 200
    secret.write_text("new")
    assert await looked(proxy) == "ready\n"
    assert await status(proxy, "seven") == 200
    assert [request.headers["authorization"] for request in upstream.asked] == ["Bearer old", "Bearer new"]
    said = [formatEvent(event) for event in logged if "token_file" in str(formatEvent(event))]
    assert said == [
        f"{words} ({secret}): the last good value is still used",
        "upstream.corp.token_file: can be used again",
        "upstream.corp.token_file: changed, and used from now on",
    ]
    metrics = (await proxy.get("/-/metrics")).body.decode()
    assert 'pypiproxy_events_total{event="secret or certificate replaced"} 1.0' in metrics


# -- client certificates ------------------------------------------------------------------------------------------------------


class Guest:
    """A context for a server that demands a client's certificate, and notes whose was shown."""

    def __init__(self) -> None:
        self.context = certs.server_context(demand_client=True)
        self.names: list[str] = []
        demand = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        self.context.getContext().set_verify(demand, self._shown)

    def _shown(self, connection: object, certificate: Any, error: int, depth: int, fine: int) -> bool:
        if depth == 0:
            self.names.append(certificate.to_cryptography().subject.rfc4514_string())
        return bool(fine)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return certs.authority().write(tmp_path, "ca")[0]


@pytest.mark.parametrize("files", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_new_client_certificate_is_shown_on_new_connections_and_no_old_one_is_used(
    make_upstream: Make, run: Start, authority: Path, tmp_path: Path, files: int
) -> None:
    guest = Guest()
    upstream = filled(make_upstream(tls=guest.context))
    certificate, key = certs.client("first").write(tmp_path, "client")
    if files == 1:
        certificate.write_bytes(certs.client("first").certificate_pem + certs.client("first").key_pem)
    pair = {"client_cert": certificate, "client_key": key if files == 2 else None}
    proxy = await run(upstream_settings(upstream.url, "corp", ca_file=authority, **pair))
    assert await status(proxy, "six") == 200
    assert await status(proxy, "seven") == 200
    assert guest.names == ["CN=first"]  # both on one connection

    second = certs.client("second")
    if files == 2:
        replace(certificate, second.certificate_pem)
        assert "degraded: upstream.corp.client_cert: expected PEM files" in await looked(proxy)
        assert await status(proxy, "eight") == 200
        assert guest.names == ["CN=first"]  # a certificate and the key of another: the last good pair is used
    replace(key if files == 2 else certificate, second.key_pem if files == 2 else second.certificate_pem + second.key_pem)
    assert await looked(proxy) == "ready\n"
    await upstream.until(lambda: upstream.connections == 0)
    assert await status(proxy, "nine") == 200
    assert guest.names == ["CN=first", "CN=second"]


@pytest_twisted.ensureDeferred
async def test_an_encrypted_key_is_refused_without_a_question_on_the_terminal(
    make_upstream: Make, run: Start, authority: Path, tmp_path: Path
) -> None:
    upstream = filled(make_upstream(tls=certs.server_context()))
    certificate, key = certs.client().write(tmp_path, "client")
    settings = upstream_settings(upstream.url, "corp", ca_file=authority, client_cert=certificate, client_key=key)
    proxy = await run(settings)
    replace(key, certs.client().encrypted_key_pem)
    assert "the key is encrypted" in await looked(proxy)
    assert await status(proxy, "six") == 200


# -- authorities --------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_new_authority_is_trusted_by_new_connections(make_upstream: Make, run: Start, authority: Path) -> None:
    other = make_upstream(tls=certs.server_context(certs.server(issuer="another")))
    upstream = make_upstream(tls=certs.server_context(), file_host=other)
    filled(upstream)
    settings = upstream_settings(upstream.url, "corp", ca_file=authority)
    before, after = await run(settings), await run(settings, data="after")
    reply = await before.get(await before.link("six", FILE))
    assert (reply.status, "TLS failure" in reply.reason) == (503, True)
    link = await after.link("six", FILE)
    replace(authority, certs.authority().certificate_pem + certs.authority("another").certificate_pem)
    assert await looked(after) == "ready\n"
    assert (await after.get(link)).body == DATA


@pytest_twisted.ensureDeferred
async def test_an_authority_that_is_no_longer_trusted_ends_idle_connections_and_no_answer(
    make_upstream: Make, run: Start, authority: Path
) -> None:
    upstream = filled(make_upstream(tls=certs.server_context()))
    proxy = await run(upstream_settings(upstream.url, "corp", ca_file=authority))
    link = await proxy.link("six", FILE)
    gate = upstream.hold("/packages/*", after=100)
    download = await proxy.connect(link)
    await upstream.until(lambda: gate.arrivals == 1)
    assert await status(proxy, "seven") == 200
    assert upstream.connections == 2
    replace(authority, certs.authority("another").certificate_pem)
    assert await looked(proxy) == "ready\n"
    await upstream.until(lambda: upstream.connections == 1)
    gate.release()
    await download.ended
    assert wire.parse(bytes(download.received)).body == DATA
    await upstream.until(lambda: upstream.connections == 0)
    reply = await proxy.get("/simple/eight/")
    assert (reply.status, "TLS failure" in reply.reason) == (503, True)


@pytest.mark.parametrize("text", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest_twisted.ensureDeferred
async def test_a_file_of_authorities_that_is_none_leaves_the_last_ones(
    make_upstream: Make, run: Start, authority: Path, text: bytes
) -> None:
    upstream = filled(make_upstream(tls=certs.server_context()))
    proxy = await run(upstream_settings(upstream.url, "corp", ca_file=authority))
    replace(authority, text)
    assert (await looked(proxy)).startswith("degraded: upstream.corp.ca_file ")
    assert await status(proxy, "six") == 200
