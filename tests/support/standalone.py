"""A fake upstream in a process of its own, for the bench and for long soaks.

It prints ``{"port": …, "url": …}`` as one JSON line once it listens.  ``GET /-/asked`` answers its counts as JSON,
``GET /-/reset`` forgets them, ``GET /-/fault?match=GLOB&status=503&delay=1…`` scripts a fault (``times=N`` for N responses),
``GET /-/heal`` forgets all faults, ``GET /-/names?projects=N`` makes the root page list N made-up names (0: the real ones
again), ``GET /-/rate?bytes=N`` changes what ``--rate`` said.  None of these is counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.support.addresses import SICK, Addresses, sicken
from tests.support.catalogue import fill_install, fill_landscape, fill_page, list_names
from tests.support.fake_upstream import Answer, FakeUpstream, Fault, Request
from tests.support.faults import matches
from tests.support.wheels import data_of, seeded, wheel

#: The options of a `Fault` that a control URL can set, and how their text is read.
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "status": int,
    "delay": float,
    "first_byte_delay": float,
    "cut_after": int,
    "reset_after": int,
    "stall_after": int,
    "corrupt_at": int,
    "redirect": str,
    "silent": bool,
    "drop": bool,
    "close": bool,
    "no_content_length": bool,
    "chunked": bool,
    "gzip": bool,
    "ignore_range": bool,
    "garbage": str.encode,
    "body": str.encode,
}


class Misfortune:
    """What goes wrong with the responses of one upstream, at all of its addresses.

    A *share* of them fail at random, never two in a row for one path.  With *long_pauses* some ask for a pause of five minutes,
    which only those outlast who have another mirror.  All that match one of *broken* fail, in another way each time.
    """

    def __init__(self, share: float = 0.0, seed: int = 0, *, long_pauses: bool = False, broken: Sequence[str] = ()) -> None:
        self._share = share
        self._rng = seeded(seed)
        self._pause = {"Retry-After": "300" if long_pauses else "1"}
        self._broken = tuple(broken)
        self._failed_last: set[str] = set()
        self._turns = itertools.cycle(
            [
                Fault(status=500),
                Fault(body=b"<html>down for maintenance</html>", headers={"Content-Type": "text/html"}),
                Fault(drop=True),
                Fault(status=429, headers={"Retry-After": "300"}),
            ]
        )

    def next(self, request: Request) -> Fault:
        """The fault of the response to *request*."""
        if any(matches(each, request) for each in self._broken):
            return next(self._turns)
        if request.path in self._failed_last:
            self._failed_last.discard(request.path)
        elif self._rng.random() < self._share:
            self._failed_last.add(request.path)
            return self._any()
        return Fault()

    def _any(self) -> Fault:
        return self._rng.choice(
            [
                Fault(status=503, headers=self._pause),
                Fault(status=500),
                Fault(status=429, headers=self._pause),
                Fault(drop=True),
                Fault(cut_after=self._rng.randrange(2000)),
                Fault(reset_after=self._rng.randrange(2000)),
                Fault(garbage=b"220 mail.example ESMTP\r\n"),
                Fault(body=b"<html><form>sign in</form></html>", headers={"Content-Type": "text/html"}),
                Fault(stall_after=self._rng.randrange(2000)),
            ]
        )


class StandaloneUpstream(FakeUpstream):
    """A fake upstream that is told what to do over HTTP; *misfortune* says how it fails, *delay* (seconds) how late it is."""

    def __init__(self, *, misfortune: Misfortune | None = None, delay: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self._misfortune = misfortune or Misfortune()
        self._delay = delay
        #: All addresses and the file host's, which are counted together.
        self.together: list[StandaloneUpstream] = [self]

    def arrive(self, request: Request) -> None:
        super().arrive(request)
        if request.path.startswith("/-/"):
            self.asked.pop()

    def answer(self, request: Request) -> Answer:
        return self._control(request) if request.path.startswith("/-/") else super().answer(request)

    def fault_for(self, request: Request) -> Fault:
        if request.path.startswith("/-/"):
            return Fault()
        fault = super().fault_for(request)
        if fault == Fault():
            fault = self._misfortune.next(request)
        return Fault(delay=self._delay) if fault == Fault() else fault

    def _control(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        if url.path == "/-/reset":
            self.asked.clear()
            self.most_connections, self.most_in_progress = self.connections, self.in_progress
            self.sent = 0
        elif url.path == "/-/heal":
            self.heal()
        elif url.path == "/-/names":
            list_names(self, int(dict(parse_qsl(url.query))["projects"]))
        elif url.path == "/-/rate":
            self.rate = float(dict(parse_qsl(url.query))["bytes"])
        elif url.path == "/-/fault":
            options = dict(parse_qsl(url.query))
            times = options.pop("times", None)
            match = options.pop("match", "*")
            fault = Fault(**{name: _OPTIONS[name](value) for name, value in options.items()})
            self.script(match, fault, None if times is None else int(times))
        elif url.path != "/-/asked":
            return Answer(404)
        asked = [each for upstream in self.together for each in upstream.asked]
        counts = {
            "requests": len(asked),
            "by_path": Counter(each.path for each in asked),
            "by_method": Counter(each.method for each in asked),
            "by_address": {f"{each.host} {each.address}": len(each.asked) for each in self.together},
            "sent": self.sent,
            "connections": self.connections,
            "most_connections": self.most_connections,
            "most_in_progress": self.most_in_progress,
        }
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(counts).encode())


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fake_upstream", description=__doc__)
    parser.add_argument("--standalone", action="store_true", help="as it always does")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS[=SICK]",
        help=f"where to listen (127.0.0.1), several times if need be; SICK is what is wrong there: {', '.join(SICK)}",
    )
    parser.add_argument("--host", help="the name that its URLs give it; the first address by default")
    parser.add_argument(
        "--file-host", metavar="HOST", help="serve files on a port of their own under this name, at the same addresses"
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each response")
    parser.add_argument("--rate", type=float, help="bytes per second, each response")
    parser.add_argument("--fail", type=float, default=0.0, help="share of the responses that fail at random, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the random failures")
    parser.add_argument("--long-pauses", action="store_true", help="random 429 and 503 ask for a pause of 300 s, not of 1 s")
    parser.add_argument("--broken", action="append", default=[], metavar="GLOB", help="paths that fail always")
    parser.add_argument("--html", action="store_true", help="speak HTML only")
    parser.add_argument("--compress", action="store_true", help="compress pages for those who accept it")
    parser.add_argument("--max-age", type=int, default=600, help="of pages, seconds; negative: say nothing")
    parser.add_argument("--page", action="append", default=[], metavar="PROJECT=FILES", help="a page of that many files")
    parser.add_argument("--file", action="append", default=[], metavar="PROJECT/FILENAME=SIZE", help="a file of noise")
    parser.add_argument("--wheel", action="append", default=[], metavar="PROJECT[=SIZE]", help="an installable wheel 1.0")
    parser.add_argument("--wheels", metavar="COUNT[=SIZE]", default="0", help="the same for p0, p1, and so on")
    parser.add_argument(
        "--elsewhere", action="append", default=[], metavar="PROJECT=HOST:PORT", help="a wheel 1.0 that is linked on that host"
    )
    parser.add_argument("--landscape", type=int, metavar="RELEASES", help="sixty projects that require each other")
    parser.add_argument(
        "--install", type=int, metavar="FILES", help="25 projects of an install, with that many files on each page"
    )
    parser.add_argument("--folder", action="append", default=[], type=Path, help="serve the wheels and sdists in it")
    return parser.parse_args(arguments)


async def _listening(asked: argparse.Namespace) -> Addresses[StandaloneUpstream]:
    """The upstream, and its file host if it has one, at all addresses; nothing is wrong with any of them yet."""
    addresses = [each.partition("=")[0] for each in asked.address] or ["127.0.0.1"]
    misfortune = Misfortune(asked.fail, asked.seed, long_pauses=asked.long_pauses, broken=asked.broken)
    options: dict[str, Any] = {"misfortune": misfortune, "delay": asked.delay, "rate": asked.rate}
    files: list[StandaloneUpstream] = []
    if asked.file_host:
        files = (await Addresses(asked.file_host, addresses, StandaloneUpstream, **options).start()).at
        options["file_host"] = files[0]
    started = await Addresses(asked.host or addresses[0], addresses, StandaloneUpstream, port=asked.port, **options).start()
    for each in started.at:
        each.together = [*started.at, *files]
    return started


async def _sicken(asked: argparse.Namespace, started: Addresses[StandaloneUpstream]) -> None:
    for each in asked.address:
        address, _, what = each.partition("=")
        for upstream in started.first.together:
            if what and upstream.address == address:
                await sicken(upstream, what)


def _fill(asked: argparse.Namespace, upstream: StandaloneUpstream) -> None:
    upstream.content.json = not asked.html
    upstream.content.compress = asked.compress
    upstream.content.max_age = asked.max_age if asked.max_age >= 0 else None
    for each in asked.page:
        project, _, files = each.partition("=")
        fill_page(upstream, project, int(files))
    if asked.landscape:
        fill_landscape(upstream, asked.landscape)
    if asked.install:
        fill_install(upstream, asked.install)
    for each in asked.file:
        name, _, size = each.partition("=")
        project, _, filename = name.partition("/")
        upstream.add_file(project, filename, data_of(int(size)))
    count, _, all_sizes = asked.wheels.partition("=")
    for each in (*asked.wheel, *(f"p{number}={all_sizes}" for number in range(int(count)))):
        project, _, size = each.partition("=")
        made = wheel(project, size=int(size or 0))
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata)
    for each in asked.elsewhere:
        project, _, host = each.partition("=")
        made = wheel(project)
        url = f"http://{host}/packages/{made.filename}"
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata, url=url)
    for folder in asked.folder:
        for file in sorted(folder.iterdir()):
            upstream.add_file(file.name.split("-")[0], file.name, file.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until killed."""
    asked = _arguments(arguments)

    async def serve() -> None:
        started = await _listening(asked)
        _fill(asked, started.first)
        await _sicken(asked, started)
        sys.stdout.write(json.dumps({"port": started.first.port, "url": started.url}) + "\n")
        sys.stdout.flush()

    reactor: Any = default_reactor
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(serve()).addErrback(_die))
    reactor.run()
    return 0


def _die(failure: Failure) -> None:
    failure.printTraceback()
    reactor: Any = default_reactor
    reactor.stop()
