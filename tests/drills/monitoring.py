"""A real Prometheus that scrapes a proxy once a second, by the example configuration, and what it tells an Alertmanager."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support import wire
from tests.support.alerting import EXAMPLE, RULES, scaled
from tests.support.process import Running, environment

reactor: Any = default_reactor

PROMETHEUS = shutil.which("prometheus")
#: Seconds that an alert may take on a machine that is busy with other things.
_PATIENCE = 120.0


class Notification(Struct, frozen=True):
    """The state of one alert, as last heard."""

    firing: bool
    summary: str
    runbook: str


class _Alertmanager(Resource):
    """Takes what Prometheus sends (``POST /api/v2/alerts``) and remembers the last state of each alert."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Notification] = {}

    def render_POST(self, request: Any) -> bytes:
        now = datetime.now(UTC)
        for each in json.loads(request.content.read()):
            ends = datetime.fromisoformat(each["endsAt"])
            notes = each["annotations"]
            self.known[each["labels"]["alertname"]] = Notification(ends > now, notes["summary"], notes["runbook_url"])
        return b""


class Monitoring:
    """Prometheus with rules in which time passes *factor* times as fast, below *place*."""

    def __init__(self, place: Path, port: int, factor: float) -> None:
        self._place = place
        self._port = port
        self._factor = factor
        self._alertmanager = _Alertmanager()
        self._listening: Any = None
        self._process: Running | None = None

    async def start(self) -> Monitoring:
        """Start it, and wait until it has scraped the proxy some times."""
        assert PROMETHEUS is not None
        self._listening = reactor.listenTCP(0, Site(self._alertmanager, timeout=None), interface="127.0.0.1")
        self._place.mkdir()
        (self._place / "alerts.yml").write_text(scaled(RULES.read_text("utf-8"), self._factor), "utf-8")
        config = EXAMPLE.read_text("utf-8")
        for said, meant in (
            ("interval: 15s", "interval: 1s"),
            ("proxy.example:3143", f"127.0.0.1:{self._port}"),
            ("alertmanager.example:9093", f"127.0.0.1:{self._listening.getHost().port}"),
        ):
            assert said in config
            config = config.replace(said, meant)
        (self._place / "prometheus.yml").write_text(config, "utf-8")
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address=127.0.0.1:0"]
        process = self._process = Running().spawn([PROMETHEUS, *options], environment(self._place), self._place)
        await process.until(lambda: process.ended is not None or "ready to receive web requests" in process.output, 60.0)
        assert process.ended is None, process.output
        while not await self.query("count_over_time(up[1m]) >= 3"):  # a rate needs something before
            await deferLater(reactor, 0.2)
        return self

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.signal(signal.SIGTERM)
            await self._process.end()
        if self._listening is not None:
            await self._listening.stopListening()

    async def fires(self, alert: str, meanwhile: Callable[[], Awaitable[None]]) -> Notification:
        """Wait until *alert* fires; *meanwhile* is done again and again."""
        return await self._is(alert, True, meanwhile)

    async def is_over(self, alert: str, meanwhile: Callable[[], Awaitable[None]]) -> Notification:
        """Wait until *alert*, which fired, is over."""
        return await self._is(alert, False, meanwhile)

    async def _is(self, alert: str, firing: bool, meanwhile: Callable[[], Awaitable[None]]) -> Notification:
        deadline = reactor.seconds() + _PATIENCE
        while (found := self._alertmanager.known.get(alert)) is None or found.firing is not firing:
            if reactor.seconds() > deadline:
                raise TimeoutError(f"{alert}: {found}; heard of {self._alertmanager.known}\n{await self._evaluated(alert)}")
            await meanwhile()
            await deferLater(reactor, 0.2)
        return found

    async def query(self, expression: str) -> Any:
        """What Prometheus answers to *expression* now."""
        assert self._process is not None
        listening = re.search(r'"Listening on" address=127\.0\.0\.1:(\d+)', self._process.output)
        assert listening is not None
        reply = await wire.fetch(int(listening[1]), f"/api/v1/query?query={quote(expression)}")
        assert reply.json["status"] == "success", reply.json
        return reply.json["data"]["result"]

    async def _evaluated(self, alert: str) -> str:
        """The expression of *alert* and what its left side is, for the message that it did not do what it should."""
        rules = (self._place / "alerts.yml").read_text("utf-8").partition(f"alert: {alert}\n")[2]
        expression = rules.partition("expr: ")[2].partition("\n")[0]
        left = re.split(r" (?:==|>|<) [\d.]+$", expression)[0]
        return f"{expression}: {await self.query(left)}"
