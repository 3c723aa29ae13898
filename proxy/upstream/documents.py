"""Asking one upstream for JSON documents beside its pages: the legacy API and PEP 740's provenance, taken as they come."""

from __future__ import annotations

from urllib.parse import urljoin

import msgspec

from proxy.interfaces import IOffload
from proxy.model import DocumentFound, DocumentReply, Record, Validators, body_digest
from proxy.settings import MIB
from proxy.upstream.client import UpstreamClient
from proxy.upstream.conditional import Manner, ask_conditionally, head_of, read_whole
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Failed

#: The largest document that is read (bytes, decoded).
_LARGEST = 64 * MIB

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def ask_document(
    client: UpstreamClient,
    path: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
    manner: Manner,
) -> DocumentReply:
    """The JSON object at *path* beside the index's ``simple/``.  The other arguments are those of :func:`ask_page`.

    What is no such object does not count against the upstream: an index need not have this API.  Raises Failed.
    """
    url = urljoin(client.settings.url, f"../{path}")
    return await _ask(client, url, None, known, offload, now, manner)


async def ask_companion(
    client: UpstreamClient,
    url: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
    manner: Manner,
) -> DocumentReply:
    """The JSON object at *url*, which the upstream's page names.  Raises as :func:`ask_document`."""
    named_by = client.settings.url
    return await _ask(client, url, named_by, known, offload, now, manner)


async def _ask(
    client: UpstreamClient,
    url: str,
    named_by: str | None,
    known: Validators | None,
    offload: IOffload,
    now: float,
    manner: Manner,
) -> DocumentReply:
    async def found(exchange: Exchange) -> DocumentFound:
        body = await read_whole(exchange, offload, _LARGEST, manner)
        try:
            await offload.run(_object.decode, body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Failed(f"sent no JSON document: {error}", blames=False) from error
        return DocumentFound(Record(head_of(client, exchange, now, await offload.run(body_digest, body), None), body))

    return await ask_conditionally(client, url, "application/json", known, found, now, manner, named_by)
