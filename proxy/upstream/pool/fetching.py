"""One file from whoever has it: it goes on at the byte where a connection broke, and nobody who reads it notices.

First at the same upstream, then at the next that lists the same digest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct, field

from proxy.errors import DigestMismatch
from proxy.model import Wanted
from proxy.upstream.http.attempt import Manner
from proxy.upstream.http.failures import Broken, Failed, Fault, Silent, Unfit
from proxy.upstream.index.files import Opened, Said, open_file, pump
from proxy.upstream.pool.attempts import Attempts
from proxy.upstream.pool.holders import Holders
from proxy.upstream.pool.rounds import ROUNDS, Rounds
from proxy.upstream.pool.upstream import Upstream

#: Connections that may break in a row without progress before an upstream is given up for a request.
MOST_BREAKS = 3
#: Bytes that a connection brings at least, if it is to count as progress: ten bytes at a time never come to an end.
PROGRESS = 4096
#: Times that a download begins again at byte 0, where what is here cannot be gone on with.
MOST_BEGINNINGS = 3


class _Download(Struct):
    """One file on its way: where it can still be had, and what came from where."""

    wanted: Wanted
    sink: Any
    left: list[Upstream] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)
    #: What each upstream said of the file that it began to send.
    said: dict[str, Said] = field(default_factory=dict)
    #: Whose bytes the sink has; "" are those of an earlier run.
    sources: set[str] = field(default_factory=set)
    #: Those who cannot go on with what is here, and may have the file all the same.
    unfit: list[Upstream] = field(default_factory=list)
    beginnings: int = 0
    #: Bytes have left behind which nobody can go on.
    spent: bool = False


class Fetching:
    """Downloads from *holders*, in *rounds*."""

    def __init__(self, rounds: Rounds, holders: Holders, clock: Callable[[], float]) -> None:
        self._rounds = rounds
        self._holders = holders
        self._clock = clock

    async def fetch(self, wanted: Wanted, sink: Any) -> None:
        """See :meth:`proxy.interfaces.IUpstreams.fetch`."""
        attempts = self._rounds.attempts(wanted.name)
        download = _Download(wanted, sink)
        if sink.offset:
            download.sources.add("")
        progress = self._clock(), sink.offset
        for number in range(ROUNDS):
            await self._rounds.pause(number)
            download.left = self._holders.of(wanted)
            download.breaks.clear()
            insist = number > 0 and attempts.all_may_pass
            while True:
                opened = await self._open(download, attempts, insist=insist) if download.left else None
                if opened is None:
                    if not await self._begin_anew(download):
                        break
                    continue
                if await self._pump(download, *opened, attempts):
                    return
                if sink.offset > progress[1]:
                    progress = self._clock(), sink.offset
            if not self._rounds.may_go_on(attempts, progress[0]) or download.spent:
                break
        raise attempts.error()

    async def _open(self, download: _Download, attempts: Attempts, *, insist: bool) -> tuple[Upstream, Opened] | None:
        wanted, sink = download.wanted, download.sink

        async def ask(client: Upstream, manner: Manner) -> tuple[Upstream, Opened]:
            try:
                place = await self._holders.place(client, wanted, manner)
                opened = await client.open(
                    place.url,
                    manner,
                    lambda attempt: open_file(
                        attempt, place, wanted, sink.offset, download.said.get(client.name), fresh=not sink.released
                    ),
                    excused=bool(wanted.companion),
                )
            except Failed as error:
                download.left.remove(client)
                if isinstance(error, Unfit):
                    download.unfit.append(client)
                raise
            return client, opened

        return await self._rounds.first(list(download.left), attempts, ask, insist=insist)

    async def _pump(self, download: _Download, client: Upstream, opened: Opened, attempts: Attempts) -> bool:
        """Whether the download is complete; else *download* says who is left to go on with it."""
        wanted, sink = download.wanted, download.sink
        began, start = self._clock(), sink.offset
        if opened.restart or opened.skip or not start:
            download.said[client.name] = opened.said
        try:
            await self._deliver(download, client, opened)
            return True
        except Broken as error:
            attempts.failed(client, error, began)
            progressed = sink.offset >= start + PROGRESS
            breaks = download.breaks[client.name] = 0 if progressed else download.breaks.get(client.name, 0) + 1
            if wanted.digest is None and sink.offset and opened.said.condition is None:
                await self._start_over(download)
                download.beginnings += 1
                if download.beginnings > MOST_BEGINNINGS:
                    download.left.clear()
            if breaks >= MOST_BREAKS and client in download.left:
                download.left.remove(client)
            elif isinstance(error, Silent) and client in download.left and (breaks > 1 or not opened.attempt.elsewhere):
                # Others are more likely to go on at once, unless there is another address to try first.
                download.left.remove(client)
                download.left.append(client)
        except DigestMismatch as error:
            attempts.failed(client, error, began)
            if download.sources <= {client.name}:
                self._holders.distrust(client, wanted, "sent other bytes for")
                download.left.remove(client)
            await self._start_over(download)
        except Unfit as error:
            attempts.failed(client, error, began)
            download.left.remove(client)
            if not download.sources <= {client.name}:
                download.unfit.append(client)
            if wanted.digest is None or not sink.released:
                await self._start_over(download)
        except Failed as error:
            attempts.failed(client, error, began)
            download.left.remove(client)
        return False

    async def _deliver(self, download: _Download, client: Upstream, opened: Opened) -> None:
        wanted, sink, start = download.wanted, download.sink, download.sink.offset
        try:
            await pump(opened, wanted, sink)
        except DigestMismatch as error:
            own = download.sources <= {client.name}
            opened.attempt.end(Failed(f"sent wrong bytes for {wanted.name}", fault=Fault.USELESS) if own else error)
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, it ends the attempt and is raised
            raise opened.attempt.fail(error) from error.__cause__
        finally:
            if sink.offset != start:
                download.sources.add(client.name)
        opened.attempt.end()

    async def _begin_anew(self, download: _Download) -> bool:
        """Forget what those who are left cannot go on with; whether they are asked for all of it now."""
        unfit, download.unfit = download.unfit, []
        if not unfit or download.sink.released or download.beginnings >= MOST_BEGINNINGS:
            return False
        download.beginnings += 1
        if download.sink.offset:
            await self._start_over(download)
        download.left = unfit
        return True

    async def _start_over(self, download: _Download) -> None:
        """Begin again at byte 0, which only an unseen beginning allows; else nobody can go on."""
        if download.sink.released:
            download.left.clear()
            download.spent = True
            return
        await download.sink.restart()
        download.sources.clear()
