"""Fetching one file from one upstream: going on where a connection broke, and parts of it on their own."""

from __future__ import annotations

import re
import zlib
from typing import Any

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from proxy.errors import Attempt, DigestMismatch, UpstreamFailed
from proxy.interfaces import IBodyReader
from proxy.model import FileFacts, Wanted
from proxy.upstream.client import Exchange, UpstreamClient
from proxy.upstream.failures import Broken, Failed, Missing

#: Connections that may break in a row without a single byte of progress before the next upstream is asked.
MOST_BREAKS = 3

_IDENTITY = {"Accept-Encoding": "identity", "Accept": "*/*"}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_GZIP_WRAPPER = 31
#: Files that are gzip themselves: a server that calls this their Content-Encoding means the file.
_IS_GZIP = (".gz", ".tgz")


async def deliver(client: UpstreamClient, wanted: Wanted, url: str, page_url: str, sink: Any) -> None:
    """Deliver *wanted* from *url* to *sink*, from ``sink.offset`` on, however often the connection breaks.

    Raises Failed when this upstream cannot, DigestMismatch when its bytes are wrong; both leave the sink as it is.
    """
    etag: str | None = None
    breaks = 0
    while True:
        start = sink.offset
        try:
            etag = await _once(client, wanted, url, page_url, sink, etag)
            await sink.finish()
        except Broken as error:
            client.health.failed(str(error))
            breaks = 0 if sink.offset > start else breaks + 1
            if breaks >= MOST_BREAKS:
                raise
            if sink.offset and wanted.digest is None and etag is None:
                await _start_over(sink, error)
        except ValueError as error:
            # The length is not what was said: a body that ended early without anybody noticing, or another file.
            raise Failed(f"sent {wanted.name} with another length: {error}") from error
        except DigestMismatch:
            client.health.failed(f"sent wrong bytes for {wanted.name}")
            raise
        else:
            client.health.succeeded()
            return


async def _start_over(sink: Any, error: Failed) -> None:
    """Begin again at byte 0, which only an unseen beginning allows."""
    if sink.released:
        raise Failed(f"{error}, and nothing vouches for the bytes that clients have already")
    await sink.restart()


async def _once(client: UpstreamClient, wanted: Wanted, url: str, page_url: str, sink: Any, etag: str | None) -> str | None:
    """One connection's worth of *wanted*.  Returns a strong validator for the next one, if upstream gave one."""
    headers = dict(_IDENTITY)
    offset = sink.offset
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag is not None:
            headers["If-Range"] = etag
    exchange = await client.ask("GET", url, headers, file=True, named_by=page_url)
    try:
        skip = await _aligned(exchange, wanted, sink, offset)
        etag = _strong(exchange) or (etag if skip == 0 else None)
        inflate = _inflater(exchange, wanted)
        sink.begin(_facts(exchange, wanted, inflated=inflate is not None))
        body = exchange.body
        sink.registerProducer(body, True)
        try:
            while chunk := await body.read():
                data = inflate.decompress(chunk) if inflate is not None else chunk
                if skip:
                    skip, data = max(0, skip - len(data)), data[skip:]
                if data:
                    sink.write(data)
        except zlib.error as error:
            raise Failed(f"sent {wanted.name} as gzip that cannot be read: {error}") from error
        finally:
            sink.unregisterProducer()
        total = _facts(exchange, wanted, inflated=inflate is not None).size
        if body.unsure and total is not None and sink.offset < total:
            raise Broken(f"ended after {sink.offset:,} of {total:,} bytes")
    except CancelledError:
        client.health.abandoned()
        raise
    except Failed as error:
        if not isinstance(error, Broken):
            client.health.failed(str(error))
        raise
    finally:
        exchange.close()
    return etag


async def _aligned(exchange: Exchange, wanted: Wanted, sink: Any, offset: int) -> int:
    """Make sure that the body goes on where the sink stands: the number of bytes to skip first."""
    if offset == 0:
        if exchange.status != 200:
            raise Failed(f"answered {exchange.status} to a request for {wanted.name}")
        return 0
    if exchange.status == 206:
        match = _CONTENT_RANGE.fullmatch(exchange.header("content-range") or "")
        if match is None or int(match[1]) != offset:
            raise Failed(
                f"sent {exchange.header('content-range')!r} of {wanted.name} where bytes from {offset} on were asked for"
            )
        return 0
    if exchange.status == 200 and wanted.digest is not None:
        return offset  # ranges are ignored here; the digest will tell whether these are the same bytes
    error = Failed(f"answered {exchange.status} to a request for the rest of {wanted.name}")
    if exchange.status not in (200, 416):
        raise error
    await _start_over(sink, error)
    if exchange.status == 416:
        raise Broken("has nothing at that position")
    return 0


def _inflater(exchange: Exchange, wanted: Wanted) -> Any:
    """A decoder for a body that came compressed although identity was asked for."""
    coding = (exchange.header("content-encoding") or "").strip().lower()
    if coding in ("gzip", "x-gzip") and not wanted.name.endswith(_IS_GZIP):
        return zlib.decompressobj(_GZIP_WRAPPER)
    return None


def _facts(exchange: Exchange, wanted: Wanted, *, inflated: bool = False) -> FileFacts:
    size = wanted.size
    if not inflated:
        match = _CONTENT_RANGE.fullmatch(exchange.header("content-range") or "")
        if exchange.status == 206 and match is not None:
            size = int(match[3]) if match[3] != "*" else size
        elif exchange.stated_length is not None:
            size = exchange.stated_length
    return FileFacts(size, _strong(exchange), exchange.header("last-modified"), ranges=True)


def _strong(exchange: Exchange) -> str | None:
    etag = exchange.header("etag")
    return etag if etag is not None and etag.startswith('"') else None


async def ask_facts(client: UpstreamClient, wanted: Wanted, url: str, page_url: str) -> FileFacts:
    """Size and validators: by HEAD, or where that fails by a range of one byte.  Raises Failed, Missing."""
    try:
        exchange = await client.ask("HEAD", url, _IDENTITY, file=True, named_by=page_url)
    except Missing:
        raise
    except Failed:
        exchange = await client.ask("GET", url, {**_IDENTITY, "Range": "bytes=0-0"}, file=True, named_by=page_url)
    exchange.close()
    client.health.succeeded()
    return _facts(exchange, wanted, inflated=exchange.header("content-encoding") is not None)


async def open_part(client: UpstreamClient, wanted: Wanted, url: str, page_url: str, start: int, stop: int) -> Part:
    """Bytes *start* to *stop* (exclusive) of *wanted*.  Raises Failed; also when this upstream ignores ranges."""
    exchange = await client.ask("GET", url, {**_IDENTITY, "Range": f"bytes={start}-{stop - 1}"}, file=True, named_by=page_url)
    match = _CONTENT_RANGE.fullmatch(exchange.header("content-range") or "")
    if exchange.status != 206 or match is None or (int(match[1]), int(match[2])) != (start, stop - 1):
        exchange.close()
        raise Failed(f"answered {exchange.status} to a request for a range of {wanted.name}", blames=False)
    client.health.succeeded()
    return Part(client, wanted, exchange, stop - start)


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
            self._client.health.failed(str(error))
            raise UpstreamFailed(self._wanted.name, [Attempt(self._client.name, str(error), 0.0)]) from error

    def close(self) -> None:
        self._exchange.close()
