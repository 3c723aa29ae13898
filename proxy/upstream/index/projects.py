"""Asking one upstream for the list of all its projects (PEP 503, PEP 691): tens of megabytes that are never held at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from proxy.interfaces import Receive
from proxy.model import DocumentFound, DocumentReply, Record, Validators
from proxy.settings import KIB, UpstreamSettings
from proxy.simple.parse import is_whole, settled_type
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.coding import BEGINNING, Undo, layers, undo_all
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Broken, Failed, Fault
from proxy.upstream.index.conditional import ask_conditionally, head_of
from proxy.upstream.index.pages import ACCEPT

#: Bytes at the end of a list that tell whether it is whole.
_TAIL = 16 * KIB


async def ask_projects(
    attempt: Attempt,
    upstream: UpstreamSettings,
    known: Validators | None,
    receive: Receive,
    now: float,
) -> DocumentReply:
    """The list as *receive* took it in; the body of the record is empty.  The other arguments are those of `ask_page`.

    What is no such list does not count against the upstream: an index need not have one.  Raises Failed.
    """

    async def found(exchange: Exchange) -> DocumentFound:
        await exchange.body.ready()
        attempt.manner.answering()
        try:
            content_type = exchange.header("content-type") or ""
            digest, serial = await receive(content_type, await _plain(exchange, content_type))
        except ValueError as error:
            raise Failed(f"sent no list of projects: {error}", fault=Fault.NO_EVIDENCE) from error
        return DocumentFound(Record(head_of(upstream.name, upstream.url, exchange, now, digest, serial), b""))

    return await ask_conditionally(attempt, upstream.name, upstream.url, ACCEPT, known, found, now)


async def _plain(exchange: Exchange, content_type: str) -> Callable[[], Awaitable[bytes]]:
    """Reads the body piece by piece, the content codings undone that are on it.

    The last read raises Broken for a list that was cut off.
    """
    beginning = await exchange.body.beginning(BEGINNING) if exchange.codings else b""
    undone = [Undo(coding) for coding in layers(beginning, exchange.codings, "")[0]]
    waiting: Iterator[bytes] = iter(())
    kind: str | None = None
    tail = b""

    async def read() -> bytes:
        nonlocal waiting, kind, tail
        while True:
            piece = next(waiting, None)
            if piece is not None:
                kind = kind or settled_type(piece, content_type)
                tail = (tail + piece)[-_TAIL:]
                return piece
            chunk = await exchange.body.read()
            if not chunk:
                break
            waiting = undo_all(undone, chunk)
        if any(undo.surplus for undo in undone):
            raise Failed("sent something behind the end of what is compressed", fault=Fault.NO_EVIDENCE)
        if not all(undo.complete for undo in undone):
            raise Broken(f"ended in the middle of its {undone[0].coding}")
        if exchange.body.unsure and kind is not None and not is_whole(tail[max(0, tail.find(b"<a")) :], kind):
            raise Broken(f"ended in the middle of its list after {exchange.body.received:,} bytes")
        return b""

    return read
