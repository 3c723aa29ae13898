"""Asking one upstream for what is kept: conditional requests (RFC 9110 section 13), and what the answer's head says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from attrs import frozen

from proxy.interfaces import IOffload
from proxy.model import Head, PageMissing, PageUnchanged, Validators
from proxy.settings import KIB, MIB
from proxy.simple.links import bare
from proxy.simple.numbers import whole
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


#: Bodies up to this size are read and decoded whatever others do; and the longest body in a content coding (bytes).
SMALL, LARGEST_CODED = 256 * KIB, 16 * MIB
#: How much larger a body hardly ever becomes when it is decoded.
_USUAL_RATIO = 20

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})")


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


@asynccontextmanager
async def whole_body(exchange: Exchange, offload: IOffload, limit: int, manner: Manner) -> AsyncIterator[bytes]:
    """The body without its content codings, at most *limit* bytes.

    A large one waits for its turn, to be read and to be decoded: what it takes in memory is held until the block ends.
    """
    async with offload.memory.of(0) as holding:
        await exchange.body.ready()
        manner.answering()

        async def room(size: int) -> None:
            if size > max(SMALL, holding.size):
                await holding.grow(2 * size)

        body = await exchange.read(min(limit, LARGEST_CODED) if exchange.codings else limit, room)
        if exchange.codings:
            body, clear = await _decoded(body, exchange.codings, offload, limit, holding)
            if not clear:
                exchange.body.unsure = True
        holding.shrink(len(body))
        yield body


async def _decoded(body: bytes, codings: Sequence[str], offload: IOffload, limit: int, holding: Any) -> tuple[bytes, bool]:
    """What :func:`decoded` makes of *body*.  Raises Failed."""
    for most in (SMALL, min(limit, _USUAL_RATIO * len(body)), limit):
        if most > SMALL:
            await holding.grow(most)
        plain: tuple[bytes, bool] | None = await offload.run(decoded, body, codings, most)
        if plain is not None:
            return plain
    raise Failed(f"sent more than {limit:,} bytes")


def head_of(client: UpstreamClient, exchange: Exchange, now: float, digest: str, serial: int | None, size: int = 0) -> Head:
    """The head of a record whose body has *digest* and *size*; *serial* is the one that the body states."""
    stated = stated_serial(exchange)
    return Head(
        found=True,
        upstream=client.name,
        url=bare(exchange.url),
        checked_at=now,
        digest=digest,
        content_type=exchange.header("content-type") or "",
        etag=exchange.header("etag"),
        last_modified=exchange.header("last-modified"),
        max_age=_max_age(exchange),
        serial=serial if stated is None else stated,
        size=size,
    )


def _max_age(exchange: Exchange) -> float | None:
    """What is left of upstream's ``max-age`` (RFC 9111 section 4.2); ``None`` when it states none."""
    match = _MAX_AGE.search((exchange.header("cache-control") or "").lower())
    if match is None:
        return None
    return max(0.0, float(match[1]) - (whole(exchange.header("age")) or 0))


def stated_serial(exchange: Exchange) -> int | None:
    """``X-PyPI-Last-Serial``."""
    return whole(exchange.header("x-pypi-last-serial"))
