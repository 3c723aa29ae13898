"""Bytes that have come from a client, until they are the heads of requests."""

from __future__ import annotations

from proxy.errors import BadRequest
from proxy.web import heads


class TlsSpoken(BadRequest):
    """The client speaks TLS where plain HTTP is spoken."""


class Incoming:
    """What has come on one connection and has not been taken.  True if there is anything."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._looked_at = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def has_begun(self) -> bool:
        """Whether there is anything of a request: half of an empty line before one is nothing."""
        return bool(self._held) and self._held != b"\r"

    def add(self, data: bytes) -> None:
        """More has come."""
        self._held += data

    def skip_empty_lines(self) -> None:
        """Drop the empty lines before a request, which mean nothing (RFC 9112 section 2.2)."""
        while self._held.startswith(b"\r\n"):
            del self._held[:2]

    def next_head(self) -> bytes | None:
        """Take the next head with its empty line; ``None`` if there is no whole one.

        Raises TlsSpoken, and ProxyError when what there is cannot become a head that is taken.
        """
        self.skip_empty_lines()
        held = self._held
        if not held:
            return None
        if not self._looked_at and heads.is_tls(held):
            # Most clients say of this answer that it has the wrong version number, which people look up.
            raise TlsSpoken("TLS is spoken to a port that speaks plain HTTP: the URL of the proxy begins with http://")
        end = held.find(heads.END, max(0, self._looked_at - len(heads.END)))
        if end >= 0:
            raw = bytes(held[: end + len(heads.END)])
            del held[: len(raw)]
            self._looked_at = 0
            return raw
        refusal = heads.unfinished(held, self._looked_at)
        if refusal is not None:
            raise refusal
        self._looked_at = len(held)
        return None

    def take(self) -> bytes:
        """Take all of it, as part of a body."""
        data = bytes(self._held)
        self._held.clear()
        return data

    def put_back(self, data: bytes) -> None:
        """Have *data* again, before what else there is."""
        self._held[:0] = data
