"""Asking one upstream for the list of all its projects (PEP 503, PEP 691): tens of megabytes that are never held at once."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

from proxy.interfaces import Receive
from proxy.model import DocumentFound, DocumentReply, Record, Validators
from proxy.upstream.client import UpstreamClient
from proxy.upstream.coding import inflater
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
            digest, serial = await receive(exchange.header("content-type") or "", _plain(exchange))
        except zlib.error as error:
            raise Failed(f"sent {exchange.coding} that cannot be read: {error}") from error
        except ValueError as error:
            raise Failed(f"sent no list of projects: {error}", blames=False) from error
        return DocumentFound(Record(head_of(client, exchange, now, digest, serial), b""))

    return await ask_conditionally(client, client.settings.url, ACCEPT, known, found, now, manner)


def _plain(exchange: Exchange) -> Callable[[], Awaitable[bytes]]:
    """Reads the body chunk by chunk, its content coding undone."""
    decoder = inflater(exchange.coding) if exchange.coding else None

    async def read() -> bytes:
        while chunk := await exchange.body.read():
            data: bytes = chunk if decoder is None else decoder.decompress(chunk)
            if data:
                return data
        if decoder is not None and not decoder.eof:
            raise Broken(f"ended in the middle of its {exchange.coding}")
        return b""

    return read
