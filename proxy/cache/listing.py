"""The list of all projects as it may be seen: rendered to files, once for each media type and content coding.

The lines that renderings are made of hold all that upstream lists.  What is hidden is left out when they are rendered.  Rules
that look at names of projects make the lines be gone through once; what comes of that holds until a verdict changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import BinaryIO

from msgspec import Struct
from zope.interface import implementer

from proxy.core.cache_status import CacheStatus
from proxy.core.views import Moment
from proxy.errors import Overloaded, StorageFailed
from proxy.interfaces import Clock, IBytesSource, IOffload, IProjectsView
from proxy.mechanism.flight import Flights, closing_after
from proxy.policy.policy import Policy
from proxy.policy.rules import Viewpoint
from proxy.settings import MIB
from proxy.simple.media import MediaType
from proxy.simple.projects import copy_lines, lines_of, lines_without, names_in, write_rendering
from proxy.storage.lists import ListFiles

#: What is read from disk, and compressed, at a time (bytes).
_PIECE = 1 * MIB


@implementer(IProjectsView)
class ProjectsView:
    """The list as it may be seen now."""

    def __init__(
        self,
        state: str,
        status: CacheStatus,
        serial: int | None,
        max_age: int,
        opened: Callable[[MediaType, str], Awaitable[IBytesSource]],
        lines: Callable[[], Awaitable[IBytesSource]],
    ) -> None:
        self.state = state
        self.status = status
        self.serial = serial
        self.max_age = max_age
        self._open = opened
        self._lines = lines

    async def lines(self) -> IBytesSource:
        return await self._lines()

    async def open(self, media: MediaType, coding: str) -> IBytesSource:
        return await self._open(media, coding)


class _Shown(Struct, frozen=True):
    """The list of this *digest* as it may be seen from *since* until *until*; files of its renderings begin with *start*."""

    digest: str
    start: str
    since: float
    until: float | None

    def holds(self, digest: str, now: float) -> bool:
        """Whether it says what may be seen at *now* of the list of this *digest*."""
        return self.digest == digest and self.since <= now and (self.until is None or now < self.until)


class ShownList:
    """The lists of *index* that are kept in *lists*, by digest, as *policy* lets them be seen.

    *lost* is called when the lines that renderings are made of are missing.
    """

    def __init__(
        self,
        index: str,
        policy: Policy,
        lists: ListFiles,
        offload: IOffload,
        clock: Clock,
        lost: Callable[[], None],
    ) -> None:
        self._view = Viewpoint(index)
        self._policy = policy
        self._lists = lists
        self._offload = offload
        self._clock = clock
        self._lost = lost
        self._shown: _Shown | None = None
        self._walks: Flights[_Shown] = Flights()
        self._renders: Flights[None] = Flights()

    def close(self) -> None:
        """Stop what is under way."""
        self._walks.close()
        self._renders.close()

    async def view(self, digest: str, status: CacheStatus, serial: int | None) -> IProjectsView:
        """The list of this *digest* as it may be seen now.  Raises Overloaded when it is gone."""
        now = self._clock()
        shown = await self._judged(digest, now) if self._policy.judges_projects else _Shown(digest, digest, now, None)
        max_age = Moment(now, shown.until).bounded(status.max_age)
        return ProjectsView(
            shown.start.rpartition(".")[2],
            status,
            serial,
            max_age,
            partial(self._open, shown),
            partial(self._visible_lines, shown),
        )

    async def of_names(self, names: Sequence[str], status: CacheStatus) -> IProjectsView:
        """The list of *names* alone, of which nothing else is known.  Raises StorageFailed, Overloaded."""
        digest = await self._offload.run(_digest_of, names)
        lines = await self._lists.open(lines_file(digest))
        if lines is None:
            try:
                await self._lists.write(lines_file(digest), lambda file: file.write(lines_of(names)))
            except OSError as error:
                raise StorageFailed(f"cannot store the list of projects: {error.strerror}") from error
            await self._lists.keep_only(digest)
        else:
            lines.close()
        return await self.view(digest, status, None)

    async def _judged(self, digest: str, now: float) -> _Shown:
        """What may be seen at *now* of the list of this *digest*, and until when that holds."""
        before = self._shown
        if before is not None and before.holds(digest, now):
            return before
        for _ in range(2):  # one that was under way may not hold any more
            shown = await self._walks.join(digest, lambda: self._gone_through(digest, now))
            if shown.holds(digest, now):
                break
        return shown

    async def _gone_through(self, digest: str, now: float) -> _Shown:
        before = self._shown
        lines = await self._lines(digest)
        change = self._offload.run(_next_change, lines.fileno(), self._policy, now, self._view)
        until = await closing_after(change, lines)
        state = hashlib.sha256(f"{digest}/{self._policy.name}/{until}".encode()).hexdigest()
        shown = self._shown = _Shown(digest, f"{digest}.{state}", now, until)
        if before is not None and before.start != shown.start:
            await self._lists.remove(before.start)
        return shown

    async def _lines(self, digest: str) -> IBytesSource:
        lines = await self._lists.open(lines_file(digest))
        if lines is None:
            self._lost()
            raise Overloaded("the list of projects has just been replaced: ask again")
        return lines

    async def _visible_lines(self, shown: _Shown) -> IBytesSource:
        """The lines of what may be seen, in a file of their own where that is not all."""
        if not self._policy.judges_projects:
            return await self._lines(shown.digest)

        def write(lines: BinaryIO, out: BinaryIO) -> None:
            copy_lines(lines_without(lines, self._hidden(shown)), out.write)

        return await self._made(shown, f"{shown.start}.lines", write)

    def _hidden(self, shown: _Shown) -> Callable[[str], bool]:
        """Whether the project of a name is hidden, as *shown* has it."""
        return lambda project: not self._policy.project(project, shown.since, self._view).visible

    async def _open(self, shown: _Shown, media: MediaType, coding: str) -> IBytesSource:
        media = MediaType.HTML_V1 if media is MediaType.TEXT_HTML else media  # the same bytes
        hidden = self._hidden(shown) if self._policy.judges_projects else None

        def write(lines: BinaryIO, out: BinaryIO) -> None:
            write_list(lines if hidden is None else lines_without(lines, hidden), media, coding, out)

        return await self._made(shown, f"{shown.start}.{media.name.lower()}.{coding}", write)

    async def _made(self, shown: _Shown, name: str, write: Callable[[BinaryIO, BinaryIO], None]) -> IBytesSource:
        """The file *name*, which *write* makes of the lines where it is missing."""
        for _ in range(2):
            made = await self._lists.open(name)
            if made is not None:
                return made
            await self._renders.join(name, lambda: self._make(shown, name, write))
        raise Overloaded("the list of projects has just been replaced: ask again")

    async def _make(self, shown: _Shown, name: str, write: Callable[[BinaryIO, BinaryIO], None]) -> None:
        lines = await self._lines(shown.digest)
        descriptor = lines.fileno()

        def produce(file: BinaryIO) -> None:
            with lines_behind(descriptor) as all_lines:
                write(all_lines, file)

        try:
            await closing_after(self._lists.write(name, produce), lines)
        except OSError as error:
            raise StorageFailed(f"cannot store the list of projects: {error.strerror}") from error


def _digest_of(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def lines_file(digest: str) -> str:
    """The name of the file with the lines of the list of this *digest*."""
    return f"{digest}.projects"


def lines_behind(descriptor: int) -> BinaryIO:
    """The lines of a list from the first one: whoever writes a rendering may be called a second time."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return open(descriptor, "rb", buffering=_PIECE, closefd=False)


def _next_change(descriptor: int, policy: Policy, now: float, view: Viewpoint) -> float | None:
    """The next moment at which a verdict on a project in the lines behind *descriptor* changes."""
    with lines_behind(descriptor) as lines:
        moments = (policy.project(name, now, view).until for name in names_in(lines))
        return min((moment for moment in moments if moment is not None), default=None)


def write_list(lines: Iterable[bytes], media: MediaType, coding: str, out: BinaryIO) -> None:
    """Write the document of the projects in *lines* in one media type and content coding."""
    if coding == "gzip":
        from isal import igzip  # loaded with the first one, in its thread

        with igzip.IGzipFile(fileobj=out, mode="wb", compresslevel=2, mtime=0) as gzip:
            write_rendering(lines, media, gzip.write)
    elif coding == "zstd":
        import zstandard

        with zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False) as zstd:
            write_rendering(lines, media, zstd.write)
    else:
        write_rendering(lines, media, out.write)
