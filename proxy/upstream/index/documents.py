"""Asking one upstream for JSON documents beside its pages: the legacy API and PEP 740's provenance, taken as they come."""

from __future__ import annotations

from urllib.parse import quote, urljoin

import msgspec

from proxy.interfaces import IOffload
from proxy.model import DocumentFound, DocumentReply, Record, Validators, body_digest
from proxy.settings import MIB, UpstreamSettings
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Failed, Fault
from proxy.upstream.index.conditional import WholeBody, ask_conditionally, head_of

#: The largest document that is read (bytes, decoded).
_LARGEST = 64 * MIB

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def document_url(upstream: UpstreamSettings, path: str) -> str:
    """Where *upstream* has what is at *path* beside its ``simple/``."""
    return urljoin(upstream.url, "../") + quote(path, safe="/+!")


async def ask_document(
    attempt: Attempt,
    upstream: UpstreamSettings,
    path: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
) -> DocumentReply:
    """The JSON object at *path* beside the index's ``simple/``.  The other arguments are those of :func:`ask_page`.

    What is no such object does not count against the upstream: an index need not have this API.  Raises Failed.
    """
    return await _ask(attempt, upstream.name, document_url(upstream, path), None, known, offload, now)


def _checked(body: bytes) -> str:
    """The digest of *body*.  Raises Malformed, MsgspecError when it is no JSON object that can be taken in."""
    from proxy.simple.from_json import of_few_values  # loaded by the first document, in its thread

    _object.decode(of_few_values(body))
    return body_digest(body)


async def ask_companion(
    attempt: Attempt,
    upstream: UpstreamSettings,
    url: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
) -> DocumentReply:
    """The JSON object at *url*, which the upstream's page names.  Raises as :func:`ask_document`."""
    return await _ask(attempt, upstream.name, url, upstream.url, known, offload, now)


async def _ask(
    attempt: Attempt,
    upstream: str,
    url: str,
    named_by: str | None,
    known: Validators | None,
    offload: IOffload,
    now: float,
) -> DocumentReply:
    async def found(exchange: Exchange) -> DocumentFound:
        async with WholeBody(attempt, exchange, offload, _LARGEST) as body:
            try:
                digest = await offload.run(_checked, body)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise Failed(f"sent no JSON document: {error}", fault=Fault.NO_EVIDENCE) from error
        return DocumentFound(Record(head_of(upstream, url, exchange, now, digest, None, len(body)), body))

    return await ask_conditionally(attempt, upstream, url, "application/json", known, found, now, named_by)
