"""Asking one upstream for a project page: JSON first, HTML understood, nothing believed that does not parse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import quote

from msgspec.structs import replace
from twisted.logger import Logger

from proxy.interfaces import IOffload
from proxy.model import Page, PageFound, PageMissing, PageReply, Record, Validators, body_digest
from proxy.settings import MIB, UpstreamSettings
from proxy.simple.links import bare
from proxy.simple.parse import Malformed, is_whole, parse_page, says_its_end, settled_type
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Failed, Fault
from proxy.upstream.index.conditional import WholeBody, ask_conditionally, head_of
from proxy.upstream.index.dialect import NOT_UNDERSTOOD, REFUSED_TYPE, Dialect

#: What is asked of an upstream that answers requests for JSON with errors.
HTML = "text/html"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

_log = Logger()

#: Asks for a page, in a media type, conditional when something of it is known.
_Ask = Callable[[str, Validators | None], Awaitable[PageReply]]

#: The largest page that is read (bytes, decoded).
LARGEST = 64 * MIB


def page_url(upstream: UpstreamSettings, project: str) -> str:
    """Where *upstream* has the page of *project* (normalised)."""
    return f"{upstream.url}{quote(project)}/"


async def ask_page(
    attempt: Attempt,
    upstream: UpstreamSettings,
    dialect: Dialect,
    project: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
) -> PageReply:
    """What *upstream*, which speaks *dialect*, says of *project* (normalised); conditional when *known* is of the same URL.

    Raises Failed when upstream says nothing of use.
    """
    ask = partial(_ask, attempt, upstream, page_url(upstream, project), project, offload, now)
    reply = await _in_its_dialect(dialect, project, known, now, ask)
    if isinstance(reply, PageMissing):
        await _look_elsewhere(attempt, upstream, dialect, project, offload, now)
    return reply


async def _in_its_dialect(dialect: Dialect, project: str, known: Validators | None, now: float, ask: _Ask) -> PageReply:
    """What comes of asking in the media type that *dialect* says, and in the other one where that may be of use."""
    if dialect.html_alone(now):
        return await ask(HTML, known)
    if dialect.html_first():
        return await _html_first(dialect, known, now, ask)
    try:
        reply = await ask(ACCEPT, known)
        error = None
    except Failed as failure:
        if failure.status not in NOT_UNDERSTOOD:
            raise
        reply, error = None, failure
    # Others may have found out meanwhile in what the upstream answers.
    if (reply is None or isinstance(reply, PageMissing)) and dialect.may_want_html():
        with suppress(Failed):
            html = await ask(HTML, None)
            if isinstance(html, PageFound):
                return await _settled(dialect, html, now, ask)
        dialect.in_vain(project)
    elif isinstance(reply, PageFound):
        dialect.worked(now, html=False)
    if reply is None:
        assert error is not None
        raise error
    return reply


async def _html_first(dialect: Dialect, known: Validators | None, now: float, ask: _Ask) -> PageReply:
    """What comes of asking for HTML, where nothing is known to come of asking for JSON."""
    try:
        reply = await ask(HTML, known)
    except Failed as failure:
        if failure.status not in REFUSED_TYPE:
            raise
        reply = await ask(ACCEPT, known)
        if isinstance(reply, PageFound):
            dialect.worked(now, html=False)
        return reply
    return await _settled(dialect, reply, now, ask) if isinstance(reply, PageFound) else reply


async def _settled(dialect: Dialect, html: PageFound, now: float, ask: _Ask) -> PageFound:
    """*html*, or the page in JSON if that can be had after all: the error may have been a passing one."""
    found: PageReply = html
    with suppress(Failed):
        found = await ask(ACCEPT, None)
    if not isinstance(found, PageFound):
        found = html
    dialect.worked(now, html=found is html)
    return found


async def _look_elsewhere(
    attempt: Attempt, upstream: UpstreamSettings, dialect: Dialect, project: str, offload: IOffload, now: float
) -> None:
    """Make sure that a 404 is not about the configured URL.  Raises Failed when it is."""
    if not upstream.url.endswith("/simple/") and dialect.may_be_elsewhere(project, now):
        better = f"{upstream.url}simple/"
        with suppress(Failed):
            reply = await _ask(attempt, upstream, f"{better}{quote(project)}/", project, offload, now, ACCEPT, None)
            if isinstance(reply, PageFound):
                dialect.better_url = better
                _log.error(
                    "{setting} = {url} answers 404 and {better} has pages: set it to that",
                    setting=upstream.url_setting,
                    url=upstream.url,
                    better=better,
                )
    if dialect.better_url is not None:
        words = f"answered 404, and {dialect.better_url} has pages: set {upstream.url_setting} to it"
        raise Failed(words, fault=Fault.NO_EVIDENCE)


async def _ask(
    attempt: Attempt,
    upstream: UpstreamSettings,
    url: str,
    project: str,
    offload: IOffload,
    now: float,
    accept: str,
    known: Validators | None,
) -> PageReply:
    async def found(exchange: Exchange) -> PageFound:
        async with WholeBody(attempt, exchange, offload, LARGEST) as body:
            content_type = settled_type(body, exchange.header("content-type") or "")
            doubt = says_its_end if exchange.body.surplus else is_whole if exchange.body.unsure else None
            if doubt is not None and not await offload.run(doubt, body, content_type):
                raise Failed(f"sent a page that was cut off after {len(body):,} bytes")
            try:
                page, digest = await offload.run(_parsed, body, content_type, bare(exchange.url), project)
            except Malformed as error:
                coding = (exchange.header("content-encoding") or "")[:100]
                raise Failed(f"sent no project page{f' (Content-Encoding: {coding})' if coding else ''}: {error}") from error
        head = head_of(upstream.name, url, exchange, now, digest, page.meta_extra.get("_last-serial"), len(body))
        return PageFound(Record(replace(head, content_type=content_type), body), page)

    return await ask_conditionally(attempt, upstream.name, url, accept, known, found, now)


def _parsed(body: bytes, content_type: str, url: str, project: str) -> tuple[Page, str]:
    """The page in *body*, and the digest of that.  Raises Malformed."""
    return parse_page(body, content_type, url, project), body_digest(body)
