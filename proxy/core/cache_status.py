"""How the cache came by an answer, in the terms of RFC 9211 (the ``Cache-Status`` header)."""

from __future__ import annotations

from msgspec import Struct

#: The words of answers that did not wait for upstream.
FROM_CACHE = frozenset({"hit", "stale"})


class CacheStatus(Struct, frozen=True):
    """One answer's cache status.

    ``hit``: served without waiting for upstream.  ``fwd``: why upstream was asked (``miss``, ``stale``, ``request``), ``None``
    when it was not waited for.  ``ttl``: seconds of freshness left, negative when stale.  ``collapsed``: shared another asker's
    request.  ``own``: it is no copy, and may change with the next upload: who keeps it has to ask whether it still holds.
    """

    hit: bool
    fwd: str | None = None
    ttl: int | None = None
    collapsed: bool = False
    stored: bool = False
    detail: str | None = None
    own: bool = False

    @property
    def unconfirmed(self) -> bool:
        """Whether it is stale, or upstream was asked whether it still holds and has not answered."""
        return self.hit and ((self.ttl is not None and self.ttl <= 0) or (self.detail or "").startswith("upstream-"))

    @property
    def max_age(self) -> int:
        """For how long it stays fresh (seconds), 0 when it is stale."""
        return max(0, self.ttl or 0)

    @property
    def word(self) -> str:
        """One word for logs and metrics: ``hit``, ``stale``, ``collapsed``, ``refreshed`` or ``miss``."""
        if self.hit:
            return "stale" if self.ttl is not None and self.ttl <= 0 else "hit"
        if self.collapsed:
            return "collapsed"
        return "refreshed" if self.fwd in ("stale", "request") else "miss"

    def header(self) -> str:
        """The value of ``Cache-Status``."""
        parts = ["pypiproxy", "hit" if self.hit else f"fwd={self.fwd or 'miss'}"]
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={self.ttl}")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)


def collapsed(header: str) -> str:
    """*header*, a value of ``Cache-Status`` as :meth:`CacheStatus.header` writes it, for whoever shared that request."""
    parts = header.split("; ")
    if not parts[1].startswith("fwd=") or "collapsed" in parts[2:4]:
        return header
    before = 3 if parts[2:3] == ["stored"] else 2
    return "; ".join((*parts[:before], "collapsed", *parts[before:]))
