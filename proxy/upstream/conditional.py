"""Asking one upstream for what is kept: conditional requests (RFC 9110 section 13), and what the answer's head says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attrs import frozen

from proxy.interfaces import IOffload
from proxy.model import Head, PageMissing, PageUnchanged, Validators
from proxy.upstream.client import UpstreamClient
from proxy.upstream.coding import ACCEPTED, decoded
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Failed, Missing
from proxy.upstream.health import Trial

R = TypeVar("R")


@frozen
class Manner:
    """How one upstream is asked.

    ``trial``: the one it was admitted with.  ``silence``: a tighter bound on pauses in the body (seconds).  ``answering`` is
    told when the first byte is in.
    """

    trial: Trial | None = None
    silence: float | None = None
    answering: Callable[[], None] = lambda: None


_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})")


async def ask_conditionally(
    client: UpstreamClient,
    url: str,
    accept: str,
    known: Validators | None,
    read: Callable[[Exchange], Awaitable[R]],
    now: float,
    manner: Manner,
    named_by: str | None = None,
) -> R | PageUnchanged | PageMissing:
    """What *read* makes of the answer to a GET of *url*; conditional when *known* is this upstream's.

    *named_by* is as for :meth:`UpstreamClient.ask`.  A 404 is a :class:`PageMissing`; whether it is
    definite is for the pool to say.  Raises Failed when upstream says nothing of use.
    """
    headers = {"Accept": accept, "Accept-Encoding": ACCEPTED}
    conditions = _conditions(known) if known is not None and known.upstream == client.name else {}
    try:
        exchange = await client.ask(
            "GET", url, {**headers, **conditions}, trial=manner.trial, silence=manner.silence, named_by=named_by
        )
    except Missing as missing:
        return PageMissing(client.name, missing.url, now)
    try:
        if exchange.status == 304 and conditions:
            reply: R | PageUnchanged = PageUnchanged(client.name, now, _max_age(exchange), stated_serial(exchange))
        elif exchange.status != 200:
            raise Failed(f"answered {exchange.status} to a request for a page")
        else:
            reply = await read(exchange)
        exchange.trial.succeeded()
        return reply
    except Failed as error:
        if error.blames:
            exchange.trial.failed(str(error))
        raise
    finally:
        exchange.close()


def _conditions(known: Validators) -> dict[str, str]:
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}


async def read_whole(exchange: Exchange, offload: IOffload, limit: int, manner: Manner) -> bytes:
    """The body without its content coding, at most *limit* bytes."""
    await exchange.body.ready()
    manner.answering()
    body = await exchange.read(limit)
    if not exchange.codings:
        return body
    plain: bytes
    plain, clear = await offload.run(decoded, body, exchange.codings, limit)
    if not clear:
        exchange.body.unsure = True
    return plain


def head_of(client: UpstreamClient, exchange: Exchange, now: float, digest: str, serial: int | None) -> Head:
    """The head of a record with the body *digest*; *serial* is the one that the body states."""
    stated = stated_serial(exchange)
    return Head(
        found=True,
        upstream=client.name,
        url=exchange.url,
        checked_at=now,
        digest=digest,
        content_type=exchange.header("content-type") or "",
        etag=exchange.header("etag"),
        last_modified=exchange.header("last-modified"),
        max_age=_max_age(exchange),
        serial=serial if stated is None else stated,
    )


def _max_age(exchange: Exchange) -> float | None:
    """What is left of upstream's ``max-age`` (RFC 9111 section 4.2); ``None`` when it states none."""
    match = _MAX_AGE.search((exchange.header("cache-control") or "").lower())
    if match is None:
        return None
    age = exchange.header("age") or ""
    return max(0.0, float(match[1]) - (float(age) if age.isdigit() else 0.0))


def stated_serial(exchange: Exchange) -> int | None:
    """``X-PyPI-Last-Serial``."""
    stated = exchange.header("x-pypi-last-serial")
    return int(stated) if stated is not None and stated.isdigit() else None
