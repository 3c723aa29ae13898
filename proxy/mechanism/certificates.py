"""How long certificates last, and when that has to be said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from proxy.core.amounts import duration

#: A certificate is to be renewed so many seconds before its end, or in the last quarter of its life if that is shorter.
_EARLY, _LAST_PART = 14 * 86400.0, 0.25


class Validity(Struct, frozen=True):
    """*what* is valid from *begins* to *ends* (seconds since 1970)."""

    what: str
    begins: float
    ends: float


@runtime_checkable
class Expiring(Protocol):
    """What was made of certificates."""

    @property
    def validity(self) -> Validity | None:
        """That of the certificate that ends first, if there is any."""
        ...


def validity_of(what: str, pem: bytes) -> Validity | None:
    """The validity of the certificate in *pem* that ends first, which is part of *what*; ``None`` if none can be read."""
    # It takes a while to load, and few services speak TLS themselves.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return None
    first = min(found, key=lambda each: each.not_valid_after_utc)
    return Validity(what, first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp())


def expiry(validity: Validity, now: float) -> str | None:
    """What an operator has to know about *validity* at *now* (seconds since 1970); ``None`` while its end is far away."""
    left = validity.ends - now
    if left > min(_EARLY, _LAST_PART * (validity.ends - validity.begins)):
        return None
    end = datetime.fromtimestamp(validity.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if left <= 0:
        return f"the certificate of {validity.what} has expired ({end}): it is refused by those who check it, renew it now"
    return f"the certificate of {validity.what} expires in {duration(left)} ({end}): renew it"
