"""Asking one upstream for a project page: JSON first, HTML understood, nothing believed that does not parse."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from attrs import evolve
from twisted.logger import Logger

from proxy.interfaces import IOffload
from proxy.model import Page, PageFound, PageMissing, PageReply, PageUnchanged, Record, Validators, body_digest
from proxy.settings import MIB, UpstreamSettings
from proxy.simple.links import bare
from proxy.simple.parse import Malformed, is_whole, parse_page, says_its_end, settled_type
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Failed, Fault
from proxy.upstream.index.conditional import ask_conditionally, head_of, whole_body
from proxy.upstream.index.dialect import NOT_UNDERSTOOD, Dialect

#: What is asked of an upstream that answers requests for JSON with errors.
HTML = "text/html"
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

_log = Logger()

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
    url = page_url(upstream, project)
    html = dialect.html_alone(now)
    try:
        reply = await _ask(attempt, upstream, url, HTML if html else ACCEPT, project, known, offload, now)
        error = None
    except Failed as failure:
        if failure.status not in NOT_UNDERSTOOD or not dialect.may_want_html(now):
            raise
        reply, error = None, failure
    if not isinstance(reply, PageFound) and not isinstance(reply, PageUnchanged) and dialect.may_want_html(now):
        reply, html = await _as_html(attempt, upstream, url, project, offload, now, reply)
    if isinstance(reply, PageFound) and (html is not dialect.html_alone(now) or not html):
        dialect.worked(now, html=html)
    if reply is None:
        assert error is not None
        raise error
    if isinstance(reply, PageMissing):
        await _look_elsewhere(attempt, upstream, dialect, project, offload, now)
    return reply


async def _as_html(
    attempt: Attempt,
    upstream: UpstreamSettings,
    url: str,
    project: str,
    offload: IOffload,
    now: float,
    refused: PageReply | None,
) -> tuple[PageReply | None, bool]:
    """What comes of asking for HTML where a request for JSON was *refused*, and whether HTML is all that upstream has.

    When HTML comes, JSON is asked for once more: the error may have been a passing one.
    """
    replies: list[PageReply | None] = []
    for accept in (HTML, ACCEPT):
        try:
            replies.append(await _ask(attempt, upstream, url, accept, project, None, offload, now))
        except Failed:
            replies.append(None)
        if not isinstance(replies[0], PageFound):
            return refused, False
    found = replies[1] if isinstance(replies[1], PageFound) else replies[0]
    return found, found is replies[0]


async def _look_elsewhere(
    attempt: Attempt, upstream: UpstreamSettings, dialect: Dialect, project: str, offload: IOffload, now: float
) -> None:
    """Make sure that a 404 is not about the configured URL.  Raises Failed when it is."""
    if not upstream.url.endswith("/simple/") and dialect.may_be_elsewhere():
        better = f"{upstream.url}simple/"
        with suppress(Failed):
            reply = await _ask(attempt, upstream, f"{better}{quote(project)}/", ACCEPT, project, None, offload, now)
            if isinstance(reply, PageFound):
                dialect.better_url = better
                _log.error(
                    "upstream.{name}.url = {url} answers 404 and {better} has pages: set it to that",
                    name=upstream.name,
                    url=upstream.url,
                    better=better,
                )
    if dialect.better_url is not None:
        words = f"answered 404, and {dialect.better_url} has pages: upstream.{upstream.name}.url is to end in simple/"
        raise Failed(words, fault=Fault.NO_EVIDENCE)


async def _ask(
    attempt: Attempt,
    upstream: UpstreamSettings,
    url: str,
    accept: str,
    project: str,
    known: Validators | None,
    offload: IOffload,
    now: float,
) -> PageReply:
    async def found(exchange: Exchange) -> PageFound:
        async with whole_body(attempt, exchange, offload, LARGEST) as body:
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
        return PageFound(Record(evolve(head, content_type=content_type), body), page)

    return await ask_conditionally(attempt, upstream.name, url, accept, known, found, now)


def _parsed(body: bytes, content_type: str, url: str, project: str) -> tuple[Page, str]:
    """The page in *body*, and the digest of that.  Raises Malformed."""
    return parse_page(body, content_type, url, project), body_digest(body)
