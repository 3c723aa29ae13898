"""What a server shows in a TLS handshake, and all that a client finds wrong with it: for who explains why requests fail.

No request follows the handshake and no credential is sent: it is completed whatever the certificate is, and then closed.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC
from pathlib import Path
from typing import Any

from cryptography import x509
from msgspec import Struct
from msgspec.structs import replace
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.upstream.http.guard import is_address

#: What OpenSSL's codes say (X509_V_ERR_…, x509_vfy.h), as the rest of a sentence about a certificate.
_WRONG = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself and not by an authority that is trusted here",
    19: "is signed by an authority that is not trusted here",
    20: "is signed by an authority that is not trusted here, or the server omits the certificate of that authority",
    21: "is signed by an authority that is not trusted here, or the server omits the certificate of that authority",
    23: "was revoked",
    26: "is not one for servers",
}
#: That the signer is not known or not trusted.
UNTRUSTED = frozenset({18, 19, 20, 21})


class ShownCertificate(Struct, frozen=True):
    """The certificate of a server.  Times are seconds since the epoch."""

    names: tuple[str, ...]
    issuer: str
    begins: float
    ends: float
    #: The number of certificates that were sent.
    chain: int
    #: OpenSSL's codes for what is wrong, and whether it is for the host that was asked for.
    errors: tuple[int, ...]
    fits: bool

    @property
    def wrong(self) -> tuple[str, ...]:
        """All that is wrong with it, each the rest of a sentence about the certificate."""
        found = dict.fromkeys(_WRONG.get(each, f"is refused by OpenSSL (error {each})") for each in self.errors)
        names = ", ".join(self.names) or "nobody"
        return (*found, *(() if self.fits else (f"is for {names} and not for the host that is asked",)))

    @property
    def about_itself(self) -> ShownCertificate:
        """The same for who looks at it from where it is served: with no doubt about its signer and its host."""
        return replace(self, errors=tuple(each for each in self.errors if each not in UNTRUSTED), fits=True)


class TlsClient(Struct, frozen=True):
    """What a client of *host* takes part in a handshake with: authorities (``None``: the system's) and its own certificate."""

    host: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


async def shown_certificate(
    endpoint: IStreamClientEndpoint, presented: TlsClient, reactor: IReactorTime, seconds: float
) -> ShownCertificate:
    """The certificate that the server at *endpoint* shows who asks for the host of *presented*.

    Takes at most *seconds*.  Raises what connections and OpenSSL raise, TimeoutError of Twisted, and OSError for a file.
    """
    creator = _Observing(presented)
    wrapped = wrapClientTLS(creator, endpoint)
    seeing = _Seeing()
    factory = Factory.forProtocol(lambda: seeing)
    factory.noisy = False

    async def meet() -> tuple[Any, int]:
        await wrapped.connect(factory)
        try:
            return await seeing.done
        finally:
            seeing.end()

    found, length = await Deferred.fromCoroutine(meet()).addTimeout(seconds, reactor)
    certificate = found.to_cryptography()
    return ShownCertificate(
        _names(certificate),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc.replace(tzinfo=UTC).timestamp(),
        certificate.not_valid_after_utc.replace(tzinfo=UTC).timestamp(),
        length,
        tuple(dict.fromkeys(creator.errors)),
        _fits(certificate, presented.host),
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(map(str, [*found.get_values_for_type(x509.DNSName), *found.get_values_for_type(x509.IPAddress)]))


def _fits(certificate: x509.Certificate, host: str) -> bool:
    try:
        if is_address(host):
            verify_certificate_ip_address(certificate, str(ipaddress.ip_address(host.partition("%")[0])))
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


@implementer(IOpenSSLClientConnectionCreator)
class _Observing:
    """Takes part as a client that notes what is wrong and goes on."""

    def __init__(self, presented: TlsClient) -> None:
        self.errors: list[int] = []
        self._host = presented.host
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_verify(SSL.VERIFY_PEER, self._note)
        try:
            if presented.ca_file is None:
                self._context.set_default_verify_paths()
            else:
                self._context.load_verify_locations(str(presented.ca_file))
            if presented.certificate is not None:
                self._context.use_certificate_chain_file(str(presented.certificate))
                self._context.use_privatekey_file(str(presented.key or presented.certificate))
        except SSL.Error as error:
            raise OSError(0, "is not the PEM file it should be", str(presented.ca_file or presented.certificate)) from error

    def _note(self, connection: object, certificate: object, error: int, depth: int, fine: int) -> bool:
        if not fine:
            self.errors.append(error)
        return True

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(protocol)
        if not is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection


@implementer(IHandshakeListener)
class _Seeing(Protocol):
    """Ends the connection once the certificate was shown."""

    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[tuple[Any, int]] = Deferred()

    def handshakeCompleted(self) -> None:
        if not self.done.called:
            chain = self.transport.getHandle().get_peer_cert_chain() or ()
            self.done.callback((self.transport.getPeerCertificate(), len(chain)))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # without a default, which it has no use for
        if not self.done.called:
            self.done.errback(reason)

    def end(self) -> None:
        """Close the connection, if it is open."""
        if self.transport is not None:
            self.transport.abortConnection()
