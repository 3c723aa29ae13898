"""Files over HTTP: stored, arriving and unknown ones alike, with ranges and validators (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from proxy.core.bounded import BoundedTable
from proxy.core.cache_status import CacheStatus
from proxy.core.ranges import (
    UNSATISFIABLE,
    Span,
    content_range,
    if_range_matches,
    none_match,
    parse_range,
    unsatisfied_range,
)
from proxy.errors import NotFound, UpstreamFailed
from proxy.interfaces import IBytesSource, IFileHandle, IRepository
from proxy.settings import KIB, MIB
from proxy.web.answers import Answer, AnswerSource, Ask, FileBody, Ready, SharedFile, StreamBody

#: A range of a file that is not here yet is asked of upstream by itself up to this size; a larger one waits for the download.
SMALL_RANGE = 8 * MIB

#: Files up to this size are kept in memory while they are asked for (bytes).
SMALL_FILE = 64 * KIB

#: The longest time that anything is kept by clients (seconds): a year.
_FOR_EVER = 31_536_000
_HIT = CacheStatus(True)
_COLLAPSED = CacheStatus(False, "miss", collapsed=True, stored=True)


class Files:
    """The files of every index.

    *memory* bounds the small files that are kept at hand, in bytes.  *used* is told the sha256 of each of these that is served.
    """

    def __init__(self, memory: int, used: Callable[[str], None]) -> None:
        self._used = used
        self._small: BoundedTable[str, bytes] = BoundedTable(memory, lambda data: len(data) + 500)

    async def file(self, repository: IRepository, project: str, asked: str, name: str, ask: Ask) -> Answer:
        """Answer a request for ``…/files/<project>/<algorithm>-<hex>/<name>``; *project* is normalised."""
        file = await repository.file(project, asked, name)
        try:
            return await self._answer(file, ask)
        finally:
            file.close()

    async def _answer(self, file: IFileHandle, ask: Ask) -> Answer:
        headers = [
            ("Cache-Control", _lifetime(file)),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "application/octet-stream"),
        ]
        if file.etag is not None:
            headers.append(("ETag", file.etag))
            if none_match(ask.header("if-none-match"), file.etag):
                return Answer(304, headers, word="hit")
        if file.stored:
            source = await file.open()
            try:
                return self._of_stored(file, source, headers, ask)
            except BaseException:
                source.close()
                raise
        if ask.method == "HEAD":
            return await _described(file, headers)
        part = await _part(file, headers, ask)
        return part if part is not None else await self._whole(file, headers, ask)

    def _of_stored(self, file: IFileHandle, source: IBytesSource, headers: list[tuple[str, str]], ask: Ask) -> Answer:
        read, sha256 = source.take_read(), source.sha256
        if _range(ask) is None and read is not None and sha256 is not None and len(read) <= SMALL_FILE:
            answer = _at_once(source, read, headers, file.status)
            if file.seen.until is None:
                answer.again = self._at_hand(file, sha256, read, headers)
            return answer
        answer = _ranged(source, None, file.etag, headers, ask, file.status)
        return self._also_for_others(answer, file, headers, _HIT)

    def _at_hand(self, file: IFileHandle, sha256: str, read: bytes, headers: list[tuple[str, str]]) -> AnswerSource:
        """Keep a small file at hand, and say how to answer with it.  Its digest has been checked when it was *read*."""
        if self._small.get(sha256) is None:
            self._small.put(sha256, read)
        answered = [*headers, ("Cache-Status", _HIT.header())]
        used = self._used

        def at_once() -> Ready | None:
            data = self._small.get(sha256) if file.is_current() else None
            if data is None:
                return None
            used(sha256)
            return (sha256, lambda: Answer(200, answered, data, word="hit"))

        return at_once

    async def _whole(self, file: IFileHandle, headers: list[tuple[str, str]], ask: Ask) -> Answer:
        status = file.status
        source = await file.open()
        try:
            read = source.take_read() if _range(ask) is None else None
        except BaseException:
            source.close()
            raise
        if read is not None and len(read) <= SMALL_FILE:
            return _at_once(source, read, headers, status)
        answer = _ranged(source, file.size, file.etag, headers, ask, status)
        return self._also_for_others(answer, file, headers, _COLLAPSED)

    def _also_for_others(
        self, answer: Answer, file: IFileHandle, headers: list[tuple[str, str]], status: CacheStatus
    ) -> Answer:
        """*answer*, with which others may be answered too as long as it is being sent, if it is all of *file*."""
        body = answer.body
        if not isinstance(body, FileBody) or body.span is not None or body.source.size is None or file.seen.until is not None:
            return answer
        source = ref(body.source)  # what is remembered keeps nothing that has been sent

        def another() -> IBytesSource | None:
            there = source()
            try:
                found = None if there is None else there.another()
            except OSError:  # no more descriptors, as those say who go the long way
                return None
            if found is not None and found.sha256 is not None and file.stored:
                self._used(found.sha256)
            return found

        shared = SharedFile(another, body.source.size)
        theirs = Answer(200, [*headers, ("Cache-Status", status.header())], shared, word=status.word)
        answer.again = lambda: (status, lambda: theirs) if source() is not None and file.is_unchanged() else None
        return answer


async def _part(file: IFileHandle, headers: list[tuple[str, str]], ask: Ask) -> Answer | None:
    """The answer to a small range of a file that is not stored; ``None`` when the download serves it better.

    Nothing vouches for its bytes: the digest is that of the whole file.
    """
    header = _range(ask)
    if header is None or not if_range_matches(ask.header("if-range"), file.etag, None):
        return None
    try:
        size = await file.find_size()
    except (NotFound, UpstreamFailed):
        return None
    if size is None:
        return None
    span = parse_range(header, size)
    if span is UNSATISFIABLE and size == file.size:
        return _unsatisfiable(size)
    headers = _unverified(headers)
    if not isinstance(span, Span) or span.length > min(SMALL_RANGE, size // 2):
        return None
    arriving = file.growing()
    if arriving is not None:
        if arriving.extent() >= span.stop and arriving.size == size:
            return _partial(arriving, span, size, headers, CacheStatus(False, "miss", collapsed=True))
        arriving.close()
    try:
        reader = await file.open_range(span.start, span.stop)
    except (NotFound, UpstreamFailed):
        return None
    status = CacheStatus(False, "partial")
    return Answer(
        206,
        [*headers, ("Content-Range", content_range(span, size)), ("Cache-Status", status.header())],
        StreamBody(reader, span.length),
        word="range",
    )


def _lifetime(file: IFileHandle) -> str:
    """How long caches may keep a file: its bytes never change, but it may be hidden at a moment that is known."""
    if file.seen.until is None:
        return f"public, immutable, max-age={_FOR_EVER}"
    return f"public, max-age={file.seen.bounded(_FOR_EVER)}"


async def _described(file: IFileHandle, headers: list[tuple[str, str]]) -> Answer:
    """HEAD of a file that is not stored: truthful, without fetching it."""
    size = await file.find_size()
    if size is not None:
        headers.append(("Content-Length", str(size)))
    return Answer(200, [*headers, ("Cache-Status", CacheStatus(False, "miss").header())], word="head")


def _at_once(source: IBytesSource, read: bytes, headers: list[tuple[str, str]], status: CacheStatus) -> Answer:
    """All of *source*, which has been *read*: a small file goes out with its head."""
    source.close()
    return Answer(200, [*headers, ("Cache-Status", status.header())], read, word=status.word)


def _ranged(
    source: IBytesSource, stated: int | None, etag: str | None, headers: list[tuple[str, str]], ask: Ask, status: CacheStatus
) -> Answer:
    """The whole of *source* or the range that is asked for.

    A range that begins behind its end is refused only if that is where the file ends: *stated* by the page, or verified.
    """
    size = source.size
    header = _range(ask)
    if size is not None and header is not None and if_range_matches(ask.header("if-range"), etag, None):
        span = parse_range(header, size)
        if span is UNSATISFIABLE and (size == stated or (source.sha256 is not None and source.extent() == size)):
            source.close()
            return _unsatisfiable(size)
        if isinstance(span, Span):
            # Of what is still arriving only the end waits for the digest.
            certain = source.sha256 is not None or span.stop == size
            return _partial(source, span, size, headers if certain else _unverified(headers), status)
    return Answer(200, [*headers, ("Cache-Status", status.header())], FileBody(source, None), word=status.word)


def _range(ask: Ask) -> str | None:
    """The range that is asked for; HEAD asks for none, whatever it says (RFC 9110 section 14.2)."""
    return ask.header("range") if ask.method == "GET" else None


def _unverified(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """*headers* of a part of a file whose bytes nobody has verified: nothing keeps it or joins it to what it has."""
    return [("Cache-Control", "no-store"), *((name, value) for name, value in headers if name not in ("Cache-Control", "ETag"))]


def _partial(source: IBytesSource, span: Span, size: int, headers: list[tuple[str, str]], status: CacheStatus) -> Answer:
    source.confine(span.start, span.stop)
    ranged = [*headers, ("Content-Range", content_range(span, size)), ("Cache-Status", status.header())]
    return Answer(206, ranged, FileBody(source, span), word=status.word)


def _unsatisfiable(size: int) -> Answer:
    return Answer(416, [("Content-Range", unsatisfied_range(size))], word="hit")
