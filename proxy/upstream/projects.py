"""Asking one upstream for the list of all its projects (PEP 503, PEP 691): tens of megabytes that are never held at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from proxy.interfaces import Receive
from proxy.model import DocumentFound, DocumentReply, Record, Validators
from proxy.upstream.client import UpstreamClient
from proxy.upstream.coding import BEGINNING, Undo, layers, undo_all
from proxy.upstream.conditional import Manner, ask_conditionally, head_of
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Broken, Failed
from proxy.upstream.pages import ACCEPT


async def ask_projects(
    client: UpstreamClient,
    known: Validators | None,
    receive: Receive,
    now: float,
    manner: Manner,
) -> DocumentReply:
    """The list as *receive* took it in; the body of the record is empty.  The other arguments are those of `ask_page`.

    What is no such list does not count against the upstream: an index need not have one.  Raises Failed.
    """

    async def found(exchange: Exchange) -> DocumentFound:
        await exchange.body.ready()
        manner.answering()
        try:
            digest, serial = await receive(exchange.header("content-type") or "", await _plain(exchange))
        except ValueError as error:
            raise Failed(f"sent no list of projects: {error}", blames=False) from error
        return DocumentFound(Record(head_of(client, exchange, now, digest, serial), b""))

    return await ask_conditionally(client, client.settings.url, ACCEPT, known, found, now, manner)


async def _plain(exchange: Exchange) -> Callable[[], Awaitable[bytes]]:
    """Reads the body piece by piece, the content codings undone that are on it."""
    beginning = await exchange.body.beginning(BEGINNING) if exchange.codings else b""
    undone = [Undo(coding) for coding in layers(beginning, exchange.codings, "")[0]]
    waiting: Iterator[bytes] = iter(())

    async def read() -> bytes:
        nonlocal waiting
        while True:
            piece = next(waiting, None)
            if piece is not None:
                return piece
            chunk = await exchange.body.read()
            if not chunk:
                break
            waiting = undo_all(undone, chunk)
        if any(undo.surplus for undo in undone):
            raise Failed("sent something behind the end of what is compressed", blames=False)
        if not all(undo.complete for undo in undone):
            raise Broken(f"ended in the middle of its {undone[0].coding}")
        return b""

    return read
