"""A fake upstream in a process of its own, for the bench and for long soaks.

It prints ``{"port": …, "url": …}`` as one JSON line once it listens.  ``GET /-/asked`` answers its counts as JSON,
``GET /-/reset`` forgets them, ``GET /-/fault?match=GLOB&status=503&delay=1…`` scripts a fault (``times=N`` for N responses),
``GET /-/heal`` forgets all faults, ``GET /-/names?projects=N`` makes the root page list N made-up names (0: the real ones
again).  None of these is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from twisted.internet import reactor as default_reactor

from tests.support.catalogue import fill_landscape, fill_page, list_names
from tests.support.fake_upstream import Answer, FakeUpstream, Fault, Request
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


class StandaloneUpstream(FakeUpstream):
    """A fake upstream that is told what to do over HTTP, and may fail at random."""

    def __init__(
        self, *, fail: float = 0.0, seed: int = 0, delay: float = 0.0, rate: float | None = None, port: int = 0
    ) -> None:
        super().__init__(rate=rate, port=port)
        self._fail = fail
        self._rng = seeded(seed)
        self._delay = delay

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
        if fault != Fault():
            return fault
        if self._rng.random() < self._fail:
            return self._rng.choice(
                [
                    Fault(status=503),
                    Fault(status=500),
                    Fault(status=429, headers={"Retry-After": "1"}),
                    Fault(drop=True),
                    Fault(cut_after=self._rng.randrange(2000)),
                    Fault(reset_after=self._rng.randrange(2000)),
                    Fault(garbage=b"220 mail.example ESMTP\r\n"),
                    Fault(body=b"<html>down for maintenance</html>", headers={"Content-Type": "text/html"}),
                    Fault(stall_after=self._rng.randrange(2000)),
                ]
            )
        return Fault(delay=self._delay)

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
        elif url.path == "/-/fault":
            asked = dict(parse_qsl(url.query))
            times = asked.pop("times", None)
            match = asked.pop("match", "*")
            fault = Fault(**{name: _OPTIONS[name](value) for name, value in asked.items()})
            self.script(match, fault, None if times is None else int(times))
        elif url.path != "/-/asked":
            return Answer(404)
        counts = {
            "requests": len(self.asked),
            "by_path": Counter(each.path for each in self.asked),
            "by_method": Counter(each.method for each in self.asked),
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
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each response")
    parser.add_argument("--rate", type=float, help="bytes a second, each response")
    parser.add_argument("--fail", type=float, default=0.0, help="share of the responses that fail at random, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="of the random failures")
    parser.add_argument("--html", action="store_true", help="speak HTML only")
    parser.add_argument("--compress", action="store_true", help="compress pages for those who accept it")
    parser.add_argument("--max-age", type=int, default=600, help="of pages, seconds; negative: say nothing")
    parser.add_argument("--page", action="append", default=[], metavar="PROJECT=FILES", help="a page of that many files")
    parser.add_argument("--file", action="append", default=[], metavar="PROJECT/FILENAME=SIZE", help="a file of noise")
    parser.add_argument("--wheel", action="append", default=[], metavar="PROJECT[=SIZE]", help="an installable wheel 1.0")
    parser.add_argument("--landscape", type=int, metavar="RELEASES", help="sixty projects that require each other")
    parser.add_argument("--folder", action="append", default=[], type=Path, help="serve the wheels and sdists in it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until killed."""
    asked = _arguments(arguments)
    upstream = StandaloneUpstream(fail=asked.fail, seed=asked.seed, delay=asked.delay, rate=asked.rate, port=asked.port)
    upstream.content.json = not asked.html
    upstream.content.compress = asked.compress
    upstream.content.max_age = asked.max_age if asked.max_age >= 0 else None
    upstream.start()
    for each in asked.page:
        project, _, files = each.partition("=")
        fill_page(upstream, project, int(files))
    if asked.landscape:
        fill_landscape(upstream, asked.landscape)
    for each in asked.file:
        name, _, size = each.partition("=")
        project, _, filename = name.partition("/")
        upstream.add_file(project, filename, data_of(int(size)))
    for each in asked.wheel:
        project, _, size = each.partition("=")
        made = wheel(project, size=int(size or 0))
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata)
    for folder in asked.folder:
        for file in sorted(folder.iterdir()):
            upstream.add_file(file.name.split("-")[0], file.name, file.read_bytes())
    sys.stdout.write(json.dumps({"port": upstream.port, "url": upstream.url}) + "\n")
    sys.stdout.flush()
    reactor: Any = default_reactor
    reactor.run()
    return 0
