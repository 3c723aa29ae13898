"""What an installer asks for next: after a page, the metadata of its newest release.

A resolver reads a page and then that metadata, one after the other, and so on down the tree of dependencies: by asking for it
while the page goes out, each level costs one way to upstream and not two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from packaging.version import InvalidVersion, Version
from twisted.internet.defer import CancelledError, Deferred

from proxy.cache.pins import Pins
from proxy.flight import swallow
from proxy.interfaces import IOffload
from proxy.model import File, Page
from proxy.repository.offered import is_wheel, metadata_name, segment

#: Of larger pages it is not looked for: there are many wheels of a release, and which one is wanted depends on the client.
_MOST_FILES = 2000
#: Prefetches under way at once, over all projects of an index: clients' own requests come first.
_AT_ONCE = 8


class Prefetch:
    """*fetch* has the metadata of a file stored; it is told the project, the digest segment and the file's name."""

    def __init__(self, offload: IOffload, fetch: Callable[[str, str, str], Awaitable[None]]) -> None:
        self._offload = offload
        self._fetch = fetch
        self._running: dict[str, Deferred[None]] = {}

    def close(self) -> None:
        """Stop what is under way."""
        for running in list(self._running.values()):
            running.cancel()

    def after(self, project: str, page: Callable[[], Awaitable[Page]], pins: Pins) -> None:
        """A client has just been given a new *page* of *project*."""
        if project in self._running or len(self._running) >= _AT_ONCE:
            return
        running = self._running[project] = Deferred.fromCoroutine(self._run(project, page, pins))
        running.addBoth(self._ended, project)
        swallow(running)

    def _ended(self, result: object, project: str) -> object:
        self._running.pop(project, None)
        return result

    async def _run(self, project: str, page: Callable[[], Awaitable[Page]], pins: Pins) -> None:
        try:
            parsed = await page()
            if len(parsed.files) > _MOST_FILES:
                return
            file = await self._offload.run(next_wanted, parsed)
            if file is not None and metadata_name(segment(file), file.filename) not in pins:
                await self._fetch(project, segment(file), file.filename)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001  # the client that asks will be told what is the matter
            pass


def next_wanted(page: Page) -> File | None:
    """The only wheel of the newest final release on *page*, if upstream offers its metadata; ``None`` if there is a choice."""
    newest = max(filter(None, map(_final, page.versions or ())), default=None)
    if newest is None:
        return None
    version = f"-{newest}-"
    wheels = [file for file in page.files if version in file.filename and is_wheel(file.filename) and file.yanked is False]
    return wheels[0] if len(wheels) == 1 and wheels[0].core_metadata else None


def _final(text: str) -> Version | None:
    """The version *text*; ``None`` for what is none, or a pre-release."""
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    return None if version.is_prerelease else version
