"""A run: rounds of damage and requests on several proxies after each other, and in the end upstream is honest again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from bench.damage.crowd import Crowd
from bench.damage.journal import WORLD, Journal
from bench.damage.lying import LyingUpstream
from bench.damage.process import Watched, confined
from bench.damage.truth import TrueFile, TrueProject, World
from bench.damage.verdicts import Verdicts
from bench.damage.wrecking import Wrecker
from tests.support.content import HTML_TYPE, JSON_TYPE
from tests.support.faults import Gate
from tests.support.operator import Operator
from tests.support.process import ProxyProcess, can_mount
from tests.support.wheels import seeded
from tests.support.wire import Reply

reactor: Any = default_reactor

MB = 1_000_000
#: Memory that the proxy may take at its worst (bytes).
_MOST_MEMORY = 500 * MB
#: Seconds in which everything must be available once upstream is honest, and at rest once nobody asks.
_RECOVERY = 150.0
_REST = 30.0
#: Refusals other than 503 after which something counts as lost.
_REFUSALS = 25

_CONFIG = """\
[server]
drain_time = "2s"
stall_timeout = "10s"
idle_timeout = "5s"
{server}
{upstreams}
[[index]]
name = "main"
default = true
upstreams = [{names}]
ttl = "1s"
soft_deadline = "300ms"
negative_ttl = "1s"
"""
_UPSTREAM = """\
[upstream.{name}]
url = "{url}"
connect_timeout = "1s"
first_byte_timeout = "{patience}"
body_idle_timeout = "{patience}"
"""


class Chapter(Struct, frozen=True):
    """One proxy from its first start to its end, on a data directory of its own, for this share of the answers."""

    name: str
    share: float
    upstreams: int = 1
    server: str = ""
    disk: int | None = None


CHAPTERS = (
    Chapter("without limits", 0.4),
    Chapter("two mirrors", 0.25, upstreams=2),
    Chapter("max_size", 0.2, server='max_size = "6MB"'),
    Chapter("a small disk", 0.15, upstreams=2, disk=10 * MB),
)


class Plan(Struct, frozen=True, kw_only=True):
    """How large a run is."""

    seed: int = 0
    answers: int = 20_000
    chapters: tuple[Chapter, ...] = CHAPTERS
    projects: int = 32
    #: Files of the project whose page is kept outside the database when it is as large as by default.
    wide: int = 150
    #: Bytes of the largest file's ballast.
    largest: int = 3 * MB
    clients: int = 16
    #: Requests between two damages.
    round: int = 90
    #: Bytes of a page that is compressed to a thousandth, and of headers that do not end.
    bomb: int = 600 * MB
    endless: int = 8 * MB
    #: How long upstream may be silent (a duration of the configuration file).
    patience: str = "700ms"
    #: How often the proxy is killed, stopped, its database damaged, upstream down: chances in each round.
    chances: dict[str, float] = field(default_factory=lambda: {"kill": 0.35, "restart": 0.12, "database": 0.3, "down": 0.08})


async def run(plan: Plan, place: Path, journal: Journal, tell: Callable[[str], None] = lambda line: None) -> None:
    """Carry out *plan* below *place*.  Everything that it finds is in *journal*; *tell* hears how far it is."""
    for chapter in plan.chapters:
        if chapter.disk is not None and not can_mount():
            tell(f"{chapter.name}: left out, file systems cannot be mounted here")
            continue
        folder = place / chapter.name.replace(" ", "-")
        folder.mkdir()
        staged = _Stage(plan, chapter, folder, journal, tell)
        try:
            await staged.play(journal.checked + int(plan.answers * chapter.share))
        finally:
            await staged.close()


class _Stage:
    """One chapter."""

    def __init__(self, plan: Plan, chapter: Chapter, place: Path, journal: Journal, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._chapter = chapter
        self._place = place
        self._journal = journal
        self._tell = tell
        self._rng = seeded(f"{plan.seed} {chapter.name}")
        self._upstreams = [LyingUpstream() for _ in range(chapter.upstreams)]
        for each in self._upstreams:
            each.start()
        self._world = World(plan.seed, plan.projects, list(self._upstreams), plan.largest, plan.wide)
        for number, each in enumerate(self._upstreams):
            each.begin(f"up{number}", plan.seed, self._world, journal, bomb=plan.bomb, endless=plan.endless)
        verdicts = Verdicts(self._world, journal, lambda subject: max(each.lied.get(subject, -9) for each in self._upstreams))
        self._crowd = Crowd(self._world, journal, verdicts)
        self._wrecker = Wrecker(self._rng, journal)
        self._watched = self._proxy()
        #: Shut from a kill until the next start.
        self._up = Gate()
        self._up.release()

    def _proxy(self) -> Watched:
        names = [f"up{number}" for number in range(len(self._upstreams))]
        upstreams = [
            _UPSTREAM.format(name=name, url=each.url, patience=self._plan.patience)
            for name, each in zip(names, self._upstreams, strict=True)
        ]
        config = _CONFIG.format(
            server=self._chapter.server, upstreams="\n".join(upstreams), names=", ".join(f'"{name}"' for name in names)
        )
        self._place.mkdir(exist_ok=True)
        proxy = ProxyProcess(self._place / "proxy", config=config, disk=self._chapter.disk, fresh=True)
        proxy.before = confined()
        return Watched(proxy, self._journal)

    async def close(self) -> None:
        """End every process and server of this chapter."""
        self._wrecker.reopen(all_of_it=True)
        await self._watched.proxy.kill()
        for each in self._upstreams:
            await each.close()

    # -- rounds ---------------------------------------------------------------------------------------------------------------

    async def play(self, until: int) -> None:
        """Rounds until so many answers have been checked, then the end."""
        journal = self._journal
        self._tell(f"{self._chapter.name}: until {until:,} answers")
        await self._start()
        await self._crowd.names()
        await self._rest(first=True)
        while journal.checked < until:
            journal.round += 1
            await self._round(min(self._plan.round, until - journal.checked + 10))
            if journal.round % 10 == 0:
                self._tell(f"round {journal.round}: {journal.checked:,} answers, {journal.kinds.total()} violations")
        await self._finale()

    async def _round(self, requests: int) -> None:
        rng, chances = self._rng, self._plan.chances
        rng.seed(f"{self._plan.seed} {self._chapter.name} {self._journal.round}")
        share = rng.choice([0.0, 0.0, 0.15, 0.15, 0.15, 0.3, 0.3, 0.7])
        is_down = rng.random() < chances["down"]
        if rng.random() < 0.5:
            changed = self._world.change(rng, self._journal.round)
            self._journal.note(WORLD, f"upstream changes: {changed}")
        await self._damage()
        for each in self._upstreams:
            each.share = share * rng.choice([1.0, 1.0, 0.2])
            if is_down and rng.random() < 0.7:
                self._journal.note(WORLD, "an upstream is down")
                await each.down()
        kill_after = rng.randrange(requests) if rng.random() < chances["kill"] else None
        await self._requests(requests, kill_after)
        for each in self._upstreams:
            each.share = 0.0
            each.heal()
            if is_down:
                await each.down()
                each.up()
        await self._rest()
        await self._revive()

    async def _revive(self) -> None:
        """Start it again if it has ended by itself, which is a violation."""
        if self._watched.dead():
            self._watched.died()
            await self._watched.kill()
            await self._start()

    async def _damage(self) -> None:
        """Between requests, some of it while the proxy is stopped."""
        rng, chances = self._rng, self._plan.chances
        self._wrecker.reopen()
        if self._chapter.disk is not None and rng.random() < 0.5 and self._watched.has_own_disk():
            self._wrecker.fill(self._watched.root)
        if rng.random() < 0.7:
            self._wrecker.entries(self._watched.root, running=True)
        if rng.random() < chances["database"] / 2:
            self._wrecker.database(self._watched.root, running=True)
            self._world.sound = False
        if rng.random() < chances["restart"] and self._chapter.disk is None:
            await self._watched.stop()
            if rng.random() < 0.7:
                self._wrecker.entries(self._watched.root, running=False)
            if rng.random() < chances["database"]:
                self._wrecker.database(self._watched.root, running=False)
            if rng.random() < 0.15:
                await self._command()
            await self._start()

    async def _command(self) -> None:
        """An operator repairs what he can while the proxy does not run."""
        place = self._watched.proxy.place
        operator = Operator(place, self._watched.proxy.data_dir, ("--config", str(place / "pypiproxy.toml")))
        ended = await operator.run("verify", "--repair")
        self._journal.note(WORLD, f"pypiproxy verify --repair: {ended.status} {ended.output[-150:]}")
        self._journal.answers[f"command verify {ended.status}"] += 1
        if "Traceback" in ended.output:
            self._journal.violated("traceback", WORLD, f"pypiproxy verify --repair: {ended.output[-1500:]}")

    async def _start(self) -> None:
        """Start the proxy; where damage keeps it from that, which is a violation, the data directory is put away."""
        if not await self._watched.start():
            aside = self._watched.proxy.data_dir.with_name(f"data-{self._journal.round}")
            self._wrecker.reopen(all_of_it=True)
            self._watched.proxy.data_dir.rename(aside)
            self._world.forget_all()
            assert await self._watched.start(), "it does not start on an empty directory either"
        self._world.sound = True
        self._crowd.port = self._watched.proxy.port
        self._crowd.data_dir = self._watched.root

    async def _requests(self, count: int, kill_after: int | None) -> None:
        """So many requests by all clients at once; the proxy is killed after some of them, and started again."""
        turns = iter(range(count))
        round_number = self._journal.round

        def client() -> Deferred[None]:
            return Deferred.fromCoroutine(self._client(turns, round_number, kill_after))

        await gatherResults([client() for _ in range(self._plan.clients)], consumeErrors=True)

    async def _client(self, turns: Iterator[int], round_number: int, kill_after: int | None) -> None:
        for turn in turns:
            if turn == kill_after:
                await self._kill()
            await self._up.opened()
            await self._crowd.act(seeded(f"{self._plan.seed} {self._chapter.name} {round_number} {turn}"))

    async def _kill(self) -> None:
        self._up = Gate()
        self._journal.events["kill -9"] += 1
        self._journal.note(WORLD, "kill -9")
        if self._watched.dead():
            self._watched.died()
        await self._watched.kill()
        if self._chapter.disk is not None:
            self._wrecker.empty_disk()
            self._world.forget_all()
        elif self._rng.random() < 0.5:
            self._wrecker.entries(self._watched.root, running=False)
        if self._rng.random() < self._plan.chances["database"] and self._chapter.disk is None:
            self._wrecker.database(self._watched.root, running=False)
        await self._start()
        self._up.release()

    async def _rest(self, *, first: bool = False) -> None:
        """Wait until nothing is asked and nothing is open that nobody uses."""
        if self._watched.dead():
            return
        self._watched.look()
        deadline = reactor.seconds() + _REST
        while reactor.seconds() < deadline:
            busy = sum(each.in_progress for each in self._upstreams)
            still = self._watched.at_rest(first=first)
            if not busy and still is None:
                break
            await deferLater(reactor, 0.02)
            if self._watched.dead():
                return
        else:
            self._journal.violated(
                "descriptors",
                WORLD,
                f"{_REST:g} s after the last request are open: {still} ({busy} asked), {self._watched.stored()}",
            )
            self._watched.at_rest(first=True)
        peak = self._watched.proxy.peak_rss
        if peak > _MOST_MEMORY:
            self._journal.violated("memory", WORLD, f"it has taken {peak // MB} MB")
            await self._watched.stop()
            await self._start()

    # -- the end --------------------------------------------------------------------------------------------------------------

    async def _finale(self) -> None:
        """Upstream is honest and nothing is damaged any more: everything must be available, without a restart."""
        self._journal.round += 2  # what was lied about before is no excuse any more
        self._tell(f"{self._chapter.name}: upstream is honest again")
        self._world.denied.clear()
        self._journal.note(WORLD, "upstream is honest from now on")
        lost = await self._all_available()
        for subject, last in lost:
            self._journal.violated("poisoned", subject, f"not available although upstream is honest: {last}")
        if lost:
            await self._watched.stop()
            await self._start()
            for subject, last in await self._all_available():
                self._journal.violated("poisoned for ever", subject, f"not available after a restart either: {last}")
        await self._rest()
        await self._watched.stop()

    async def _all_available(self) -> list[tuple[str, str]]:
        """What cannot be had, with the last answer."""
        deadline = reactor.seconds() + _RECOVERY
        lost: list[tuple[str, str]] = []

        async def had(subject: str, ask: Callable[[], Awaitable[Reply]], right: tuple[int, ...] = (200, 206)) -> bool:
            refusals = 0
            while True:
                try:
                    reply = await ask()
                except ConnectError:
                    await self._revive()
                    continue
                if reply.status in right and reply.complete:
                    return True
                refusals += reply.status not in (0, 503) and reply.complete
                if reactor.seconds() > deadline or refusals > _REFUSALS:
                    lost.append((subject, f"{reply.status} {reply.reason[:200]}, {len(reply.body):,} bytes"))
                    return False
                await deferLater(reactor, 0.1)

        for project in self._world.projects.values():
            if project.kind in ("replaced", "swapped"):
                # What was committed first may be lost for ever, by design; an operator lets it go.
                await self._crowd.operate("purge", project=project.name)
                self._world.unsettle(project.name)
            await self._project_available(project, had)
        # Of what is new, this alone needs room on the disk, and a folder that can be written.
        self._wrecker.give_room()
        self._wrecker.open_lists(self._watched.root)
        await had("/simple/", self._crowd.names)
        return lost

    async def _project_available(self, project: TrueProject, had: Callable[..., Awaitable[bool]]) -> None:
        await had(f"page of {project.name}", lambda: self._crowd.page(project, HTML_TYPE, "gzip"))
        await had(f"page of {project.name}", lambda: self._crowd.page(project, JSON_TYPE, "zstd"))
        await had(f"/pypi/{project.name}/json", lambda: self._crowd.legacy(project))
        for file in project.files.values():
            if file.offered:
                await self._file_available(file, had)

    async def _file_available(self, file: TrueFile, had: Callable[..., Awaitable[bool]]) -> None:
        version = file.latest
        size = len(version.data)
        await had(file.subject, lambda: self._crowd.head(file, version))
        await had(file.subject, lambda: self._crowd.part(file, version, (size // 2, size // 2 + 99)))
        if file.is_wheel:
            await had(file.subject, lambda: self._crowd.metadata(file, version))
        await had(file.subject, lambda: self._crowd.whole(file, version))
        await had(file.subject, lambda: self._crowd.part(file, version, (None, 50)))
