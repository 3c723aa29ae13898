"""The running proxy keeps ready what ``[warm]`` names: it warms itself, over HTTP, as the command would."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from proxy.errors import ProxyError
from proxy.flight import swallow
from proxy.settings import WarmSettings
from proxy.warm.choosing import Choice
from proxy.warm.fetching import Fetcher, Unreachable
from proxy.warm.following import follow
from proxy.warm.inputs import Group, Problem, lately, read, read_arguments
from proxy.warm.progress import Quiet
from proxy.warm.report import Report
from proxy.warm.resolving import Resolver, Wishes
from proxy.warm.run import Plan, Run
from proxy.warm.targets import targets

#: Requests at once: builds come first.
_JOBS = 4

#: An operation by name: ``recent`` and ``pin`` of :class:`proxy.administration.operations.Administration`.
Perform = Callable[..., Awaitable[Any]]


class Following(Service):
    """Keeps ready what *settings* name, by way of the index at the URL that *index_url* gives once the proxy listens."""

    log = Logger()

    def __init__(self, settings: WarmSettings, index_url: Callable[[], str], perform: Perform, reactor: Any) -> None:
        self._settings = settings
        self._index_url = index_url
        self._perform = perform
        self._reactor = reactor
        self._running: Deferred[Any] | None = None
        self._folder: Path | None = None

    def startService(self) -> None:
        super().startService()
        self._folder = Path(tempfile.mkdtemp(prefix="pypiproxy-warm-"))
        self._running = Deferred.fromCoroutine(follow(self.look, self._settings.interval, self._reactor, self._tell))
        swallow(self._running)
        self._running.addErrback(lambda failure: self.log.failure("what [warm] names is not followed any more", failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        folder, self._folder = self._folder, None
        if folder is not None:
            await deferToThread(shutil.rmtree, folder, ignore_errors=True)

    async def look(self) -> Report:
        """One look at everything."""
        assert self._folder is not None
        settings = self._settings
        wanted = tuple(targets(settings.python, settings.platform, "cp"))
        fetcher = Fetcher(self._index_url(), _JOBS, self._reactor)
        resolver = Resolver(fetcher.index_url, self._folder, Wishes(), self._reactor)
        try:
            plan = Plan(await self._groups(), wanted, Choice())
            report = await Run(plan, fetcher, resolver, Quiet(), self._reactor.seconds).go()
        except Unreachable as error:
            return Report(problems=[Problem("[warm]", str(error))])
        finally:
            await fetcher.close()
        if settings.pin:
            await self._pin(report)
        return report

    async def _groups(self) -> list[Group]:
        settings = self._settings
        groups = [await deferToThread(read, file) for file in settings.files]
        if settings.projects:
            groups.append(read_arguments(settings.projects))
        if settings.recent is not None:
            names = await self._perform("recent", seconds=settings.recent)
            if names:
                groups.append(lately(names))
        return groups

    async def _pin(self, report: Report) -> None:
        for outcome in report.there:
            try:
                await self._perform("pin", project=outcome.project, which=outcome.filename)
            except ProxyError as error:
                report.problems.append(Problem(outcome.filename, f"cannot be pinned: {error}"))

    def _tell(self, report: Report) -> None:
        for failure in report.failures:
            self.log.warn("[warm] {failure}", failure=failure)
        self.log.info(
            "[warm] {fetched} files fetched, {there} were there, {failed} failed",
            fetched=report.count("fetched"),
            there=report.count("there"),
            failed=len(report.failures),
        )
