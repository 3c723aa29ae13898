"""Asking one upstream for a project page: JSON first, HTML understood, nothing believed that does not parse."""

from __future__ import annotations

from urllib.parse import quote

from proxy.interfaces import IOffload
from proxy.model import Page, PageFound, PageReply, Record, Validators, body_digest
from proxy.settings import MIB
from proxy.simple.links import bare
from proxy.simple.parse import Malformed, html_is_complete, parse_page
from proxy.upstream.client import UpstreamClient
from proxy.upstream.conditional import Manner, ask_conditionally, head_of, whole_body
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Failed

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

#: The largest page that is read (bytes, decoded).
LARGEST = 64 * MIB
_BLANK = b"\xef\xbb\xbf \t\r\n"


async def ask_page(
    client: UpstreamClient,
    project: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
    manner: Manner,
) -> PageReply:
    """What *client*'s upstream says of *project* (normalised); conditional when *known* is this upstream's.

    Raises Failed when upstream says nothing of use.
    """

    async def found(exchange: Exchange) -> PageFound:
        content_type = exchange.header("content-type") or ""
        async with whole_body(exchange, offload, LARGEST, manner) as body:
            if exchange.body.unsure and not body.lstrip(_BLANK).startswith(b"{") and not html_is_complete(body):
                raise Failed(f"sent a page that was cut off after {len(body):,} bytes")
            try:
                page, digest = await offload.run(_parsed, body, content_type, bare(exchange.url), project)
            except Malformed as error:
                coding = (exchange.header("content-encoding") or "")[:100]
                raise Failed(f"sent no project page{f' (Content-Encoding: {coding})' if coding else ''}: {error}") from error
        head = head_of(client, exchange, now, digest, page.meta_extra.get("_last-serial"), len(body))
        return PageFound(Record(head, body), page)

    url = f"{client.settings.url}{quote(project)}/"
    return await ask_conditionally(client, url, ACCEPT, known, found, now, manner)


def _parsed(body: bytes, content_type: str, url: str, project: str) -> tuple[Page, str]:
    """The page in *body*, and the digest of that.  Raises Malformed."""
    return parse_page(body, content_type, url, project), body_digest(body)
