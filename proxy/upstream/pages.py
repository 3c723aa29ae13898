"""Asking one upstream for a project page: JSON first, HTML understood, nothing believed that does not parse."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from proxy.interfaces import IOffload
from proxy.model import Head, Page, PageFound, PageMissing, PageReply, PageUnchanged, Record, Validators, body_digest
from proxy.settings import MIB
from proxy.simple.media import media_of
from proxy.simple.parse import Malformed, html_is_complete, parse_page
from proxy.upstream.client import UpstreamClient
from proxy.upstream.coding import ACCEPTED, decoded
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Failed, Missing
from proxy.upstream.health import Trial

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

#: The largest page that is read (bytes, decoded).
LARGEST = 256 * MIB

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})")


async def ask_page(
    client: UpstreamClient,
    project: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
    *,
    trial: Trial | None = None,
    silence: float | None = None,
    answering: Callable[[], None] = lambda: None,
) -> PageReply:
    """What *client*'s upstream says of *project* (normalised); conditional when *known* is this upstream's.

    *trial* and *silence* are as for :meth:`UpstreamClient.ask`; *answering* is told when the first byte is in.  A 404 is
    a :class:`PageMissing`; whether it is definite is for the pool to say.  Raises Failed when upstream says nothing of use.
    """
    headers = {"Accept": ACCEPT, "Accept-Encoding": ACCEPTED}
    conditions = _conditions(known) if known is not None and known.upstream == client.name else {}
    url = f"{client.settings.url}{quote(project)}/"
    try:
        exchange = await client.ask("GET", url, {**headers, **conditions}, trial=trial, silence=silence)
    except Missing as missing:
        return PageMissing(client.name, missing.url, now)
    try:
        if exchange.status == 304 and conditions:
            reply: PageReply = PageUnchanged(client.name, now, _max_age(exchange), _serial(exchange, None))
        else:
            reply = await _found(client, exchange, project, offload, now, answering)
        exchange.trial.succeeded()
        return reply
    except Failed as error:
        exchange.trial.failed(str(error))
        raise
    finally:
        exchange.close()


def _conditions(known: Validators) -> dict[str, str]:
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}


async def _found(
    client: UpstreamClient, exchange: Exchange, project: str, offload: IOffload, now: float, answering: Callable[[], None]
) -> PageFound:
    if exchange.status != 200:
        raise Failed(f"answered {exchange.status} to a request for a page")
    content_type = exchange.header("content-type") or ""
    await exchange.body.ready()
    answering()
    body = await exchange.read(LARGEST)
    if exchange.coding:
        body = await offload.run(decoded, body, exchange.coding, LARGEST)
    if exchange.body.unsure and media_of(content_type) == "html" and not html_is_complete(body):
        raise Failed(f"sent a page that was cut off after {len(body):,} bytes")
    try:
        page = await offload.run(parse_page, body, content_type, exchange.url, project)
    except Malformed as error:
        raise Failed(f"sent no project page: {error}") from error
    head = Head(
        found=True,
        upstream=client.name,
        url=exchange.url,
        checked_at=now,
        digest=await offload.run(body_digest, body),
        content_type=content_type,
        etag=exchange.header("etag"),
        last_modified=exchange.header("last-modified"),
        max_age=_max_age(exchange),
        serial=_serial(exchange, page),
    )
    return PageFound(Record(head, body), page)


def _max_age(exchange: Exchange) -> float | None:
    """What is left of upstream's ``max-age`` (RFC 9111 section 4.2); ``None`` when it states none."""
    match = _MAX_AGE.search((exchange.header("cache-control") or "").lower())
    if match is None:
        return None
    age = exchange.header("age") or ""
    return max(0.0, float(match[1]) - (float(age) if age.isdigit() else 0.0))


def _serial(exchange: Exchange, page: Page | None) -> int | None:
    stated = exchange.header("x-pypi-last-serial")
    if stated is not None and stated.isdigit():
        return int(stated)
    serial = page.meta_extra.get("_last-serial") if page is not None else None
    return serial if isinstance(serial, int) and not isinstance(serial, bool) else None
