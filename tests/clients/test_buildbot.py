"""A Buildbot master with the file that is shipped, and two workers: builds stay green when upstream is cut off half-way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.web.resource import Resource
from twisted.web.server import Site

from proxy.core.clients import ENVIRONMENT, Address, settings
from tests.clients.conftest import MakePlace
from tests.clients.place import Place, free_port
from tests.support.process import ROOT

reactor: Any = default_reactor

SHIPPED = (ROOT / "conf" / "buildbot" / "master.cfg").read_text("utf-8")
PASSWORD = {"WORKER_PASSWORD": "secret"}
#: Builds that begin before upstream is cut off (the second one goes on during that), and builds after it.
BEFORE, AFTER = 2, 4
SUCCESS = 0


class Reports(Resource):
    """Where the master reports each build that has ended."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.ended: DeferredQueue[dict[str, Any]] = DeferredQueue()

    def render_POST(self, request: Any) -> bytes:
        """Take one report."""
        report = json.load(request.content)
        if report["complete"]:
            self.ended.put(report)
        return b""


class Farm:
    """The master and the workers of *place*, and the changes that make them build."""

    def __init__(self, place: Place, reports: int) -> None:
        self._place = place
        self._port = free_port()
        #: Commands that start and stop, with the folders of those that were started.
        self._started: list[tuple[str, Path]] = []
        text = SHIPPED
        for theirs, ours in {
            "https://packages.corp.example/simple/": place.address.index,
            "tcp:9989:": f"tcp:{self._port}:",
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        report = f'reporters.HttpStatusPush("http://127.0.0.1:{reports}/builds")'
        self._configuration = f'{text}\nfrom buildbot.plugins import reporters\nc["services"].append({report})\n'

    async def start(self) -> None:
        """Make and start them; returns when both workers are connected."""
        master = self._place.folder / "master"
        await self._run("buildbot", "create-master", master)
        (master / "master.cfg").write_text(self._configuration, "utf-8")
        assert "Config file is good!" in await self._run("buildbot", "checkconfig", master)
        folders = [master]
        for name in ("worker-1", "worker-2"):
            folders.append(self._place.folder / name)
            await self._run("buildbot-worker", "create-worker", folders[-1], f"127.0.0.1:{self._port}", name, "secret")
        for folder, command in zip(folders, ("buildbot", "buildbot-worker", "buildbot-worker"), strict=True):
            # It returns when the master runs, or the worker is connected to it.
            self._started.append((command, folder))
            await self._run(command, "start", *(("--start_timeout=120",) if command == "buildbot" else ()), folder)

    async def change(self, number: int) -> None:
        """Send a change, which is built."""
        options = ("--master", f"127.0.0.1:{self._port}", "--auth", "changes:secret", "--who", "somebody")
        await self._run("buildbot", "sendchange", *options, "--branch", f"branch-{number}", "file")

    @property
    def log(self) -> str:
        """What all of them wrote."""
        return "\n".join((folder / "twistd.log").read_text("utf-8") for _, folder in self._started)

    async def stop(self) -> None:
        """Stop those that were started."""
        for command, folder in reversed(self._started):
            if (folder / "twistd.pid").exists():
                await self._run(command, "stop", folder)

    async def _run(self, *arguments: Any) -> str:
        # A worker has its password in its file; in its environment, builds would see it.
        variables = PASSWORD if arguments[0] == "buildbot" else {}
        return await self._place.run("buildbot", *arguments, variables=variables)


@pytest_twisted.ensureDeferred
async def test_builds_stay_green_when_upstream_is_cut_off_half_way(make_place: MakePlace) -> None:
    place = await make_place()
    reports = Reports()
    port = reactor.listenTCP(0, Site(reports), interface="127.0.0.1")
    farm = Farm(place, port.getHost().port)
    ended = []
    try:
        await farm.start()
        for number in range(BEFORE):
            await farm.change(number)
        ended.append(await reports.ended.get().addTimeout(300, reactor))
        # The other one may be in the middle of its installation.
        await place.upstream.down()
        for number in range(BEFORE, BEFORE + AFTER):
            await farm.change(number)
        while len(ended) < BEFORE + AFTER:
            ended.append(await reports.ended.get().addTimeout(300, reactor))
    finally:
        await farm.stop()
        await Deferred.fromCoroutine(_closed(port))
    assert [each["results"] for each in ended] == [SUCCESS] * (BEFORE + AFTER), farm.log
    assert {each["properties"]["workername"][0] for each in ended} == {"worker-1", "worker-2"}


async def _closed(port: Any) -> None:
    await port.stopListening()


def test_builds_get_the_settings_that_client_config_prints() -> None:
    address = Address.of("https://packages.corp.example", None)
    for client, name in (("pip", "PIP_INDEX_URL"), ("uv", "UV_DEFAULT_INDEX")):
        printed = {each.variables.get(name) for each in settings(client, address) if each.where == ENVIRONMENT}
        assert printed == {"https://packages.corp.example/simple/"}
        assert 'PROXY = "https://packages.corp.example/simple/"' in SHIPPED
        assert f'"{name}": PROXY' in SHIPPED
