"""Who this proxy says it is towards upstream."""

from __future__ import annotations

from attrs import frozen


@frozen
class Identity:
    """``User-Agent`` (the public index asks for one with a contact) and the pseudonym for ``Via`` (RFC 9110 section 7.6.3)."""

    user_agent: str
    via: str

    def via_header(self, upstream: str) -> str:
        """The value of ``Via`` on a request to *upstream*: a request that comes back says which setting sent it."""
        return f"1.1 {self.via} (upstream.{upstream})"
