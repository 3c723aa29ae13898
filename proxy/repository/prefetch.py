"""What an installer asks for next, asked of upstream ahead of it: a resolver goes step by step, and each step is a way there.

Three steps are foreseen.  After a page comes the metadata of its newest release; after that, the pages of what that requires;
and who went back from one release to the one before it goes on going back.  So a tree of dependencies costs a way to upstream
for each level and not two for each project, and a conflict not one for each release that is tried.

Nothing is asked for that is there already, and nothing while upstream fails or while requests have to wait there.  Each failure
halves what is under way at once and each success adds one, so that the first failure of many ends the crowd behind it.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context, copy_context
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred

from proxy.cache.ledger import Ledger
from proxy.core.bounded import BoundedTable
from proxy.errors import ProxyError
from proxy.expressions import expression
from proxy.interfaces import IBytesSource, IOffload
from proxy.mechanism.flight import swallow
from proxy.model import File, Head, Page
from proxy.names import is_project_name, is_wheel, metadata_name, normalize, tags_of, version_of
from proxy.repository.gate import Gate
from proxy.repository.offered import segment
from proxy.settings import MIB

if TYPE_CHECKING:
    from packaging.version import Version

#: Of larger pages the newest release is not looked for: many wheels belong to it, and which is wanted depends on the client.
_MOST_FILES = 2000
#: Metadata that is looked into for what is required (bytes), and how much of that is believed.
_LARGEST_METADATA = 1 * MIB
_LONGEST_LINE = 2000
_MOST_REQUIRED = 500
#: Where the fields of METADATA end, where one of them goes on in the next line, and one that requires a project: its name, its
#: extras and the versions, without a marker and without a URL.  No character is tried twice.
_BODY = expression(rb"\r?\n\r?\n")
_FOLD = expression(rb"\r?\n[ \t]+")
_REQUIRES = expression(
    rb"^Requires-Dist:[ \t]*+([a-z0-9][a-z0-9._-]*+)[ \t]*+(?:\[[a-z0-9._, \t-]*+\][ \t]*+)?"
    rb"(?:\(?[ \t]*+[<>=!~][a-z0-9.*+!<>=~, \t-]{0,%d}+\)?[ \t]*+)?\r?$" % _LONGEST_LINE,
    re.IGNORECASE | re.MULTILINE,
)
#: A version of numbers and dots alone.
_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,9}")
#: The most prefetches under way at once, and how many more wait, over all projects of an index.
_AT_ONCE = 16
_MOST_WAITING = 500
#: Releases that are fetched ahead of a resolver that goes back: so many at first, twice as many with each step.
_FIRST_WINDOW = 2
_LARGEST_WINDOW = 8
#: What may be remembered of how clients go through releases; a file of a series weighs so much (bytes).
_TRACKS_MEMORY = 16 * MIB
_PLACE = 400


class _Track(Struct):
    """How clients go through the wheels of one project that have the same tags."""

    last: str
    #: Segment and name of each, newest first, and where in that a name is: known once somebody went from one to another.
    series: Sequence[tuple[str, str]] = ()
    places: dict[str, int] | None = None
    window: int = 0
    #: How far in the series it was fetched.
    fetched: int = 0


class Prefetch:
    """Ahead of the clients of *index*.

    *gate* gives the pages: what is hidden is not asked for ahead either.  *metadata* returns the metadata of a file, whole; it
    is told the project, the digest segment and the file's name.
    *willing* is asked whether upstream may be asked for what nobody waits for, and *reserved* whether the name of a project
    belongs to another index: upstream is not told of it.
    """

    def __init__(
        self,
        index: str,
        gate: Gate,
        ledger: Ledger,
        offload: IOffload,
        metadata: Callable[[str, str, str], Awaitable[IBytesSource]],
        willing: Callable[[], bool],
        reserved: Callable[[str], bool] = lambda project: False,
    ) -> None:
        self._index = index
        self._gate = gate
        self._ledger = ledger
        self._offload = offload
        self._metadata = metadata
        self._willing = willing
        self._reserved = reserved
        self._running: dict[object, Deferred[None]] = {}
        self._waiting: deque[tuple[object, Context, Callable[[], Awaitable[None]]]] = deque()
        self._filling = False
        self._at_once = _AT_ONCE
        self._tracks: BoundedTable[tuple[str, str], _Track] = BoundedTable(
            _TRACKS_MEMORY, lambda track: (2 + len(track.series)) * _PLACE
        )

    def close(self) -> None:
        """Stop what is under way."""
        self._waiting.clear()
        for running in list(self._running.values()):
            running.cancel()

    def page_is_new(self, project: str, head: Head) -> None:
        """A client is about to get a page of *project* that was not known before."""
        self._start(project, lambda: self._after_page(project, head))

    def metadata_asked(self, project: str, filename: str) -> None:
        """A client asks for the metadata of *filename*."""
        tags = tags_of(filename)
        if tags is None:
            return
        key = (project, tags)
        track = self._tracks.get(key)
        if track is None:
            self._tracks.put(key, _Track(filename))
        elif track.last != filename:
            before, track.last = track.last, filename
            if track.places is None:
                self._start(key, lambda: self._learn(key, track, before))
            else:
                self._went(project, track, track.places, before)

    # -- from a page to what it leads to -----------------------------------------------------------------------------------

    async def _after_page(self, project: str, head: Head) -> None:
        page = await self._gate.parsed(project, head)
        if len(page.files) > _MOST_FILES:
            return
        file = await self._offload.run(next_wanted, page)
        if file is None or await self._known(project, segment(file), file.filename):
            return
        source = await self._metadata(project, segment(file), file.filename)
        try:
            names = await self._offload.run(_required_by, source.fileno(), source.extent())
        finally:
            source.close()
        for name in names:
            self._start(name, partial(self._required, name))

    async def _required(self, project: str) -> None:
        if self._reserved(project):
            return
        if await self._gate.remembered(project) is None:
            served = await self._gate.get(project)
            await self._after_page(project, served.head)

    # -- back through the releases -----------------------------------------------------------------------------------------

    async def _learn(self, key: tuple[str, str], track: _Track, before: str) -> None:
        project = key[0]
        head = await self._gate.remembered(project)
        if head is None or not head.found:
            return
        page = await self._gate.parsed(project, head)
        found = await self._offload.run(series, page, track.last)
        places = {filename: place for place, (_, filename) in enumerate(found)}
        track.series, track.places = found, places
        self._tracks.put(key, track)  # it weighs more now
        self._went(project, track, places, before)

    def _went(self, project: str, track: _Track, places: Mapping[str, int], before: str) -> None:
        """A client went on to the last one of *track*: if that was a step back, the next ones are fetched."""
        place, came_from = places.get(track.last), places.get(before)
        if place is None or came_from is None or not came_from < place <= came_from + _LARGEST_WINDOW:
            track.window = 0
            return
        track.window = min(_LARGEST_WINDOW, track.window * 2) or _FIRST_WINDOW
        reach = place + 1 + track.window
        for asked, filename in track.series[max(place + 1, track.fetched) : reach]:
            self._start((project, filename), partial(self._fetch, project, asked, filename))
        track.fetched = max(track.fetched, reach)

    async def _fetch(self, project: str, asked: str, filename: str) -> None:
        if not await self._known(project, asked, filename):
            (await self._metadata(project, asked, filename)).close()

    # -- inside ------------------------------------------------------------------------------------------------------------

    async def _known(self, project: str, asked: str, filename: str) -> bool:
        return metadata_name(asked, filename) in await self._ledger.of(self._index, project)

    def _start(self, key: object, run: Callable[[], Awaitable[None]]) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append((key, copy_context(), run))
            self._fill()

    def _fill(self) -> None:
        """Begin what may begin.  Much of it ends at once, for it is known: a loop, so that this does not call itself."""
        if self._filling:
            return
        self._filling = True
        while self._waiting and len(self._running) < self._at_once:
            if not self._willing():
                if not self._running:
                    self._waiting.clear()  # nothing would come back to it
                break
            key, context, run = self._waiting.popleft()
            if key not in self._running:
                running = self._running[key] = context.run(Deferred.fromCoroutine, self._quietly(run))
                running.addBoth(self._ended, key)
                swallow(running)
        self._filling = False

    def _ended(self, result: object, key: object) -> object:
        del self._running[key]
        self._fill()
        return result

    async def _quietly(self, run: Callable[[], Awaitable[None]]) -> None:
        """Whoever asks for the same later is told what is the matter."""
        try:
            await run()
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # nobody waits for it
            if isinstance(error, ProxyError) and error.passing:
                self._at_once = max(1, len(self._running) // 2)
                return
        self._at_once = min(_AT_ONCE, self._at_once + 1)


def next_wanted(page: Page) -> File | None:
    """The only wheel of the newest final release on *page*, if upstream offers its metadata; ``None`` if there is a choice."""
    newest = newest_final(page.versions or ())
    if newest is None:
        return None
    version = f"-{newest}-"
    wheels = [file for file in page.files if version in file.filename and is_wheel(file.filename) and file.yanked is False]
    return wheels[0] if len(wheels) == 1 and wheels[0].core_metadata else None


def newest_final(versions: Sequence[str]) -> Version | None:
    """The newest of *versions* that is no pre-release, the first of those that are equal; ``None`` without any.

    Nearly all versions are numbers and dots, which are compared as such: only the newest of these is read by the book.
    """
    keys = [_numbers(each) if _NUMBERS.fullmatch(each) else None for each in versions]
    newest = max(filter(None, keys), default=None)
    left = [each for each, key in zip(versions, keys, strict=True) if key is None or not key or key == newest]
    return max(filter(None, map(_final, left)), default=None)


def _numbers(version: str) -> tuple[int, ...]:
    """The release segment of *version* without zeros at its end, which are no difference (PEP 440)."""
    numbers = list(map(int, version.split(".")))
    while numbers and not numbers[-1]:
        del numbers[-1]
    return tuple(numbers)


def requirements(metadata: bytes) -> list[str]:
    """The projects that *metadata* requires whatever the environment, normalised: what has a marker is for some only.

    Others read it by the book; this is a guess at what will be asked for, and takes a fiftieth of the time.
    """
    fields = _FOLD.sub(b" ", _BODY.split(metadata, 1)[0])
    found = [match[1].decode("ascii") for match in islice(_REQUIRES.finditer(fields), _MOST_REQUIRED)]
    return [normalize(name) for name in found if is_project_name(name)]


def _required_by(descriptor: int, size: int) -> list[str]:
    """:func:`requirements` of the metadata in a file; none of one that is too large to be looked into."""
    return requirements(os.pread(descriptor, size, 0)) if size <= _LARGEST_METADATA else []


def series(page: Page, filename: str) -> list[tuple[str, str]]:
    """The wheels on *page* with the same tags as *filename*, of final releases with metadata upstream; newest first.

    Each as the digest segment of its URL and its name.
    """
    tags = tags_of(filename)
    found = (
        (version, file)
        for file in page.files
        if file.core_metadata and file.yanked is False and tags_of(file.filename) == tags
        if (version := version_of(file.filename)) is not None and not version.is_prerelease
    )
    return [(segment(file), file.filename) for _, file in sorted(found, key=lambda each: each[0], reverse=True)]


def _final(text: str) -> Version | None:
    """The version *text*; ``None`` for what is none, or a pre-release."""
    from packaging.version import Version  # loaded by the first page that is looked through

    try:
        version = Version(text)
    except ValueError:
        return None
    return None if version.is_prerelease else version
