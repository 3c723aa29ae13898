"""One request's response from its headers on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from proxy.core.amounts import duration
from proxy.settings import KIB
from proxy.simple.numbers import whole
from proxy.upstream.http.coding import codings_of
from proxy.upstream.http.failures import Failed

if TYPE_CHECKING:
    from proxy.upstream.http.body import IncomingBody
    from proxy.upstream.http.connection import UpstreamResponse

#: Seconds that a body may take which is read into memory, where others wait for room meanwhile.
_LONGEST_READ = 300.0
#: A rest of a body that is cheaper to read than a connection is to make (bytes).
_SHORT = 64 * KIB


class Exchange:
    """The *response* to a request for *url* that came from *address* (``None``: an outbound proxy's)."""

    def __init__(
        self,
        url: str,
        response: UpstreamResponse,
        address: str | None,
        body: Callable[[], IncomingBody],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.url = url
        self.address = address
        self._head = response.head
        self.status = response.head.status
        #: Bytes the body will have on the wire, ``None`` when nobody said.
        self.length = response.head.length
        self._response = response
        self._closed = False
        self._make_body = body
        self._body: IncomingBody | None = None

    def header(self, name: str) -> str | None:
        """The last value of the header *name* (in lower case), each byte a character; ``None`` without one."""
        return self._head.last(name)

    @property
    def location(self) -> str | None:
        """Where a redirect leads to, in UTF-8 if it is that."""
        stated = self.header("location")
        raw = (stated or "").encode("latin-1")
        try:
            return raw.decode() or None
        except UnicodeDecodeError:
            return stated

    @property
    def stated_length(self) -> int | None:
        """``Content-Length``, which in the answer to a HEAD speaks of a body that does not come."""
        return whole(self._head.last("content-length")) if self._response.method == "HEAD" else self.length

    @property
    def codings(self) -> tuple[str, ...]:
        """The content codings that the header names and that can be undone, in the order they were applied in."""
        stated = self._head.fields.get("content-encoding")
        return () if stated is None else codings_of(", ".join(stated))

    @property
    def body(self) -> IncomingBody:
        if self._body is None:
            self._body = self._make_body()
            self._response.deliver(self._body)
        return self._body

    async def read(self, limit: int, room: Callable[[int], Awaitable[None]] | None = None) -> bytes:
        """The whole body; *room* is told how many bytes have come, and read on when it returns.

        Raises Failed when it is larger than *limit* bytes or takes minutes, Broken when it was cut off.
        """
        chunks = []
        size = 0
        began = self._clock()
        while chunk := await self.body.read():
            size += len(chunk)
            if size > limit:
                raise Failed(f"sent more than {limit:,} bytes")
            if self._clock() - began > _LONGEST_READ:
                raise Failed(f"has not sent all of it within {duration(_LONGEST_READ)}")
            chunks.append(chunk)
            if room is not None:
                await room(size)
        return b"".join(chunks)

    def close(self) -> None:
        """Have no more of the body; a short one is let in to its end, so that the connection can be used again.

        May be called more than once.
        """
        if self._closed:
            return
        self._closed = True
        if self.length is not None and self.length - self.body.received <= _SHORT:
            self.body.discard()
        else:
            self.body.close()
