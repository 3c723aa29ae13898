"""TLS towards an upstream: which authorities are trusted, and which certificate is presented."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.error import VerifyError

from proxy.core.bounded import BoundedTable
from proxy.errors import ConfigError
from proxy.mechanism.certificates import Validity, validity_of
from proxy.mechanism.rotating import Observing, Rotating, UnusableFile
from proxy.mechanism.secret_files import needs_passphrase
from proxy.settings import UpstreamSettings
from proxy.upstream.http.origin import Origin, origin_of

#: Hosts whose TLS options are kept: making them reads the system's authorities, which takes the reactor several milliseconds.
_HOSTS = 64
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
#: What reading PEM raises.
_REFUSALS = (SSL.Error, crypto.Error, VerifyError, ValueError, TypeError)


class _Material(Struct, frozen=True, eq=False):
    """Authorities to trust, and a client certificate with its key and its validity."""

    authorities: Any
    client: ssl.PrivateCertificate | None
    validity: Validity | None


class Trust:
    """The upstream's own authorities if configured, else the system's.

    A client certificate that is configured is presented to the upstream's own origin alone, as every other credential.  The
    files are read again when they change, and *changed* is called then: connections that are open were made with the former
    ones.  Raises ConfigError when a file that is configured cannot be used.
    """

    def __init__(self, settings: UpstreamSettings, observing: Observing, changed: Callable[[], None]) -> None:
        self._home = origin_of(settings.url)
        self._changed = changed
        self._keys = _Keys(settings.table)
        files = {"ca_file": settings.ca_file, "client_cert": settings.client_cert, "client_key": settings.client_key}
        named = {f"{self._keys.table}.{key}": path for key, path in files.items() if path is not None}
        self._made = self._none_made()
        try:
            #: What has to be looked at regularly.
            self.rotating: Rotating[_Material] = Rotating(named, self._keys.load, observing, changed=self._forget)
        except OSError as error:
            raise ConfigError(f"{settings.table}: {error.filename}: {error.strerror}") from error
        except UnusableFile as error:
            raise ConfigError(str(error)) from error

    @property
    def expires(self) -> float | None:
        """When the client certificate expires, in seconds since 1970; ``None`` without one."""
        validity = self.rotating.value.validity
        return None if validity is None else validity.ends

    def creator_for(self, name: str, port: int) -> Any:
        """What makes the TLS side of connections to *port* of the host *name*."""
        creator = self._made.get((name, port))
        if creator is None:
            material = self.rotating.value
            client = material.client if Origin("https", name, port) == self._home else None
            creator = ssl.optionsForClientTLS(name, trustRoot=material.authorities, clientCertificate=client)
            self._made.put((name, port), creator)
        return creator

    def _forget(self) -> None:
        self._made = self._none_made()
        self._changed()

    def _none_made(self) -> BoundedTable[tuple[str, int], Any]:
        return BoundedTable(_HOSTS, lambda creator: 1)


class _Keys(Struct, frozen=True):
    """Reads the files that keys of *table* name."""

    table: str

    def load(self, contents: Mapping[str, bytes]) -> _Material:
        authorities = contents.get(f"{self.table}.ca_file")
        certificate = contents.get(f"{self.table}.client_cert")
        key = contents.get(f"{self.table}.client_key", certificate)
        return _Material(
            ssl.platformTrust() if authorities is None else self._authorities(authorities),
            None if certificate is None or key is None else self._client(certificate, key),
            None if certificate is None else validity_of(f"{self.table}.client_cert", certificate),
        )

    def _authorities(self, pem: bytes) -> Any:
        blocks = pem.split(_CERTIFICATE)[1:]
        if not blocks:
            raise UnusableFile(f"{self.table}.ca_file has no certificate in it")
        try:
            found = [crypto.load_certificate(crypto.FILETYPE_PEM, _CERTIFICATE + block) for block in blocks]
            return ssl.trustRootFromCertificates([ssl.Certificate(each) for each in found])
        except _REFUSALS:
            raise UnusableFile(f"{self.table}.ca_file is not the PEM file it should be") from None

    def _client(self, certificate: bytes, key: bytes) -> ssl.PrivateCertificate:
        if needs_passphrase(key):
            raise UnusableFile(f"{self.table}.client_cert: the key is encrypted; expected one without a pass phrase")
        try:
            client: ssl.PrivateCertificate = ssl.PrivateCertificate.loadPEM(certificate + b"\n" + key)
        except _REFUSALS:
            words = "expected PEM files: a certificate and the key that belongs to it"
            raise UnusableFile(f"{self.table}.client_cert: {words}") from None
        return client
