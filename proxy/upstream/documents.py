"""Asking one upstream for JSON documents beside its pages: the legacy API and PEP 740's provenance, taken as they come."""

from __future__ import annotations

from urllib.parse import quote, urljoin

import msgspec

from proxy.interfaces import IOffload
from proxy.model import DocumentFound, DocumentReply, Record, Validators, body_digest
from proxy.settings import MIB
from proxy.simple.from_json import of_few_values
from proxy.upstream.client import UpstreamClient
from proxy.upstream.conditional import Manner, ask_conditionally, head_of, whole_body
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
    url = urljoin(client.settings.url, "../") + quote(path, safe="/+!")
    return await _ask(client, url, None, known, offload, now, manner)


def _checked(body: bytes) -> str:
    """The digest of *body*.  Raises Malformed, MsgspecError when it is no JSON object that can be taken in."""
    _object.decode(of_few_values(body))
    return body_digest(body)


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
        async with whole_body(exchange, offload, _LARGEST, manner) as body:
            try:
                digest = await offload.run(_checked, body)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise Failed(f"sent no JSON document: {error}", blames=False) from error
        return DocumentFound(Record(head_of(client, exchange, now, digest, None, len(body)), body))

    return await ask_conditionally(client, url, "application/json", known, found, now, manner, named_by)
