"""Fetching one file from one upstream: from any byte on, as far as the connection lasts; and parts of it on their own.

Nothing of an answer is taken on trust that can be checked: a part has to begin where it was asked for and to belong to the file
that the first part came from, a content coding has to be on the bytes.  Where a server does not do ranges as it should, the
whole is asked for and the beginning passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from zope.interface import implementer

from proxy.errors import Attempted, DigestMismatch, UpstreamFailed
from proxy.expressions import expression
from proxy.interfaces import IBodyReader
from proxy.model import FileFacts, Wanted
from proxy.simple.media import media_of
from proxy.upstream.http.attempt import Attempt
from proxy.upstream.http.coding import BEGINNING, Miscoded, Undo, layers, undo_all
from proxy.upstream.http.exchange import Exchange
from proxy.upstream.http.failures import Broken, Failed, Fault, Unfit

_IDENTITY = {"Accept-Encoding": "identity", "Accept": "*/*"}
_CONTENT_RANGE = expression(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
_UNSATISFIED = expression(r"bytes \*/([0-9]{1,18})", re.IGNORECASE)
#: A date that is this much older than the answer names one state of a file (seconds; RFC 9110 section 8.8.2.2).
_LONG_AGO = 60.0


class FilePlace(Struct, frozen=True):
    """Where one upstream has a file: its URL, and the page that says so."""

    url: str
    page_url: str


class Said(Struct, frozen=True):
    """What an upstream said of a file when it began to send it.

    ``layers``: the content codings that were undone, outermost first.
    """

    etag: str | None = None
    last_modified: str | None = None
    #: Whether the date alone names this very state of the file.
    dated: bool = False
    size: int | None = None
    layers: tuple[str, ...] = ()

    @property
    def condition(self) -> str | None:
        """What makes a request for the rest one for the rest of the same (``If-Range``); ``None``: nothing that was said."""
        if self.layers:
            return None
        if self.etag is not None and self.etag.startswith('"'):
            return self.etag
        return self.last_modified if self.dated else None

    def contradicts(self, other: Said) -> bool:
        """Whether *other* was said of another state of the file."""
        if self.etag is None and self.last_modified is None:
            return False  # nothing was
        if other.etag is not None:
            return self.etag != other.etag
        return self.last_modified is not None and other.last_modified not in (None, self.last_modified)


class Opened(Struct, frozen=True):
    """A file whose body is about to come.  ``skip`` bytes come first that the sink has already.

    ``restart``: what comes begins at byte 0 and is not known to be the same bytes.  ``complete``: nothing more will come, the
    sink has it all.  ``others``: what else may have to be undone, if it turns out that ``said.layers`` is not right.
    """

    attempt: Attempt
    place: FilePlace
    exchange: Exchange
    said: Said
    skip: int = 0
    restart: bool = False
    complete: bool = False
    others: Sequence[tuple[str, ...]] = ()


async def open_file(
    attempt: Attempt, place: FilePlace, wanted: Wanted, offset: int, said: Said | None, *, fresh: bool
) -> Opened:
    """Ask for *wanted* from byte *offset* on, and wait for the first byte of the answer's body.

    *said* is what this upstream said of the bytes that are there already.  *fresh*: no byte has left, starting over is
    harmless.  Raises Failed; Missing.
    """
    opened = await _rest(attempt, place, wanted, offset, said or Said(), fresh) if offset else None
    if opened is not None:
        return opened
    exchange = await _ask(attempt, place, {})
    return await _from_start(attempt, place, exchange, wanted, offset, said or Said(), fresh)


async def _ask(attempt: Attempt, place: FilePlace, headers: Mapping[str, str], method: str = "GET") -> Exchange:
    return await attempt.ask(method, place.url, {**_IDENTITY, **headers}, named_by=place.page_url)


async def _rest(attempt: Attempt, place: FilePlace, wanted: Wanted, offset: int, said: Said, fresh: bool) -> Opened | None:
    """What comes from byte *offset* on; ``None`` when the server does not answer that as it should."""
    if said.layers:
        return None  # positions in the file are not those in what is sent
    headers = {"Range": f"bytes={offset}-"}
    if said.condition is not None:
        headers["If-Range"] = said.condition
    exchange = await _ask(attempt, place, headers)
    if exchange.status == 200 and _is_whole(exchange):
        return await _from_start(attempt, place, exchange, wanted, offset, said, fresh)
    answered = _said(exchange)
    if _is_part(exchange, offset, None, said.size or _known_size(wanted)) and not said.contradicts(answered):
        await exchange.body.ready()
        return Opened(attempt, place, exchange, replace(answered, size=said.size or answered.size))
    whole = _UNSATISFIED.fullmatch(exchange.header("content-range") or "")
    if exchange.status == 416 and whole is not None and int(whole[1]) == offset and wanted.digest is not None:
        return Opened(attempt, place, exchange, answered, complete=True)
    return None


async def _from_start(
    attempt: Attempt, place: FilePlace, exchange: Exchange, wanted: Wanted, offset: int, said: Said, fresh: bool
) -> Opened:
    """What an answer with all of the file brings to a sink that has *offset* bytes."""
    if not _is_whole(exchange):
        stated = exchange.header("content-range")
        raise Failed(f"answered {exchange.status} ({stated or 'no Content-Range'}) to a request for {wanted.name}")
    await exchange.body.ready()
    others: Sequence[tuple[str, ...]] = ()
    answered = _said(exchange)
    if exchange.codings:
        beginning = await exchange.body.beginning(BEGINNING)
        likely, *others = _readings(exchange, wanted, beginning)
        answered = replace(answered, layers=likely, size=_known_size(wanted) if likely else answered.size)
    _check_length(exchange, wanted, answered)
    if not offset:
        return Opened(attempt, place, exchange, answered, others=others)
    size = answered.size
    if wanted.digest is not None and not said.contradicts(answered) and (size is None or size > offset):
        # The digest will tell whether these are the bytes that the sink has the beginning of.
        return Opened(attempt, place, exchange, answered, skip=offset)
    if fresh:
        return Opened(attempt, place, exchange, answered, restart=True, others=others)
    raise _another(wanted)


def _another(wanted: Wanted) -> Unfit:
    return Unfit(f"has another {wanted.name} now than the one that bytes have been sent of already")


def _readings(exchange: Exchange, wanted: Wanted, beginning: bytes) -> list[tuple[str, ...]]:
    """What may have to be undone of a body that begins so; the likeliest first."""
    found = layers(beginning, exchange.codings, wanted.name)
    size, stated = _known_size(wanted), exchange.stated_length
    if size is not None and stated is not None:
        # As it comes it is the file only if it is as long.
        found.sort(key=lambda each: bool(each) if stated == size else not each)
    return found


def _known_size(wanted: Wanted) -> int | None:
    """What the page says of the length, of bytes that it vouches for."""
    return wanted.size if wanted.digest is not None else None


def _said(exchange: Exchange) -> Said:
    last_modified, date = exchange.header("last-modified"), exchange.header("date")
    try:
        dated = (
            last_modified is not None
            and date is not None
            and (parsedate_to_datetime(date) - parsedate_to_datetime(last_modified)).total_seconds() >= _LONG_AGO
        )
    except (ValueError, TypeError, OverflowError):
        dated = False
    return Said(exchange.header("etag"), last_modified, dated, _size(exchange))


def _size(exchange: Exchange) -> int | None:
    """The length of what the answer is, or is a part of; ``None`` when it does not say.  A coding may be on that."""
    stated = exchange.header("content-range")
    if stated is None:
        return exchange.stated_length if exchange.status == 200 else None
    match = _CONTENT_RANGE.fullmatch(stated.strip()) or _UNSATISFIED.fullmatch(stated.strip())
    total = match[match.re.groups] if match is not None else "*"
    return int(total) if total != "*" else None


def _is_part(exchange: Exchange, start: int, stop: int | None, size: int | None) -> bool:
    """Whether the answer brings bytes *start* to *stop* (exclusive; ``None``: to the end) of a file of *size*, as they are."""
    match = _CONTENT_RANGE.fullmatch((exchange.header("content-range") or "").strip())
    if exchange.status != 206 or match is None or exchange.codings:
        return False
    first, last, total = int(match[1]), int(match[2]), int(match[3]) if match[3] != "*" else None
    if first != start or last < first or (stop is not None and last != stop - 1):
        return False
    if total is not None and (last >= total or (size is not None and total != size)):
        return False
    return exchange.length is None or exchange.length == last - first + 1


def _is_whole(exchange: Exchange) -> bool:
    """Whether the answer is all of the file, whatever its status is called."""
    if exchange.header("content-range") is None:
        return exchange.status == 200
    match = _CONTENT_RANGE.fullmatch((exchange.header("content-range") or "").strip())
    whole = match is not None and int(match[1]) == 0 and match[3] in ("*", str(int(match[2]) + 1))
    if not whole or exchange.status not in (200, 206):
        return False
    assert match is not None
    return match[3] != "*" and exchange.length in (None, int(match[3]))


def _check_length(exchange: Exchange, wanted: Wanted, said: Said) -> None:
    """Refuse a whole body that is too short to be the file: an apology, another page, a file cut off long ago."""
    size, stated = _known_size(wanted), exchange.stated_length
    if size is not None and stated is not None and not said.layers and stated < size:
        raise Failed(f"has {stated:,} bytes for {wanted.name}, whose page says {size:,}")


async def pump(opened: Opened, wanted: Wanted, sink: Any) -> None:
    """Deliver what *opened* brings to *sink*, and finish it when that is all.

    Raises Broken when the connection ended before (the sink keeps what came), Failed when this upstream cannot deliver, and
    what the sink raises.
    """
    while True:
        try:
            await _pump(opened, wanted, sink)
            return
        except (DigestMismatch, Unfit):
            if not opened.others or sink.released:
                raise
        # The bytes can be read in another way too, and nobody has seen any.
        await sink.restart()
        opened = await _read_otherwise(opened, wanted)


async def _read_otherwise(opened: Opened, wanted: Wanted) -> Opened:
    """The same once more, with the next likely codings undone."""
    exchange = await _ask(opened.attempt, opened.place, {})
    if not _is_whole(exchange):
        raise Failed(f"answered {exchange.status} to a second request for {wanted.name}")
    likely, *others = opened.others
    said = replace(_said(exchange), layers=likely, size=_known_size(wanted) if likely else _size(exchange))
    return Opened(opened.attempt, opened.place, exchange, said, others=others)


async def _pump(opened: Opened, wanted: Wanted, sink: Any) -> None:
    exchange = opened.exchange
    try:
        if opened.restart:
            if sink.released:
                raise _another(wanted)  # a reader has come since this was opened
            await sink.restart()
        if opened.complete:
            sink.begin(FileFacts(sink.offset, ranges=True))
        else:
            await _deliver(opened, wanted, sink)
        # What was compressed has an end of its own.
        await sink.finish(framed=bool(opened.said.layers) or not exchange.body.unsure)
    except ValueError as error:
        # A body that ended early without anybody noticing, or another file.
        raise Unfit(f"sent something else than {wanted.name}: {error}") from error


async def _deliver(opened: Opened, wanted: Wanted, sink: Any) -> None:
    exchange, said, skip = opened.exchange, opened.said, opened.skip
    size = _known_size(wanted)
    if size is None:
        size = said.size
    undone = [Undo(coding) for coding in said.layers]
    sink.begin(FileFacts(size, said.etag, said.last_modified, ranges=True))
    body = exchange.body
    sink.registerProducer(body, True)
    try:
        while chunk := await body.read():
            opened.attempt.proven()
            for data in undo_all(undone, chunk):
                passed = min(skip, len(data))
                skip -= passed
                if len(data) > passed:
                    sink.write(data[passed:])
                    await body.room()
                if size is not None and sink.offset >= size:
                    break
            if size is not None and sink.offset >= size:
                break  # whatever Content-Length claims: the page says that this is all, and the digest will tell
    except Miscoded as error:
        raise Unfit(f"{error} ({wanted.name})") from error
    finally:
        sink.unregisterProducer()
    opened.attempt.proven()
    if size is not None and sink.offset < size:
        if exchange.codings and wanted.digest is not None:
            # It did come to its end: read like this, these are other bytes.
            reason = f"sent {sink.offset:,} of {size:,} bytes, with {', '.join(said.layers) or 'no coding'} on them"
            raise DigestMismatch(wanted.name, [Attempted("upstream", reason, 0.0)])
        raise Broken(f"ended after {sink.offset:,} of {size:,} bytes")
    if size is None and not all(undo.complete for undo in undone):
        raise Broken(f"ended in the middle of its {', '.join(said.layers)} after {sink.offset:,} bytes")


async def ask_facts(attempt: Attempt, place: FilePlace, wanted: Wanted) -> FileFacts:
    """Size and validators: by HEAD; where that fails or tells nothing by a range of one byte, and else by the head of a GET.

    Servers answer HEAD with 403 (a URL that is signed for GET), 404, 405, 501, or a length of 0.  Raises Failed, Missing.
    """
    facts = FileFacts(None)
    with suppress(Failed):
        facts = await _brief(attempt, place, wanted, "HEAD", {})
    if not facts.size:
        try:
            facts = await _brief(attempt, place, wanted, "GET", {"Range": "bytes=0-0"})
        except Failed as error:
            if error.status is None:
                raise
    return facts if facts.size else await _brief(attempt, place, wanted, "GET", {})


async def _brief(attempt: Attempt, place: FilePlace, wanted: Wanted, method: str, headers: Mapping[str, str]) -> FileFacts:
    """What the head of an answer says of the file."""
    exchange = await _ask(attempt, place, headers, method)
    return _facts(exchange, wanted)


def _facts(exchange: Exchange, wanted: Wanted) -> FileFacts:
    """What the headers of an answer say of the file, if it is one that says anything: no page that asks to sign in is."""
    if exchange.status not in (200, 206) or media_of(exchange.header("content-type") or "", b"") == "html":
        return FileFacts(None)
    said = _said(exchange)
    size = _known_size(wanted)
    if size is None:
        size = None if exchange.codings else said.size
    etag = said.etag if said.etag is not None and said.etag.startswith('"') else None
    return FileFacts(size, etag, said.last_modified, ranges=True)


async def open_part(attempt: Attempt, place: FilePlace, wanted: Wanted, start: int, stop: int) -> Part:
    """Bytes *start* to *stop* (exclusive) of *wanted*.  Raises Failed; also when this upstream does not do ranges."""
    exchange = await _ask(attempt, place, {"Range": f"bytes={start}-{stop - 1}"})
    if not _is_part(exchange, start, stop, _known_size(wanted)):
        raise Failed(f"answered {exchange.status} to a request for a range of {wanted.name}", fault=Fault.NO_EVIDENCE)
    return Part(attempt, wanted, exchange, stop - start)


@implementer(IBodyReader)
class Part:
    """A range of a file on its way.  It ends the attempt that it came of."""

    def __init__(self, attempt: Attempt, wanted: Wanted, exchange: Exchange, length: int) -> None:
        self.facts = _facts(exchange, wanted)
        self.length = length
        self._left = length
        self._attempt = attempt
        self._wanted = wanted
        self._exchange = exchange

    async def read(self) -> bytes:
        try:
            data = (await self._exchange.body.read())[: self._left]
        except Failed as error:
            self._attempt.end(error)
            raise UpstreamFailed(self._wanted.name, [Attempted(self._attempt.upstream, str(error), 0.0)]) from error
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._attempt.end()
