"""When certificates expire."""

from __future__ import annotations

from datetime import UTC, datetime

from OpenSSL import crypto

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def expiry_of(certificate: crypto.X509) -> float | None:
    """When *certificate* expires, in seconds since 1970; ``None`` if it does not say so in the form that RFC 5280 asks for."""
    stated = certificate.get_notAfter()
    if stated is None:
        return None
    try:
        return datetime.strptime(stated.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (UnicodeDecodeError, ValueError):
        return None


def earliest_expiry(pem: bytes) -> float | None:
    """When the first of the certificates in *pem* expires; ``None`` if there is none."""
    found = []
    for block in pem.split(_BEGIN)[1:]:
        try:
            found.append(expiry_of(crypto.load_certificate(crypto.FILETYPE_PEM, _BEGIN + block)))
        except crypto.Error:
            continue  # whoever uses the file says what is wrong with it
    return min((each for each in found if each is not None), default=None)
