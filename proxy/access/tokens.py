"""Tokens: their text, what proves one, and how a holder narrows one without the server.

Theory of operation.  A token is a key pair (Ed25519).  Its text has the private half, and the proxy stores the public half:
what is stored cannot be used to log in, nor to make a narrower token.  Whoever has a token narrows it by appending a *block*: a
new public key and what the token is confined to, signed with the private key that the token had until then; the new text has
the private half of the new key instead.  So each holder may append blocks and nobody can take one away, as with macaroons, but
without a secret that the proxy would have to keep.  A token may do only what all of its blocks permit.

The text is ``ppx_``, the id, ``_``, and base64url of the private key and the blocks, each with its length and its signature;
then a checksum, by which scanners for secrets, and the proxy, distinguish a token from other text.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import zlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from proxy.access.roles import ALL, Extent
from proxy.representing import repr_without

#: How each token begins.
PREFIX = "ppx_"
_ID = 12
_CHECKSUM = 7
#: Of a token with its checksum (characters): with more, an ``Authorization`` field would not fit a small head any more.
LONGEST = 2800
_TOKEN = re.compile(rf"{PREFIX}([a-z2-7]{{{_ID}}})_([A-Za-z0-9_-]{{40,}})([a-z2-7]{{{_CHECKSUM}}})", re.ASCII)
_ID_ALONE = re.compile(rf"[a-z2-7]{{{_ID}}}", re.ASCII)
_KEY, _SIGNATURE, _LENGTH = 32, 64, 2
#: What is signed begins with this, so that no signature means anything elsewhere.
_DOMAIN = b"pypiproxy token block 1\0"


class BadToken(ValueError):
    """A text is no token, or not one that its blocks prove; ``str()`` has the reason and nothing of the text."""


class Confinement(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one block permits: these projects (patterns) of these indexes, until *expires* (seconds since 1970)."""

    indexes: tuple[str, ...] = (ALL,)
    projects: tuple[str, ...] = (ALL,)
    expires: float | None = None

    @property
    def extent(self) -> Extent:
        return Extent(self.indexes, self.projects)


class Block(Struct, frozen=True):
    """One block: what was signed, and the signature."""

    signed: bytes
    signature: bytes

    __repr__ = repr_without("signature")

    @property
    def key(self) -> bytes:
        """The public key that proves what follows."""
        return self.signed[:_KEY]

    @property
    def confinement(self) -> Confinement:
        """Raises BadToken."""
        try:
            return msgspec.json.decode(self.signed[_KEY:], type=Confinement)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise BadToken("what it is confined to cannot be understood") from None


class Token(Struct, frozen=True):
    """A token as its holder has it."""

    id: str
    private: bytes
    blocks: tuple[Block, ...] = ()

    __repr__ = repr_without("private")

    def __str__(self) -> str:
        """Its text: a secret."""
        packed = self.private + b"".join(
            len(each.signed).to_bytes(_LENGTH, "big") + each.signed + each.signature for each in self.blocks
        )
        text = f"{PREFIX}{self.id}_{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"
        return text + _checksum(text)


def is_token_id(text: str) -> bool:
    """Whether *text* can be the id of a token."""
    return _ID_ALONE.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Whether *text* looks like a token, and its checksum is right."""
    return len(text) <= LONGEST and _TOKEN.fullmatch(text) is not None and text.endswith(_checksum(text[:-_CHECKSUM]))


def read_token(text: str) -> Token:
    """The token with this *text*; nothing is proved.  Raises BadToken."""
    found = _TOKEN.fullmatch(text) if is_token(text) else None
    if found is None:
        raise BadToken("it is no token of pypiproxy, or a part of one")
    try:
        packed = base64.urlsafe_b64decode(found[2] + "=" * (-len(found[2]) % 4))
    except binascii.Error:
        raise BadToken("it is no token of pypiproxy, or a part of one") from None
    private, rest = packed[:_KEY], packed[_KEY:]
    blocks = []
    while rest:
        length = int.from_bytes(rest[:_LENGTH], "big")
        signed, signature = rest[_LENGTH : _LENGTH + length], rest[_LENGTH + length : _LENGTH + length + _SIGNATURE]
        if length <= _KEY or len(signature) < _SIGNATURE:
            raise BadToken("it is cut off")
        blocks.append(Block(signed, signature))
        rest = rest[_LENGTH + length + _SIGNATURE :]
    if len(private) < _KEY:
        raise BadToken("it is cut off")
    return Token(found[1], private, tuple(blocks))


def new_token(random: bytes) -> tuple[Token, bytes]:
    """A token made of 40 *random* bytes, and what proves it, for the server to keep."""
    name, private = random[:8], random[8 : 8 + _KEY]
    token = Token(base64.b32encode(name).decode().lower()[:_ID], private)
    return token, _public(private)


def narrowed(token: Token, confinement: Confinement, random: bytes) -> Token:
    """*token*, confined further; *random* are 32 bytes.  Raises BadToken when it has become too long."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signed = _public(random) + msgspec.json.encode(confinement)
    signature = Ed25519PrivateKey.from_private_bytes(token.private).sign(_message(token.id, signed))
    made = Token(token.id, random, (*token.blocks, Block(signed, signature)))
    if len(str(made)) > LONGEST:
        raise BadToken("it has been narrowed too often: begin with one that has been narrowed less")
    return made


def confinements(token: Token, key: bytes) -> Sequence[Confinement]:
    """What *token* is confined to, if *key* proves it: the one that the server has.  Raises BadToken."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for each in token.blocks:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(each.signature, _message(token.id, each.signed))
        except (InvalidSignature, ValueError):
            raise BadToken("it is not what was issued") from None
        key = each.key
    if not hmac.compare_digest(_public(token.private), key):
        raise BadToken("it is not what was issued")
    return [each.confinement for each in token.blocks]


def _public(private: bytes) -> bytes:
    # It takes a while to load, and few starts need it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _message(name: str, signed: bytes) -> bytes:
    return _DOMAIN + name.encode("ascii") + b"\0" + signed


def _checksum(text: str) -> str:
    return base64.b32encode(zlib.crc32(text.encode("ascii", "replace")).to_bytes(4, "big")).decode().lower().rstrip("=")
