"""The proxy as a process under damage: what it has open, what it wrote, and how it is started again."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.damage.journal import WORLD, Journal
from tests.support.process import ProxyProcess

#: Root would be let through closed doors; without these capabilities modes hold for it as for everybody.
_WITHOUT_PRIVILEGE = ("--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\).*?(?=\n\d{4}-|\Z)", re.DOTALL)
#: Folders of the data directory in which nothing stays open.
_STORED = ("files", "partial", "quarantine", "lists")
_ENTRY = re.compile(r"^\d{4}-\d\d-\d\dT", re.MULTILINE)
_WORRYING = re.compile(r"\bbug: |Unhandled [Ee]rror|never retrieved|a response failed")


def confined() -> Sequence[str]:
    """What goes before the proxy's command, so that modes of files hold for it and it ends with this process; maybe nothing."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    return (setpriv, "--pdeathsig", "KILL", *(_WITHOUT_PRIVILEGE if os.geteuid() == 0 else ()))


class Watched:
    """*proxy*, watched for what it must never do: die, write a traceback, keep descriptors that nobody uses."""

    def __init__(self, proxy: ProxyProcess, journal: Journal) -> None:
        self.proxy = proxy
        self._journal = journal
        self._read = 0
        self._told: set[str] = set()
        #: Other descriptors at rest, once it has served something.
        self._at_rest: Counter[str] | None = None

    @property
    def root(self) -> Path:
        """The data directory, as it can be reached from here while the process runs or is stopped."""
        process = self.proxy.process
        inside = Path(f"/proc/{process.pid}/root{self.proxy.data_dir}") if process is not None else self.proxy.data_dir
        return inside if inside.exists() else self.proxy.data_dir

    def has_own_disk(self) -> bool:
        """Whether `root` is now on the file system that only the running process sees."""
        return self.root != self.proxy.data_dir and os.stat(self.root).st_dev != os.stat(self.proxy.data_dir).st_dev

    def dead(self) -> bool:
        """Whether it has ended by itself."""
        return self.proxy.process is not None and self.proxy.process.ended is not None

    async def start(self) -> bool:
        """Start it; whether it serves now.  One that does not start is a violation, and its log says why."""
        try:
            await self.proxy.started()
        except (AssertionError, TimeoutError) as error:
            self._journal.violated("start", WORLD, f"it does not start: {str(error)[-600:]}")
            await self.proxy.kill()
            return False
        finally:
            self.look()
        self._journal.events["starts"] += 1
        self._journal.note(WORLD, "started")
        return True

    async def stop(self) -> None:
        """SIGTERM; one that does not end is killed, and that is a violation."""
        try:
            await self.proxy.stop()
        except TimeoutError:
            self._journal.violated("stop", WORLD, "it does not end within 60 s of SIGTERM")
            await self.proxy.kill()
        self.look()

    async def kill(self) -> None:
        """SIGKILL."""
        await self.proxy.kill()
        self.look()

    def look(self) -> None:
        """Read what it has written since the last look, up to the last line that has begun while it runs."""
        written = self.proxy.log
        entries = [match.start() for match in _ENTRY.finditer(written, self._read)]
        stop = len(written) if self.proxy.process is None or self.dead() else entries[-1] if entries else self._read
        fresh, self._read = written[self._read : stop], stop
        for match in _TRACEBACK.finditer(fresh):
            self._told_once("traceback", match[0].strip())
        for line in fresh.splitlines():
            if _WORRYING.search(line):
                self._told_once("log", line)

    def _told_once(self, kind: str, text: str) -> None:
        last = re.sub(r"[0-9a-f]{8,}|0x\w+|\d+|/\S+", "*", text.splitlines()[-1])
        if last not in self._told:
            self._told.add(last)
            self._journal.violated(kind, WORLD, text[-1_500:])

    def died(self) -> None:
        """It has ended by itself: say so."""
        assert self.proxy.process is not None
        ended = self.proxy.process.ended
        assert ended is not None
        self._journal.violated("death", WORLD, f"it ended with status {ended.status}: {ended.output[-300:]}")

    # -- descriptors ----------------------------------------------------------------------------------------------------------

    def descriptors(self) -> Counter[str]:
        """What the running process has open, by kind."""
        connections = self._connections()
        return Counter(self._kind(target, connections) for target in self._targets())

    def _targets(self) -> list[str]:
        """What each descriptor of the running process leads to."""
        assert self.proxy.process is not None
        found = []
        for each in Path(f"/proc/{self.proxy.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(each))
        return found

    def stored(self) -> list[str]:
        """The stored and arriving files that it has open."""
        return sorted(target for target in self._targets() if self._kind(target, {}) == "stored")

    def _kind(self, target: str, connections: dict[str, str]) -> str:
        if target.startswith("socket:["):
            return connections.get(target[8:-1], "socket")
        # Of a file system that only it sees, paths begin there.
        data = str(self.proxy.data_dir)
        first = target.removeprefix(data).lstrip("/").partition("/")[0]
        if target.startswith("/memfd:held"):
            return "list in memory"  # what the disk did not take, bounded by storage.lists
        if first == "statistics":
            return "statistics"  # a database that is opened when its first minute is over
        if first in _STORED or target.startswith("/memfd:"):
            return "stored"
        return "records" if first == "records" else "data" if target.startswith(data) else "other"

    def _connections(self) -> dict[str, str]:
        """TCP sockets by inode: a ``client``'s, or one to an ``upstream``."""
        assert self.proxy.process is not None
        found = {}
        for line in Path(f"/proc/{self.proxy.process.pid}/net/tcp").read_text("ascii").splitlines()[1:]:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state != "0A":
                found[inode] = "client" if int(local.rpartition(":")[2], 16) == self.proxy.port else "upstream"
        return found

    def at_rest(self, *, first: bool = False) -> str | None:
        """``None`` if nothing is open that nobody uses; else what is.  *first*: learn what is open by itself."""
        found = self.descriptors()
        if first or self._at_rest is None:
            self._at_rest = Counter({kind: found[kind] for kind in ("other", "data", "socket")})
        more = {kind: found[kind] for kind in ("stored", "client") if found[kind]}
        more |= {kind: found[kind] for kind, count in self._at_rest.items() if found[kind] > count}
        return ", ".join(f"{count} {kind}" for kind, count in more.items()) or None
