"""What an issuer publishes: where its keys are (OpenID Connect Discovery 1.0), and the keys (RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from joserfc.jwk import JWKRegistry, Key, RSAKey
from msgspec import Struct

#: Keys of one issuer that are looked at.
_MOST = 100
#: The sizes of RSA keys (bits): what is smaller can be factored, and to verify with what is larger takes long.
_SMALLEST, _LARGEST = 2048, 8192

#: What a signature may be made with, and the key that it takes: its type, and its curve.  ``none`` and the algorithms with a
#: shared secret are not among them: whoever knows a public key could sign with it.
ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "Ed25519": ("OKP", "Ed25519"),
}


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class Keys(Struct, frozen=True):
    """The keys of an issuer that signatures can be verified with, in its order."""

    usable: Sequence[Key]

    def __len__(self) -> int:
        return len(self.usable)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key that is named *kid* and fits *algorithm*; without a name, the only one that fits."""
        fitting = [each for each in self.usable if _fits(each, algorithm)]
        named = fitting if kid is None else [each for each in fitting if each.kid == kid]
        return named[0] if len(named) == 1 else None


def read_discovery(document: bytes, issuer: str) -> str:
    """The URL of the keys of *issuer*, by its discovery *document*.  Raises ValueError that says what is wrong."""
    try:
        found = msgspec.json.decode(document, type=_Discovery)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its discovery document is none: {error}") from None
    if found.issuer != issuer:  # OpenID Connect Discovery 1.0 section 4.3
        raise ValueError(f"its discovery document is that of {found.issuer[:200]!r}")
    return found.jwks_uri


def read_keys(document: bytes) -> Keys:
    """The keys in *document*; what cannot be used to verify a signature is left out.  Raises ValueError."""
    try:
        found = msgspec.json.decode(document, type=_KeySet)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its keys are none: {error}") from None
    return Keys([key for each in found.keys[:_MOST] if (key := _read_key(each)) is not None])


def _read_key(members: dict[str, Any]) -> Key | None:
    if members.get("kty") not in ("RSA", "EC", "OKP") or "d" in members:
        return None  # a shared secret, or a private key that everybody can read
    if members.get("use", "sig") != "sig" or _is_small(members):
        return None
    try:
        key = JWKRegistry.import_key(members)
        if isinstance(key, RSAKey) and key.public_key.key_size > _LARGEST:
            return None
    except Exception:  # noqa: BLE001  # a library reads what an issuer wrote: what it cannot read is no key
        return None
    return key


def _is_small(members: dict[str, Any]) -> bool:
    """Whether it is an RSA key that proves nothing, which the library would import with a warning."""
    modulus = members.get("n", "")
    return members["kty"] == "RSA" and isinstance(modulus, str) and len(modulus) * 6 < _SMALLEST


def _fits(key: Key, algorithm: str) -> bool:
    kind, curve = ALGORITHMS[algorithm]
    stated = key.get("alg")
    return key.key_type == kind and curve in (None, key.get("crv")) and stated in (None, algorithm)
