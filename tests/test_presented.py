"""The listener's certificates: what a handshake presents after its files were replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import LogEvent, formatEvent

from proxy.errors import ConfigError
from proxy.host import listening
from proxy.host.presented import Arguments, keys_of
from tests.inprocess import LOOPBACK, Running, Start
from tests.support import certs, wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.replacing import replace

FIRST, SECOND = (
    certs.server("127.0.0.1", "localhost", "first.example"),
    certs.server("127.0.0.1", "localhost", "second.example"),
)


class Place:
    """A running proxy with a TLS listener beside the plain one."""

    def __init__(self, proxy: Running) -> None:
        self.proxy = proxy
        (port,) = proxy.service.listenings[1].ports
        address: Any = port.getHost()
        self._port = address.port

    async def connected(self, name: str = "127.0.0.1", protocols: tuple[bytes, ...] | None = None) -> wire.Client:
        """A connection to the TLS listener by a client that offers *protocols*, on which a request was answered."""
        trusted = trustRootFromCertificates([Certificate.loadPEM(certs.authority().certificate_pem)])
        client = await wire.connect(self._port, optionsForClientTLS(name, trusted, acceptableProtocols=protocols))
        await self.ask(client)
        return client

    async def ask(self, client: wire.Client) -> None:
        client.ask("/-/live")
        await client.until(lambda: client.body == b"alive\n")

    async def presented(self, name: str = "127.0.0.1") -> int:
        """The number of the certificate in a handshake of now."""
        client = await self.connected(name)
        number = presented_to(client)
        client.transport.loseConnection()
        await client.ended
        return number

    async def looked(self) -> str:
        return (await self.proxy.get("/-/ready")).body.decode()


@pytest.mark.parametrize("offered", [(b"h2", b"http/1.1"), (b"http/1.1",), None], ids=["curl", "pip", "none"])
@pytest_twisted.ensureDeferred
async def test_clients_that_offer_protocols_speak_http_1(
    upstream: FakeUpstream, run: Start, tmp_path: Path, offered: tuple[bytes, ...] | None
) -> None:
    place = await listening_at(run, upstream, pair_at(*FIRST.write(tmp_path, "server")))
    client = await place.connected(protocols=offered)
    assert client.transport.negotiatedProtocol == (offered and b"http/1.1")
    client.transport.loseConnection()
    await client.ended


def presented_to(client: wire.Client) -> int:
    number: int = client.transport.getPeerCertificate().get_serial_number()
    return number


def number_of(identity: certs.Identity) -> int:
    return identity.certificate.serial_number


async def listening_at(run: Start, upstream: FakeUpstream, endpoint: str) -> Place:
    return Place(await run(upstream, listen=(LOOPBACK, endpoint)))


def pair_at(certificate: Path, key: Path) -> str:
    return f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"


@pytest_twisted.ensureDeferred
async def test_the_next_handshake_has_the_new_certificate_and_connections_go_on(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    certificate, key = FIRST.write(tmp_path, "server")
    place = await listening_at(run, upstream, pair_at(certificate, key))
    client = await place.connected()
    replace(certificate, SECOND.certificate_pem)
    replace(key, SECOND.key_pem)
    assert await place.looked() == "ready\n"
    assert await place.presented() == number_of(SECOND)
    await place.ask(client)
    assert presented_to(client) == number_of(FIRST)
    client.transport.loseConnection()
    await client.ended


@pytest_twisted.ensureDeferred
async def test_halves_of_two_pairs_leave_the_first_one_until_they_fit(
    upstream: FakeUpstream, run: Start, tmp_path: Path, logged: list[LogEvent]
) -> None:
    certificate, key = FIRST.write(tmp_path, "server")
    place = await listening_at(run, upstream, pair_at(certificate, key))
    replace(certificate, SECOND.certificate_pem)
    words = "ssl:0: expected PEM files: a certificate and the key that belongs to it"
    for _ in range(2):
        assert await place.looked() == f"degraded: {words}: the last good value is still used\n"
        assert await place.presented() == number_of(FIRST)
    replace(key, SECOND.key_pem)
    assert await place.looked() == "ready\n"
    assert await place.presented() == number_of(SECOND)
    assert [text for event in logged if (text := str(formatEvent(event))).startswith(words)] == [
        f"{words} ({key}): the last good value is still used"
    ]


@pytest.mark.parametrize(
    "key", [b"", FIRST.encrypted_key_pem, SECOND.key_pem, None], ids=["empty", "encrypted", "other", "gone"]
)
@pytest_twisted.ensureDeferred
async def test_a_key_that_cannot_be_used_leaves_the_last_pair(
    upstream: FakeUpstream, run: Start, tmp_path: Path, key: bytes | None
) -> None:
    certificate, path = FIRST.write(tmp_path, "server")
    place = await listening_at(run, upstream, pair_at(certificate, path))
    if key is None:
        path.unlink()
    else:
        replace(path, key)
    assert (await place.looked()).startswith("degraded: ssl:0")
    assert await place.presented() == number_of(FIRST)


@pytest_twisted.ensureDeferred
async def test_links_that_are_switched_replace_key_and_certificate_in_one_step(
    upstream: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    for folder, identity in (("1", FIRST), ("2", SECOND)):
        (tmp_path / folder).mkdir()
        identity.write(tmp_path / folder, "server")
    (tmp_path / "live").symlink_to("1")
    place = await listening_at(run, upstream, pair_at(tmp_path / "live/server.crt", tmp_path / "live/server.key"))
    assert await place.presented() == number_of(FIRST)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").rename(tmp_path / "live")
    assert await place.looked() == "ready\n"
    assert await place.presented() == number_of(SECOND)


@pytest_twisted.ensureDeferred
async def test_a_relative_file_stays_the_one_that_it_was_at_the_start(
    upstream: FakeUpstream, run: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server.pem").write_bytes(FIRST.certificate_pem + FIRST.key_pem)
    monkeypatch.chdir(tmp_path)
    place = await listening_at(run, upstream, "ssl:0:interface=127.0.0.1")
    monkeypatch.chdir("/")
    replace(tmp_path / "server.pem", SECOND.certificate_pem + SECOND.key_pem)
    assert await place.looked() == "ready\n"
    assert await place.presented() == number_of(SECOND)


@pytest_twisted.ensureDeferred
async def test_a_directory_of_pem_files_is_read_again_name_by_name(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    folder = tmp_path / "certificates:of all"
    folder.mkdir()
    for name in ("a.example", "b.example"):
        identity = certs.server(name)
        (folder / f"{name}.pem").write_bytes(identity.certificate_pem + identity.key_pem)
    escaped = str(folder).replace(":", "\\:")
    place = await listening_at(run, upstream, f"tls:{escaped}:0:interface=127.0.0.1")
    assert await place.presented("b.example") == number_of(certs.server("b.example"))
    new = certs.server("b.example", "more.example")
    replace(folder / "b.example.pem", new.certificate_pem + new.key_pem)
    assert await place.looked() == "ready\n"
    assert await place.presented("b.example") == number_of(new)
    assert await place.presented("a.example") == number_of(certs.server("a.example"))
    replace(folder / "b.example.pem", new.certificate_pem + certs.server("b.example").key_pem)
    assert "has a key without a certificate" in await place.looked()
    assert await place.presented("b.example") == number_of(new)
    for half in (b"", new.certificate_pem):
        replace(folder / "b.example.pem", half)
        assert "has a file without a certificate and the key that belongs to it" in await place.looked()
        assert await place.presented("b.example") == number_of(new)
    (folder / "b.example.pem").unlink()
    assert await place.looked() == "ready\n"
    assert await place.presented("a.example") == number_of(certs.server("a.example"))


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (FIRST.certificate_pem, SECOND.key_pem, "the key that belongs to it"),
        (FIRST.certificate_pem, FIRST.encrypted_key_pem, "without a pass phrase"),
        (b"", FIRST.key_pem, "expected PEM files"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path, certificate: bytes, key: bytes, said: str) -> None:
    (tmp_path / "a.crt").write_bytes(certificate)
    (tmp_path / "a.key").write_bytes(key)
    with pytest.raises(ConfigError, match=said) as caught:
        listening.endpoint(pair_at(tmp_path / "a.crt", tmp_path / "a.key"), reactor)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("surplus", ["ssl:0:1:2:3:4:5:6:7:8", "ssl:0:privateKey={key}:x=1", "ssl:http:privateKey={key}", "tls"])
def test_arguments_that_are_none_are_refused_as_twisted_refuses_them(tmp_path: Path, surplus: str) -> None:
    key = tmp_path / "server.pem"
    key.write_bytes(FIRST.certificate_pem + FIRST.key_pem)
    with pytest.raises(ConfigError, match="expected a Twisted endpoint"):
        listening.endpoint(surplus.format(key=key), reactor)


def test_the_files_with_keys_are_known(tmp_path: Path) -> None:
    FIRST.write(tmp_path, "server")
    (tmp_path / "a.pem").write_bytes(FIRST.key_pem)
    (tmp_path / "b.pem").write_bytes(FIRST.certificate_pem)
    assert keys_of(pair_at(tmp_path / "server.crt", tmp_path / "server.key")) == [tmp_path / "server.key"]
    assert keys_of(f"tls:{tmp_path}:0") == [tmp_path / "a.pem"]
    assert keys_of("tls:/nonexistent:0") == []


def test_a_description_means_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = str(Arguments("ssl:1:a\\:b.pem:c.pem:interface=\\:\\:1"))
    assert told == f"ssl:port=1:privateKey={tmp_path}/a\\:b.pem:certKey={tmp_path}/c.pem:interface=\\:\\:1"
    assert str(Arguments(told)) == told
