"""Fetching one file from one upstream: from any byte on, as far as the connection lasts; and parts of it on their own."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from zope.interface import implementer

from proxy.errors import Attempt, UpstreamFailed
from proxy.interfaces import IBodyReader
from proxy.model import FileFacts, Wanted
from proxy.upstream.client import UpstreamClient
from proxy.upstream.coding import inflater
from proxy.upstream.exchange import Exchange
from proxy.upstream.failures import Broken, Failed, Missing, Unfit
from proxy.upstream.health import Trial

_IDENTITY = {"Accept-Encoding": "identity", "Accept": "*/*"}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")
#: Files that are gzip themselves: a server that calls this their Content-Encoding means the file.
_IS_GZIP = (".gz", ".tgz")


@frozen
class Place:
    """Where one upstream has a file: its URL, and the page that says so."""

    client: UpstreamClient
    url: str
    page_url: str


@frozen
class Opened:
    """A file whose body is about to come.  ``skip`` bytes come first that the sink has already.

    ``restart``: what comes begins at byte 0 and is not known to be the same bytes.  ``complete``: nothing more will come, the
    sink has it all.
    """

    place: Place
    exchange: Exchange
    skip: int = 0
    restart: bool = False
    complete: bool = False

    @property
    def etag(self) -> str | None:
        """A strong validator for going on at this upstream, if it gave one."""
        return _strong(self.exchange)


async def open_file(
    place: Place, wanted: Wanted, offset: int, etag: str | None, *, trial: Trial, silence: float | None, fresh: bool
) -> Opened:
    """Ask for *wanted* from byte *offset* on, and wait for the first byte of the answer's body.

    *etag* is what this upstream called the bytes that are there already.  *fresh*: no byte has left, starting over is harmless.
    Raises Failed; Missing.  The exchange is closed by :func:`pump`.
    """
    headers = dict(_IDENTITY)
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag is not None:
            headers["If-Range"] = etag
    exchange = await place.client.ask(
        "GET", place.url, headers, file=True, named_by=place.page_url, trial=trial, silence=silence
    )
    try:
        opened = _aligned(place, exchange, wanted, offset, fresh)
        await exchange.body.ready()
    except Unfit:
        trial.succeeded()  # it answered, and what is here may be what is wrong
        exchange.close()
        raise
    except Failed as error:
        trial.failed(str(error))
        exchange.close()
        raise
    except BaseException:
        exchange.close()
        raise
    return opened


def _aligned(place: Place, exchange: Exchange, wanted: Wanted, offset: int, fresh: bool) -> Opened:
    """How the answer goes on where the sink stands."""
    status = exchange.status
    if status == 200:
        _check_length(exchange, wanted)
    if offset == 0:
        if status != 200:
            raise Failed(f"answered {status} to a request for {wanted.name}")
        return Opened(place, exchange)
    stated = exchange.header("content-range") or ""
    if status == 206:
        match = _CONTENT_RANGE.fullmatch(stated)
        if match is None or int(match[1]) != offset:
            raise Unfit(f"sent {stated!r} of {wanted.name} where bytes from {offset} on were asked for")
        if exchange.coding:
            raise Unfit(f"sent a part of {wanted.name} in the content coding {exchange.coding}")
        return Opened(place, exchange)
    if wanted.digest is not None:
        if status == 200:
            return Opened(place, exchange, skip=offset)  # ranges are ignored here; the digest will tell what these bytes are
        whole = _UNSATISFIED.fullmatch(stated)
        if status == 416 and whole is not None and int(whole[1]) == offset:
            return Opened(place, exchange, complete=True)
    elif fresh and status in (200, 416):
        return Opened(place, exchange, restart=True)
    raise Unfit(f"answered {status} to a request for the rest of {wanted.name}, and nothing vouches for what is there already")


def _check_length(exchange: Exchange, wanted: Wanted) -> None:
    """Refuse a whole body that is too short to be the file: an apology, another page, a file cut off long ago."""
    stated = exchange.stated_length
    if wanted.digest is None or wanted.size is None or stated is None or exchange.coding:
        return
    if stated < wanted.size:
        raise Failed(f"has {stated:,} bytes for {wanted.name}, whose page says {wanted.size:,}")


def _is_coded(exchange: Exchange, wanted: Wanted) -> bool:
    """Whether the body is the file in a content coding that nobody asked for.

    Some servers call a ``.tar.gz`` itself gzip-coded: its length tells.
    """
    if not exchange.coding:
        return False
    if not wanted.name.endswith(_IS_GZIP):
        return True
    return wanted.size is not None and exchange.stated_length not in (None, wanted.size)


async def pump(opened: Opened, wanted: Wanted, sink: Any) -> None:
    """Deliver what *opened* brings to *sink*, and finish it when that is all.

    Raises Broken when the connection ended before (the sink keeps what came), Failed when this upstream cannot deliver, and
    what the sink raises.
    """
    exchange = opened.exchange
    try:
        if opened.restart:
            await sink.restart()
            if exchange.status == 416:
                raise Broken("has nothing at that position")
        if opened.complete:
            sink.begin(FileFacts(sink.offset, ranges=True))
        else:
            await _deliver(opened, wanted, sink)
        await sink.finish(framed=not exchange.body.unsure)
    except ValueError as error:
        # A body that ended early without anybody noticing, or another file.
        raise _blamed(exchange, Unfit(f"sent something else than {wanted.name}: {error}")) from error
    except Failed as error:
        raise _blamed(exchange, error) from error
    finally:
        exchange.close()


def _blamed(exchange: Exchange, error: Failed) -> Failed:
    exchange.trial.failed(str(error))
    return error


async def _deliver(opened: Opened, wanted: Wanted, sink: Any) -> None:
    exchange, skip = opened.exchange, opened.skip
    coded = _is_coded(exchange, wanted)
    inflate = inflater(exchange.coding) if coded else None
    size = _size(exchange, wanted, coded)
    sink.begin(FileFacts(size, opened.etag, exchange.header("last-modified"), ranges=True))
    body = exchange.body
    sink.registerProducer(body, True)
    try:
        while chunk := await body.read():
            exchange.trial.succeeded()
            data = inflate.decompress(chunk) if inflate is not None else chunk
            if skip:
                skip, data = max(0, skip - len(data)), data[skip:]
            if data:
                sink.write(data)
            if size is not None and sink.offset >= size:
                break  # whatever Content-Length claims: the page says that this is all, and the digest will tell
    except zlib.error as error:
        raise Failed(f"sent {wanted.name} as {exchange.coding} that cannot be read: {error}") from error
    finally:
        sink.unregisterProducer()
    exchange.trial.succeeded()
    if size is not None and sink.offset < size:
        raise Broken(f"ended after {sink.offset:,} of {size:,} bytes")
    if inflate is not None and not inflate.eof:
        raise Broken(f"ended in the middle of its {exchange.coding} after {sink.offset:,} bytes")


def _size(exchange: Exchange, wanted: Wanted, coded: bool) -> int | None:
    """Bytes in all.  What the page says of bytes that it vouches for counts for more than a header."""
    if wanted.size is not None and wanted.digest is not None:
        return wanted.size
    if coded:
        return None
    match = _CONTENT_RANGE.fullmatch(exchange.header("content-range") or "")
    if exchange.status == 206 and match is not None:
        return int(match[3]) if match[3] != "*" else None
    return exchange.stated_length


def _strong(exchange: Exchange) -> str | None:
    etag = exchange.header("etag")
    return etag if etag is not None and etag.startswith('"') else None


def _facts(exchange: Exchange, wanted: Wanted) -> FileFacts:
    size = _size(exchange, wanted, bool(exchange.coding))
    return FileFacts(size, _strong(exchange), exchange.header("last-modified"), ranges=True)


async def ask_facts(place: Place, wanted: Wanted, trial: Trial) -> FileFacts:
    """Size and validators: by HEAD, or where that fails or tells nothing by a range of one byte.  Raises Failed, Missing."""
    try:
        facts = await _brief(place, wanted, "HEAD", _IDENTITY, trial)
    except Missing:
        raise
    except Failed:
        # 405, or the 403 of a URL that was signed for GET, or whatever else a server that knows no HEAD comes up with.
        facts = None
    if facts is None or facts.size is None:
        facts = await _brief(place, wanted, "GET", {**_IDENTITY, "Range": "bytes=0-0"}, None)
    return facts


async def _brief(place: Place, wanted: Wanted, method: str, headers: Mapping[str, str], trial: Trial | None) -> FileFacts:
    exchange = await place.client.ask(method, place.url, headers, file=True, named_by=place.page_url, trial=trial)
    exchange.trial.succeeded()
    exchange.close()
    return _facts(exchange, wanted)


async def open_part(place: Place, wanted: Wanted, start: int, stop: int, trial: Trial, silence: float | None) -> Part:
    """Bytes *start* to *stop* (exclusive) of *wanted*.  Raises Failed; also when this upstream ignores ranges."""
    headers = {**_IDENTITY, "Range": f"bytes={start}-{stop - 1}"}
    exchange = await place.client.ask(
        "GET", place.url, headers, file=True, named_by=place.page_url, trial=trial, silence=silence
    )
    trial.succeeded()
    match = _CONTENT_RANGE.fullmatch(exchange.header("content-range") or "")
    if exchange.status != 206 or match is None or (int(match[1]), int(match[2])) != (start, stop - 1) or exchange.coding:
        exchange.close()
        raise Failed(f"answered {exchange.status} to a request for a range of {wanted.name}", blames=False)
    return Part(place.client, wanted, exchange, stop - start)


@implementer(IBodyReader)
class Part:
    """A range of a file on its way."""

    def __init__(self, client: UpstreamClient, wanted: Wanted, exchange: Exchange, length: int) -> None:
        self.facts = _facts(exchange, wanted)
        self.length = length
        self._client = client
        self._wanted = wanted
        self._exchange = exchange

    async def read(self) -> bytes:
        try:
            return await self._exchange.body.read()
        except Failed as error:
            self._exchange.trial.failed(str(error))
            raise UpstreamFailed(self._wanted.name, [Attempt(self._client.name, str(error), 0.0)]) from error

    def close(self) -> None:
        self._exchange.close()
