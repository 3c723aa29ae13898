"""The running proxy keeps ready what ``[warm]`` names: it warms itself, over HTTP, as the command would."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from proxy.mechanism.flight import swallow
from proxy.settings import WarmSettings
from proxy.warm.fetching import Unreachable
from proxy.warm.following import follow
from proxy.warm.inputs import Problem
from proxy.warm.looking import Goal, Perform, Warmed, look
from proxy.warm.progress import Quiet
from proxy.warm.report import WarmReport
from proxy.warm.targets import targets


def goal(settings: WarmSettings) -> Goal:
    """What *settings* name."""
    return Goal(
        requirements=settings.projects,
        files=settings.files,
        recent=settings.recent,
        targets=tuple(targets(settings.python, settings.platform, "cp")),
        pin=settings.pin,
    )


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
        self._running = Deferred.fromCoroutine(follow(self._look, self._settings.interval, self._reactor, self._tell))
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

    async def _look(self) -> WarmReport:
        assert self._folder is not None
        try:
            return await look(
                goal(self._settings), Warmed(self._index_url(), self._perform), self._folder, Quiet(), self._reactor
            )
        except Unreachable as error:
            return WarmReport(problems=[Problem("[warm]", str(error))])

    def _tell(self, report: WarmReport) -> None:
        for failure in report.failures:
            self.log.warn("[warm] {failure}", failure=failure)
        self.log.info(
            "[warm] {fetched} files fetched, {there} were there, {failed} failed",
            fetched=report.count("fetched"),
            there=report.count("there"),
            failed=len(report.failures),
        )
