"""Asking one upstream for what is kept: conditional requests (RFC 9110 section 13), and what the answer's head says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import TypeVar

from proxy.expressions import expression
from proxy.interfaces import IHolding, IOffload
from proxy.mechanism.offload import SMALL
from proxy.model import Head, PageMissing, PageUnchanged, Validators
from proxy.settings import MIB
from proxy.simple.links import bare
from proxy.simple.numbers import whole
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.coding import ACCEPTED, decoded
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Failed, Missing

R = TypeVar("R")


#: The longest body in a content coding (bytes).
_LARGEST_CODED = 16 * MIB
#: How much larger a body hardly ever becomes when it is decoded.
_USUAL_RATIO = 20

#: Values of ``Cache-Control`` whose meaning is remembered: an upstream has few.
_REMEMBERED = 32
_NOT_KEPT = expression(r"(?:^|[\s,])no-(?:store|cache)(?=$|[\s,])")
_MAX_AGE = expression(r"(?:^|[\s,])max-age\s*=\s*\"?([0-9]{1,9})")


async def ask_conditionally(
    attempt: Attempt,
    upstream: str,
    url: str,
    accept: str,
    known: Validators | None,
    read: Callable[[Exchange], Awaitable[R]],
    now: float,
    named_by: str | None = None,
) -> R | PageUnchanged | PageMissing:
    """What *read* makes of the answer of *upstream* to a GET of *url*; conditional when *known* is of that URL.

    *named_by* is as for :meth:`Attempt.ask`.  A 404 is a :class:`PageMissing`; whether it is definite is for the pool to say.
    Raises Failed when upstream says nothing of use.
    """
    headers = {"Accept": accept, "Accept-Encoding": ACCEPTED}
    same = known is not None and (known.upstream, known.url) == (upstream, bare(url))
    conditions = _conditions(known) if known is not None and same else {}
    try:
        exchange = await attempt.ask("GET", url, {**headers, **conditions}, named_by=named_by)
    except Missing as missing:
        return PageMissing(upstream, missing.url, now)
    if exchange.status == 304 and conditions:
        return PageUnchanged(upstream, now, _max_age(exchange), stated_serial(exchange))
    if exchange.status != 200:
        raise Failed(f"answered {exchange.status} to a request for a page")
    return await read(exchange)


def _conditions(known: Validators) -> dict[str, str]:
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}


class WholeBody:
    """The body of *exchange* without its content codings, at most *limit* bytes, in an ``async with`` block.

    A large one waits for its turn, to be read and to be decoded: what it takes in memory is held until the block ends.
    """

    def __init__(self, attempt: Attempt, exchange: Exchange, offload: IOffload, limit: int) -> None:
        self._attempt = attempt
        self._exchange = exchange
        self._offload = offload
        self._limit = limit
        self._holding: IHolding | None = None

    async def __aenter__(self) -> bytes:
        try:
            return await self._read()
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._holding is not None:
            self._holding.shrink(0)

    async def _read(self) -> bytes:
        exchange, limit, codings = self._exchange, self._limit, self._exchange.codings
        self._holding = holding = await self._offload.memory.take(0)
        await exchange.body.ready()
        self._attempt.manner.answering()

        async def room(size: int) -> None:
            if size > max(SMALL, holding.size):
                await holding.grow(2 * size)

        body = await exchange.read(min(limit, _LARGEST_CODED) if codings else limit, room)
        if codings:
            body, clear = await _decoded(body, codings, self._offload, limit, holding)
            if not clear:
                exchange.body.surplus = True
        holding.shrink(len(body))
        return body


async def _decoded(body: bytes, codings: Sequence[str], offload: IOffload, limit: int, holding: IHolding) -> tuple[bytes, bool]:
    """What :func:`decoded` makes of *body*.  Raises Failed."""
    for most in (SMALL, min(limit, _USUAL_RATIO * len(body)), limit):
        if most > SMALL:
            await holding.grow(most)
        plain: tuple[bytes, bool] | None = await offload.run(decoded, body, codings, most)
        if plain is not None:
            return plain
    raise Failed(f"sent more than {limit:,} bytes")


def head_of(upstream: str, asked: str, exchange: Exchange, now: float, digest: str, serial: int | None, size: int = 0) -> Head:
    """The head of a record whose body has *digest* and *size*, and came when the URL *asked* was asked for.

    *serial* is the one that the body states.
    """
    stated = stated_serial(exchange)
    return Head(
        found=True,
        upstream=upstream,
        url=bare(exchange.url),
        asked=bare(asked),
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
    """What is left of upstream's ``max-age`` (RFC 9111 section 4.2); ``None`` when it states none.

    ``no-store`` and ``no-cache`` count as 0: all pages are kept for outages.
    """
    limit = _limit_in(exchange.header("cache-control") or "")
    return max(0.0, limit - (whole(exchange.header("age")) or 0)) if limit else limit


@lru_cache(_REMEMBERED)
def _limit_in(stated: str) -> float | None:
    """The seconds for which ``Cache-Control: {stated}`` lets a page be used after it was made."""
    stated = stated.lower()
    if _NOT_KEPT.search(stated):
        return 0.0
    match = _MAX_AGE.search(stated)
    return None if match is None else float(match[1])


def stated_serial(exchange: Exchange) -> int | None:
    """``X-PyPI-Last-Serial``."""
    return whole(exchange.header("x-pypi-last-serial"))
