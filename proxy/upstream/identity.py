"""Who this proxy says it is towards upstream."""

from __future__ import annotations

from contextvars import ContextVar

from attrs import frozen

#: The ``Via`` of the request that the present work was begun for.  It goes on to upstream, so that a request in a loop of
#: several proxies is known to the one it comes back to, which would otherwise wait for itself.
passed_through: ContextVar[str] = ContextVar("passed_through", default="")

#: The longest ``Via`` that goes on (characters): a loop is found long before.
_LONGEST = 2000


@frozen
class Identity:
    """``User-Agent`` (the public index asks for one with a contact) and the pseudonym for ``Via`` (RFC 9110 section 7.6.3)."""

    user_agent: str
    via: str

    def via_header(self, upstream: str) -> str:
        """The value of ``Via`` on a request to *upstream*: a request that comes back says which setting sent it."""
        own = f"1.1 {self.via} (upstream.{upstream})"
        received = passed_through.get()
        return f"{received}, {own}" if received.isascii() and 0 < len(received) <= _LONGEST else own
