"""Asking the proxy for pages and files, as a build would: so many at once, each verified, none of them kept here."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit, urlunsplit

import treq
from msgspec import Struct
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers

from proxy.core.warming import AGENT
from proxy.mechanism.flight import Flights
from proxy.names import METADATA, is_wheel
from proxy.simple.links import shown
from proxy.simple.media import MediaType
from proxy.simple.numbers import whole
from proxy.upstream.http.failures import speaks_no_tls
from proxy.warm.choosing import PageEntry
from proxy.warm.explaining import without_page
from proxy.warm.heads import QuietPool
from proxy.warm.troubles import cancelled, in_words

#: How often an answer that says "later" (503, 429) or a broken connection is tried again, and the longest pause (seconds).
_TRIES = 5
_LONGEST_PAUSE = 10.0
_CONNECT_TIMEOUT = 10.0
#: A source archive up to this size is looked into for what building it needs (bytes).
_LARGEST_SDIST = 64 * 1024 * 1024
#: What a source archive without ``[build-system]`` needs (PEP 518).
_DEFAULT_BUILD = ["setuptools>=40.8.0"]


class NotFetched(Exception):
    """A page or a file could not be had; ``str()`` says why.  ``status`` and ``body`` are of the answer, if there was one."""

    def __init__(self, why: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(why)
        self.status = status
        self.body = body


class Unreachable(NotFetched):
    """The proxy itself does not answer."""


class NoTls(Unreachable):
    """The URL of the proxy begins with https, and http is spoken there."""


class Fetched(Struct, frozen=True):
    """One file that is in the proxy's cache now; ``there``: it was before.

    ``builds_with``: what a source archive needs to be built (PEP 508).
    """

    filename: str
    size: int
    there: bool
    builds_with: tuple[str, ...] = ()


class Traffic(Struct):
    """What was asked for so far: answers of the proxy, those of them that it had to ask upstream for, and bytes."""

    requests: int = 0
    upstream: int = 0
    bytes: int = 0


class Fetcher:
    """A client of the index at *index_url*, with at most *jobs* requests under way.

    Credentials in that URL are sent in headers, and are in no message.
    """

    def __init__(self, index_url: str, jobs: int, reactor: Any) -> None:
        self.index_url, self._headers = _divided(index_url)
        self.traffic = Traffic()
        self._reactor = reactor
        pool = QuietPool(reactor)
        pool.maxPersistentPerHost = jobs
        self._pool = pool
        self._client = HTTPClient(Agent(reactor, connectTimeout=_CONNECT_TIMEOUT, pool=pool))
        self._slots = DeferredSemaphore(jobs)
        self._pages: dict[str, dict[str, Any]] = {}
        self._asking: Flights[dict[str, Any]] = Flights()

    async def close(self) -> None:
        """Close idle connections."""
        await self._pool.closeCachedConnections()

    async def answers(self) -> None:
        """Raise Unreachable unless somebody answers there, whatever the answer."""
        try:
            await self._ask("HEAD", urljoin(self.index_url, "/-/live"))
        except Unreachable:
            raise
        except NotFetched:
            pass

    async def index_below(self) -> str | None:
        """The URL of the index at ``simple/`` below *index_url*, if a pypiproxy has one there; it asks no upstream about that.

        Raises Unreachable.
        """
        url = f"{self.index_url}simple"
        try:
            fields = {"User-Agent": [AGENT], **self._headers}
            response = await self._client.get(url, headers=Headers(fields), allow_redirects=False)
            await treq.content(response)
        except CancelledError:
            raise
        except Exception as error:
            raise _unreachable(url, error) from error
        redirected = response.headers.getRawHeaders("location") == ["simple/"]
        own = (response.headers.getRawHeaders("cache-status") or [""])[0].startswith("pypiproxy;")
        return f"{url}/" if redirected and own else None

    async def page(self, project: str, tries: int = _TRIES) -> dict[str, Any]:
        """The JSON page of *project* (normalised), asked for up to *tries* times.  Raises NotFetched."""
        if project not in self._pages:
            self._pages[project] = await self._asking.join(project, lambda: self._page(project, tries))
        return self._pages[project]

    async def _page(self, project: str, tries: int) -> dict[str, Any]:
        async with self._slots:
            try:
                response = await self._ask("GET", f"{self.index_url}{project}/", tries, Accept=MediaType.JSON.value)
            except NotFetched as error:
                if error.status is None:
                    raise
                raise NotFetched(without_page(project, error.status, error.body) or str(error), error.status) from error
            page: dict[str, Any] = await treq.json_content(response)
        if not isinstance(page.get("files"), list):
            raise NotFetched(f"{shown(self.index_url)} is no index: it answers with something else than a project page")
        return page

    async def file(self, project: str, entry: PageEntry, told: Callable[[int], None]) -> Fetched:
        """Have the proxy fetch the file *entry* of *project*'s page, with its metadata; *told* of bytes as they come.

        Raises NotFetched when it cannot, or when the bytes are not what the page says.
        """
        async with self._slots:
            url = urljoin(f"{self.index_url}{project}/", entry["url"])
            fetched = await self._file(url, entry, told)
            if entry.get("core-metadata"):
                await self._metadata(url, entry["core-metadata"])
            return fetched

    async def _metadata(self, url: str, stated: Any) -> None:
        """Have the proxy fetch the metadata of the wheel at *url*; *stated* is what its page says of it.  Raises NotFetched."""
        body = await treq.content(await self._ask("GET", f"{url}{METADATA}"))
        for name, value in (stated if isinstance(stated, dict) else {}).items():
            if name in hashlib.algorithms_available and hashlib.new(name, body).hexdigest() != value:
                raise NotFetched(f"its metadata has another {name} than the page says: installers would refuse it")

    async def has(self, project: str, entry: PageEntry) -> bool:
        """Whether the proxy has the file *entry* of *project*'s page already.  Nothing is fetched.  Raises NotFetched."""
        async with self._slots:
            return _was_there(await self._ask("HEAD", urljoin(f"{self.index_url}{project}/", entry["url"])))

    async def _file(self, url: str, entry: PageEntry, told: Callable[[int], None]) -> Fetched:
        filename, size = entry["filename"], entry.get("size")
        looked_into = not is_wheel(filename) and (size or 0) <= _LARGEST_SDIST
        head = await self._ask("HEAD", url)
        there = _was_there(head)
        if there and not looked_into:
            return Fetched(filename, size or whole((head.headers.getRawHeaders("content-length") or ["0"])[0]) or 0, there=True)
        for attempt in range(1, _TRIES + 1):
            with tempfile.SpooledTemporaryFile(max_size=1 << 20) as kept:
                body = _Body(entry, told, kept if looked_into else None)
                response = await self._ask("GET", url)
                try:
                    await treq.collect(response, body.received)
                except ResponseFailed as error:
                    if cancelled(error):
                        raise CancelledError from error
                    body.take_back()
                    if attempt == _TRIES:
                        raise NotFetched(f"the proxy broke off after {body.size:,} bytes; its log says why") from error
                    continue
                if not there:
                    self.traffic.bytes += body.size
                body.check()
                builds_with = tuple(_build_requires(kept, filename)) if looked_into else ()
                return Fetched(filename, body.size, there, builds_with)
        raise NotFetched("the proxy broke off again and again")

    async def _ask(self, method: str, url: str, tries: int = _TRIES, **headers: str) -> Any:
        """The answer to one request.  One that says "later" is waited for, *tries* times in all.  Raises NotFetched."""
        fields = {**self._headers, **{name: [value] for name, value in {"User-Agent": AGENT, **headers}.items()}}
        for attempt in range(1, tries + 1):
            try:
                response = await self._client.request(method, url, headers=Headers(fields), unbuffered=True)
            except CancelledError:
                raise
            except Exception as error:
                raise _unreachable(url, error) from error
            self.traffic.requests += 1
            if method == "GET" and not _was_there(response):
                self.traffic.upstream += 1
            if response.code == 200:
                return response
            body = await treq.content(response)
            if response.code not in (429, 502, 503) or attempt == tries:
                raise NotFetched(f"{response.code} {response.phrase.decode('latin-1')}", response.code, body)
            pause = (response.headers.getRawHeaders("retry-after") or ["1"])[0]
            await deferLater(self._reactor, min(_LONGEST_PAUSE, 1.0 if (wait := whole(pause)) is None else float(wait)))
        raise AssertionError("the loop ends by itself")


