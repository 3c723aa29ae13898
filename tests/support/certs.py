"""Certificates of the tests' own authority, made once per process: for servers, for clients, and for nobody to trust."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from msgspec import Struct
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

#: The authority that tests trust.
_OURS = "pypiproxy tests"
_START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


class Identity(Struct, frozen=True):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def encrypted_key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass phrase"))

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The PEM files ``<name>.crt`` and ``<name>.key`` in *folder*."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        return certificate, key


def _make(name: str, issuer: Identity | None, hosts: tuple[str, ...] = (), end: datetime.datetime = _END) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    signing = key if issuer is None else issuer.key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if issuer is None:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
    return Identity(builder.sign(signing, hashes.SHA256()), key)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def authority(name: str = _OURS) -> Identity:
    """The certificate authority *name*."""
    return _authority(name)


@functools.cache
def _authority(name: str) -> Identity:
    return _make(name, None)


@functools.cache
def server(*hosts: str, expired: bool = False, issuer: str = _OURS) -> Identity:
    """A server's certificate for *hosts* (127.0.0.1 and localhost if none are given)."""
    end = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC) if expired else _END
    return _make("server", authority(issuer), hosts or ("127.0.0.1", "localhost"), end)


@functools.cache
def client(name: str = "client") -> Identity:
    """A client's certificate."""
    return _make(name, authority())


def server_context(identity: Identity | None = None, *, demand_client: bool = False) -> Any:
    """What `FakeUpstream` takes as ``tls``: serve as *identity*; with *demand_client*, to our own clients only."""
    shown = identity or server()
    trusted = None
    if demand_client:
        trusted = trustRootFromCertificates([Certificate.loadPEM(authority().certificate_pem)])
    return CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(shown.key),
        certificate=crypto.X509.from_cryptography(shown.certificate),
        trustRoot=trusted,
        # Without any, Twisted breaks off the handshakes of clients that offer some (ALPN), as curl, pip and uv do.
        acceptableProtocols=[b"http/1.1"],
    )


def plain_context(folder: Path) -> ssl.SSLContext:
    """What a server outside Twisted shows; its files are in *folder*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server().write(folder, "issuer"))
    return context
