"""The certificates that a TLS endpoint presents to clients; a handshake takes them as they are by then.

Two kinds of Twisted's endpoints speak TLS: ``ssl:`` names a key and a certificate, ``tls:`` a directory of PEM files, of which
the name that the client asks for (SNI) chooses one.  Both read their files once.  Here Twisted reads them again, as parts of an
endpoint that never listens, and the port that does listen presents what came of that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from OpenSSL import SSL, crypto
from twisted.internet import endpoints, ssl
from twisted.internet.defer import Deferred
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from proxy.core.endpoint import escaped
from proxy.mechanism.certificates import Validity, validity_of
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing, Rotating, UnusableFile, pem_files
from proxy.mechanism.secret_files import needs_passphrase
from proxy.mechanism.twisted_internals import parsed_endpoint
from proxy.statistics.recorders import UNRECORDED

#: For those who read the files once.
ONCE = Observing(Inline(), UNRECORDED, time.time)

#: The arguments of each kind that speaks TLS, in their order, and those of them that are files.
_ARGUMENTS = {
    "ssl": ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters"),
    "tls": ("path", "port", "backlog", "interface"),
}
_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters", "path")
#: What an ``ssl:`` endpoint takes for its key, and for its certificate too, where it says nothing.
_DEFAULT_KEY = "server.pem"
_REFUSALS = (SSL.Error, crypto.Error, VerifyError)


class Arguments:
    """What the endpoint *description* says; files are absolute from now on, wherever the process goes."""

    def __init__(self, description: str) -> None:
        (self.kind, *given), named = parsed_endpoint(description)
        order = _ARGUMENTS.get(self.kind, ())
        self._surplus = given[len(order) :]
        values: dict[str, str] = {**dict(zip(order, given, strict=False)), **named}
        if self.kind == "ssl":
            values.setdefault("privateKey", _DEFAULT_KEY)
        self.files = {key: Path(values[key]).absolute() for key in _FILES if key in values}
        self.values = {**values, **{key: str(path) for key, path in self.files.items()}}

    @property
    def name(self) -> str:
        """The kind and the port: what tells it from other endpoints."""
        return f"{self.kind}:{self.values.get('port', '443')}"

    def __str__(self) -> str:
        """A description that means the same everywhere."""
        named = [f"{key}={escaped(each)}" for key, each in self.values.items()]
        # The endpoint itself refuses arguments that are too many.
        return ":".join([self.kind, *map(escaped, self._surplus), *named])


def keys_of(description: str) -> list[Path]:
    """The files with private keys of the TLS endpoint that *description* names."""
    arguments = Arguments(description)
    key = arguments.files.get("privateKey")
    if key is not None:
        return [key]
    below = pem_files(arguments.files["path"]) if "path" in arguments.files else []
    return [each for each in below if b"PRIVATE KEY-----" in each.read_bytes()]


@implementer(IOpenSSLServerConnectionCreator)
class Presented:
    """The certificates of the TLS endpoint with *arguments*.  Raises what the endpoint raises, OSError and UnusableFile."""

    def __init__(self, arguments: Arguments, observing: Observing = ONCE) -> None:
        self._arguments = arguments
        #: What the directory of a ``tls:`` endpoint had when it was last used.
        self._had: _Had | None = None
        named = {f"{arguments.name} {key}": path for key, path in arguments.files.items()}
        self.rotating: Rotating[_Loaded] = Rotating(named, self._load, observing)

    @property
    def expires(self) -> float | None:
        """When the first of the certificates expires, in seconds since 1970."""
        validity = self.rotating.value.validity
        return None if validity is None else validity.ends

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """What a handshake begins with."""
        connection: SSL.Connection = self.rotating.value.made.serverConnectionForTLS(protocol)
        return connection

    def endpoint(self, reactor: Any) -> IStreamServerEndpoint:
        """The endpoint, which presents what there is at the time of each handshake."""
        if self._arguments.kind == "ssl":
            taken = self.rotating.value.made
            return endpoints.SSL4ServerEndpoint(reactor, taken.port, self, taken.backlog, taken.interface)
        found: Any = endpoints.serverFromString(reactor, str(self._arguments))
        return _Wrapped(found.endpoint, self)

    def _load(self, contents: Mapping[str, bytes]) -> _Loaded:
        return _Loaded(self._made(contents), validity_of(self._arguments.name, b"\n".join(contents.values())))

    def _made(self, contents: Mapping[str, bytes]) -> Any:
        name = self._arguments.name
        if any(needs_passphrase(each) for each in contents.values()):
            raise UnusableFile(f"{name}: its key is encrypted; expected one without a pass phrase")
        pem = b"\n".join(contents.values())
        try:
            found = self._directory(pem) if self._arguments.kind == "tls" else self._taken()
        except _REFUSALS:
            raise UnusableFile(f"{name}: expected PEM files: a certificate and the key that belongs to it") from None
        return found

    def _taken(self) -> _Taken:
        taken = _Taken()
        # It is as much of a reactor as this needs.
        endpoints.serverFromString(taken, str(self._arguments)).listen(Factory())
        taken.options.getContext()
        return taken

    def _directory(self, pem: bytes) -> Any:
        name = self._arguments.name
        strays, pairs = _sorted_out(pem)
        files = sum(len(pem_files(path)) for path in self._arguments.files.values())
        had = self._had
        if had is not None and strays > had.strays:
            raise UnusableFile(f"{name}: the directory has a key without a certificate that belongs to it")
        # A file that is being written is empty, or has one of its halves, for a moment.
        if not pairs or (had is not None and len(pairs) < had.pairs and files >= had.files):
            raise UnusableFile(f"{name}: the directory has a file without a certificate and the key that belongs to it")
        for certificate, key in pairs:
            _require_usable(certificate, key, name)
        self._had = _Had(strays if had is None else had.strays, len(pairs), files)
        found: Any = endpoints.serverFromString(None, str(self._arguments))
        return found.connectionCreator


class _Loaded(Struct, frozen=True):
    """What was *made* of the files, and how long their certificates are valid."""

    made: Any
    validity: Validity | None


class _Had(Struct, frozen=True):
    """The directory of a ``tls:`` endpoint as it was used: keys without a certificate, whole pairs, and files."""

    strays: int
    pairs: int
    files: int


class _Taken:
    """As much of a reactor as an ``ssl:`` endpoint needs to hand over what it would listen with, which is kept."""

    def __init__(self) -> None:
        self.options: Any = None
        self.port = self.backlog = 0
        self.interface = ""

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """What a handshake begins with."""
        connection: SSL.Connection = self.options.serverConnectionForTLS(protocol)
        return connection

    def listenSSL(self, port: int, factory: object, contextFactory: Any, backlog: int, interface: str) -> None:
        """As in IReactorSSL; nothing listens."""
        self.port, self.options, self.backlog, self.interface = port, contextFactory, backlog, interface


@implementer(IStreamServerEndpoint)
class _Wrapped:
    """*endpoint* with TLS, which presents *presented*."""

    def __init__(self, endpoint: Any, presented: Presented) -> None:
        self._endpoint = endpoint
        self._presented = presented

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        listening: Deferred[Any] = self._endpoint.listen(TLSMemoryBIOFactory(self._presented, False, protocolFactory))
        return listening


def _sorted_out(pem: bytes) -> tuple[int, list[tuple[ssl.Certificate, ssl.KeyPair]]]:
    """How many keys in *pem* have no certificate there that belongs to them, and the other ones, each with its certificate."""
    blocks = [b"-----BEGIN" + each for each in pem.split(b"-----BEGIN")[1:]]
    certificates = [ssl.Certificate.loadPEM(each) for each in blocks if each.startswith(b"-----BEGIN CERTIFICATE-----")]
    by_key = {each.getPublicKey().keyHash(): each for each in certificates}
    keys = [ssl.KeyPair.load(each, crypto.FILETYPE_PEM) for each in blocks if b"PRIVATE KEY-----" in each.split(b"\n")[0]]
    pairs = [(by_key[each.keyHash()], each) for each in keys if each.keyHash() in by_key]
    return len(keys) - len(pairs), pairs


def _require_usable(certificate: ssl.Certificate, key: ssl.KeyPair, name: str) -> None:
    """Raise UnusableFile unless a handshake can be begun with the pair."""
    context = SSL.Context(SSL.TLS_METHOD)
    try:
        context.use_certificate(certificate.original)
        context.use_privatekey(key.original)
    except SSL.Error:
        raise UnusableFile(f"{name}: the directory has a certificate and a key that are too weak, or no pair") from None