def _divided(url: str) -> tuple[str, dict[str, list[str]]]:
    """*url* without its credentials, and the header that has them."""
    parts = urlsplit(url)
    said, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    credential = base64.b64encode(unquote_to_bytes(said if ":" in said else f"{said}:")).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": [f"Basic {credential}"]}


def _unreachable(url: str, error: Exception) -> Exception:
    """What a request for *url* that failed with *error* is to raise."""
    if cancelled(error):
        return CancelledError()
    why = in_words(error, _CONNECT_TIMEOUT)
    if url.startswith("https:") and speaks_no_tls(why):
        return NoTls(f"{shown(url)}: no TLS is spoken there; the URL of the proxy must begin with http://")
    return Unreachable(f"{shown(url)} cannot be reached: {why}")


class _Body:
    """A file on its way: counted, hashed, and written to *kept* if that is wanted."""

    def __init__(self, entry: PageEntry, told: Callable[[int], None], kept: Any) -> None:
        self._entry = entry
        self._told = told
        self._kept = kept
        self._hashes = {name: hashlib.new(name) for name in entry["hashes"] if name in hashlib.algorithms_available}
        self.size = 0

    def received(self, data: bytes) -> None:
        self.size += len(data)
        for each in self._hashes.values():
            each.update(data)
        if self._kept is not None:
            self._kept.write(data)
        self._told(len(data))

    def take_back(self) -> None:
        """What was told does not count."""
        self._told(-self.size)

    def check(self) -> None:
        """Raise NotFetched when the bytes are not those of the page."""
        for name, digest in self._hashes.items():
            if digest.hexdigest() != self._entry["hashes"][name]:
                raise NotFetched(f"what came has the {name} {digest.hexdigest()}, the page says {self._entry['hashes'][name]}")
        stated = self._entry.get("size")
        if stated is not None and stated != self.size:
            raise NotFetched(f"{self.size:,} bytes came where the page says {stated:,}")


def _was_there(response: Any) -> bool:
    """Whether the proxy answered with what it had (RFC 9211)."""
    return "hit" in (response.headers.getRawHeaders("cache-status") or [""])[0]


def _build_requires(kept: Any, filename: str) -> list[str]:
    """What building the source archive *kept* needs (PEP 518).  Nothing where that cannot be read."""
    kept.seek(0)
    try:
        if filename.endswith(".zip"):
            with zipfile.ZipFile(kept) as archive:
                names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/pyproject.toml")]
                text = archive.read(names[0]).decode() if names else ""
        else:
            with tarfile.open(fileobj=io.BufferedReader(kept), mode="r:*") as tar:
                members = [each for each in tar if each.name.count("/") == 1 and each.name.endswith("/pyproject.toml")]
                file = tar.extractfile(members[0]) if members else None
                text = file.read().decode() if file is not None else ""
        requires = tomllib.loads(text).get("build-system", {}).get("requires", _DEFAULT_BUILD)
    except (tarfile.TarError, zipfile.BadZipFile, tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, EOFError):
        return []
    return [str(each) for each in requires] if isinstance(requires, list) else []
