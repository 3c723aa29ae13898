"""TLS towards an upstream: whom to trust, and what to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from proxy.core.bounded import BoundedTable
from proxy.errors import ConfigError
from proxy.settings import UpstreamSettings
from proxy.upstream.http.origin import Origin, origin_of

#: Hosts whose TLS options are kept: making them reads the system's authorities, which takes the reactor several milliseconds.
_HOSTS = 64


@implementer(IPolicyForHTTPS)
class Trust:
    """The upstream's own authorities if configured, else the system's.

    A client certificate that is configured is shown to the upstream's own origin alone, as every other credential.
    Raises ConfigError when a file that is configured cannot be used.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self._home = origin_of(settings.url)
        self._authorities: Any = ssl.platformTrust()
        self._client: ssl.PrivateCertificate | None = None
        self._made: BoundedTable[tuple[str, int], Any] = BoundedTable(_HOSTS, lambda creator: 1)
        if settings.ca_file is not None:
            with_authorities = _Reading(settings, "ca_file", settings.ca_file)
            self._authorities = with_authorities(_authorities)
        if settings.client_cert is not None:
            key = settings.client_key or settings.client_cert
            certificate = _Reading(settings, "client_cert", settings.client_cert)(lambda pem: pem)
            reading_key = _Reading(settings, "client_key" if settings.client_key else "client_cert", key)
            self._client = reading_key(lambda pem: ssl.PrivateCertificate.loadPEM(certificate + b"\n" + pem))

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        name = hostname.decode("ascii").lower()
        creator = self._made.get((name, port))
        if creator is None:
            client = self._client if Origin("https", name, port) == self._home else None
            creator = ssl.optionsForClientTLS(name, trustRoot=self._authorities, clientCertificate=client)
            self._made.put((name, port), creator)
        return creator


class _Reading:
    """Reads a PEM file that *key* of the configuration names, and says so when that fails."""

    def __init__(self, settings: UpstreamSettings, key: str, path: Path) -> None:
        self._key = f"upstream.{settings.name}.{key} = {path}"
        self._path = path

    def __call__(self, load: Any) -> Any:
        try:
            return load(self._path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{self._key}: {error.strerror}") from error
        except (SSL.Error, crypto.Error, ValueError, TypeError) as error:
            raise ConfigError(f"{self._key}: is not the PEM file it should be") from error


def _authorities(pem: bytes) -> Any:
    marker = b"-----BEGIN CERTIFICATE-----"
    blocks = pem.split(marker)[1:]
    if not blocks:
        raise ValueError("no certificate in it")
    return ssl.trustRootFromCertificates(
        [ssl.Certificate(crypto.load_certificate(crypto.FILETYPE_PEM, marker + block)) for block in blocks]
    )
