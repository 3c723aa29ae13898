"""An upstream that fails in many ways, and a crowd of clients that install through the proxy all the while.

``python -m bench.soak [--seconds 60]`` starts the upstream and the proxy as processes.  Some projects are healthy: one in five
of their answers fails at random, never twice in a row for one URL, so that clients which ask again get what they want.
The others are not: pages, files and metadata that fail always, and files on hosts that refuse connections or have no address;
for these somebody asks every 200 ms.  The upstream's two names, of the index and of the file host, have four addresses each,
and one of them is dead, or what ``--sick`` says.

A client reads a page, then the metadata and the bytes of every file on it, and checks the digests.  Half of the projects are
cold, the others were installed before.  Like pip it asks again, up to five times, after a 500 or 503, a connection that
ends, or a body that is cut off, and sleeps for as long as ``Retry-After`` says.  It prints, in the end, how many installs
of healthy projects failed (none may: that is the exit status), what answers took, and what was asked of upstream.

``--mirrors 2`` has a second upstream with the same projects; random 429s and 503s then ask for pauses of five minutes, which
without another mirror no client would outlast.  ``--direct`` leaves the proxy out, to see how clients fare without.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from bench.process import Pinned, cores
from bench.upstream import ROOT
from tests.support.addresses import SICK
from tests.support.hosts import Hosts, written

_JSON = "application/vnd.pypi.simple.v1+json"
#: Seconds without a byte after which a client gives up, and how often it asks, as pip does.
_PATIENCE = 15.0
_TRIES = 6
_AGAIN = (500, 502, 503, 520, 527)
_AGAIN_IF_TOLD_WHEN = (413, 429, 503)

_PROJECTS = 3000
_SIZE = 20_000
#: Seconds between two installs of a client, and between two requests for what is broken.
_PAUSE = (0.2, 0.8)
_PESTERING = 0.2
#: Seconds after time is up for which installs go on that had begun; then they have failed.
_GRACE = 30.0

_ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
#: Hosts that pages link to: one where nobody listens, and one that has no address.
_DEAD, _NOWHERE = "dead.example", "nowhere.example"

#: What fails always: the project, which of its paths, and how many clients go on asking for it.
_BROKEN = (
    ("broken-page", "/simple/broken-page/", 3),
    ("broken-file", "/packages/*/broken_file-1.0-py3-none-any.whl", 1),
    ("broken-metadata", "/packages/*/broken_metadata-1.0-py3-none-any.whl.metadata", 1),
)
_ELSEWHERE = (("on-a-dead-host", f"{_DEAD}:9", 1), ("on-no-host", _NOWHERE, 1))


class Got(Struct, frozen=True):
    """A response that is whole."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes


class Crowd:
    """Clients that install from *index*, and others that ask for what is broken, until time is up."""

    def __init__(self, index: str, seconds: float) -> None:
        self._index = index
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._fresh = iter(range(_PROJECTS))
        self._known: list[str] = []
        self.counts: Counter[str] = Counter()
        #: What ``Retry-After`` said, and how often.
        self.pauses: Counter[str] = Counter()
        #: Seconds, by what took them.
        self.took: dict[str, list[float]] = {"request": [], "cold install": [], "warm install": []}
        self.failures: list[str] = []

    def run(self, clients: int) -> None:
        """Return when all clients have ended."""
        threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]
        for project, _, count in (*_BROKEN, *_ELSEWHERE):
            threads += [threading.Thread(target=self._pester, args=(project,), daemon=True) for _ in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    # -- those who install ----------------------------------------------------------------------------------------------------

    def _client(self, number: int) -> None:
        rng = random.Random(number)  # noqa: S311  # nobody has to guess it
        while time.monotonic() < self._until:
            project, kind = self._choose(rng)
            began = time.monotonic()
            try:
                self._install(project)
            except (OSError, ValueError) as error:
                with self._lock:
                    self.failures.append(f"{project} ({kind}, after {time.monotonic() - began:.1f} s): {error}")
            else:
                with self._lock:
                    self._known.append(project)
            self._note(kind, time.monotonic() - began)
            time.sleep(rng.uniform(*_PAUSE))

    def _choose(self, rng: random.Random) -> tuple[str, str]:
        with self._lock:
            fresh = next(self._fresh, None) if rng.random() < 0.5 or not self._known else None
            if fresh is not None:
                return f"p{fresh}", "cold install"
            return rng.choice(self._known), "warm install"

    def _install(self, project: str) -> None:
        """Raises OSError when that is not possible, ValueError when the page is none."""
        url = f"{self._index}{project}/"
        page = json.loads(self._fetch(url, None))
        for file in page["files"]:
            link = urljoin(url, file["url"])
            self._fetch(f"{link}.metadata", file["core-metadata"]["sha256"])
            self._fetch(link, file["hashes"]["sha256"])

    def _fetch(self, url: str, sha256: str | None) -> bytes:
        """The body at *url*.  Raises OSError when it cannot be had, or is not what *sha256* says."""
        reason = ""
        for number in range(_TRIES):
            if number:
                self._count("asked again")
            pause = 0.25 * 2**number if number else 0.0
            try:
                got = self._get(url)
            except (OSError, http.client.HTTPException) as error:
                reason = repr(error)
            else:
                reason = f"{got.status} {got.reason}"
                if got.status == 200:
                    if sha256 is not None and hashlib.sha256(got.body).hexdigest() != sha256:
                        raise OSError(f"{url}: wrong bytes that looked complete")
                    return got.body
                told_when = got.status in _AGAIN_IF_TOLD_WHEN and got.retry_after is not None
                if got.status not in _AGAIN and not told_when:
                    break
                if told_when:
                    pause = float(got.retry_after or 0)
            left = self._until + _GRACE - time.monotonic()
            if pause > left:
                raise OSError(f"{url}: {reason}, and then the soak ended while a pause of {pause:.0f} s was kept")
            time.sleep(pause)
        raise OSError(f"{url}: {reason}")

    # -- those who ask for what is broken -------------------------------------------------------------------------------------

    def _pester(self, project: str) -> None:
        """Ask for the page of *project* and what it links to every 200 ms, whatever comes of it."""
        url = f"{self._index}{project}/"
        while time.monotonic() < self._until:
            self._count(f"asked for what is broken: {project}")
            with suppress(OSError, http.client.HTTPException, ValueError):
                got = self._get(url)
                for file in json.loads(got.body)["files"] if got.status == 200 else ():
                    link = urljoin(url, file["url"])
                    self._get(f"{link}.metadata" if project == "broken-metadata" else link)
            time.sleep(_PESTERING)

    # -- requests -------------------------------------------------------------------------------------------------------------

    def _get(self, url: str) -> Got:
        """The response.  Raises what http.client does when there is none, or its body is cut off."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=_PATIENCE)
        began = time.monotonic()
        self._count("client requests")
        try:
            connection.request("GET", parts.path, headers={"Accept": _JSON})
            response = connection.getresponse()
            got = Got(response.status, response.reason, response.headers["Retry-After"], response.read())
        finally:
            connection.close()
            self._note("request", time.monotonic() - began)
        if got.retry_after is not None:
            with self._lock:
                self.pauses[got.retry_after] += 1
        return got

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _note(self, what: str, seconds: float) -> None:
        with self._lock:
            self.took[what].append(seconds)


class Mirror:
    """The fake upstream as a process on *core*; *number* is which of several it is."""

    def __init__(self, number: int, core: int, place: Path, sick: str, fail: float, long_pauses: bool) -> None:
        self.index, self.files = f"index-{number}.example", f"files-{number}.example"
        addresses = [f"--address={each}" for each in _ADDRESSES[:-1]] + [f"--address={_ADDRESSES[-1]}={sick}"]
        options = [f"--host={self.index}", f"--file-host={self.files}", "--max-age=2", f"--fail={fail}", f"--seed={number}"]
        options += ["--long-pauses"] if long_pauses else []
        options += [f"--broken={glob}" for _, glob, _ in _BROKEN]
        content = [f"--wheels={_PROJECTS}={_SIZE}", *(f"--wheel={project}" for project, *_ in _BROKEN)]
        content += [f"--elsewhere={project}={host}" for project, host, _ in _ELSEWHERE]
        command = [sys.executable, "-m", "tests.support.fake_upstream", *addresses, *options, *content]
        self.process = Pinned(command, core, place / f"mirror-{number}.log", place, _environment(place))

    def started(self) -> Mirror:
        """Wait until it listens."""
        self.process.until(lambda: self.process.said().endswith("}\n"))
        self._port = json.loads(self.process.said().splitlines()[-1])["port"]
        return self

    @property
    def url(self) -> str:
        return f"http://{self.index}:{self._port}/simple/"

    def asked(self) -> dict[str, Any]:
        """What it counted."""
        with urllib.request.urlopen(f"http://{_ADDRESSES[0]}:{self._port}/-/asked") as response:
            return dict(json.loads(response.read()))


def _environment(place: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(place), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _proxy(core: int, place: Path, names: dict[str, list[str]], urls: Sequence[str]) -> tuple[Pinned, str]:
    """The proxy as a process on *core*, and the URL of its index."""
    options = ["--listen", "tcp:0:interface=127.0.0.1", "--data-dir", str(place / "data")]
    options += [option for url in urls for option in ("--upstream", url)]
    command = [sys.executable, "-m", "tests.support.hosts", *written(names), "--", "-n", "--pidfile=", "pypiproxy"]
    proxy = Pinned([*command, *options], core, place / "proxy.log", place, _environment(place))
    proxy.until(lambda: "serving on http://" in proxy.said())
    port = int(proxy.said().split("serving on http://127.0.0.1:")[1].split("/")[0])
    return proxy, f"http://127.0.0.1:{port}/simple/"


def soak(asked: argparse.Namespace) -> int:
    """Run it; the exit status."""
    load_core, server_core = cores()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pypiproxy-soak-")))
        mirrors = [
            Mirror(number, load_core, place, asked.sick, asked.fail, asked.mirrors > 1) for number in range(asked.mirrors)
        ]
        for mirror in mirrors:
            stack.callback(mirror.process.stop)
        for mirror in mirrors:
            mirror.started()
        # Where nobody listens on any port that pages name.
        names = {_DEAD: ["127.0.0.5"], _NOWHERE: []}
        names |= {name: list(_ADDRESSES) for mirror in mirrors for name in (mirror.index, mirror.files)}
        if asked.direct:
            Hosts(names, turning=True).install()
            index = mirrors[0].url
        else:
            proxy, index = _proxy(server_core, place, names, [mirror.url for mirror in mirrors])
            stack.callback(proxy.stop)
        os.sched_setaffinity(0, {load_core})
        crowd = Crowd(index, asked.seconds)
        crowd.run(asked.clients)
        counted = [mirror.asked() for mirror in mirrors]
        if not asked.direct and asked.log is not None:
            asked.log.write_text(proxy.said(), "utf-8")
    _report(crowd, counted)
    return 1 if crowd.failures else 0


def _report(crowd: Crowd, counted: Sequence[dict[str, Any]]) -> None:
    for what, count in sorted(crowd.counts.items()):
        print(f"{what:48} {count:8,}")
    for what, seconds in crowd.took.items():
        ordered = sorted(seconds) or [float("nan")]
        p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
        print(f"{what:48} {len(seconds):8,}   p50 {p50:.3f} s, p99 {p99:.3f} s, slowest {ordered[-1]:.3f} s")
    said = ", ".join(f"{value}: {count:,}" for value, count in sorted(crowd.pauses.items())) or "never"
    print(f"{'Retry-After, seconds: times':48} {said}")
    for number, each in enumerate(counted):
        print(f"{f'requests to mirror {number}':48} {each['requests']:8,}")
        for address, count in each["by_address"].items():
            print(f"{f'  {address}':48} {count:8,}")
        for project, glob, _ in _BROKEN:
            count = sum(count for path, count in each["by_path"].items() if fnmatchcase(path, glob))
            print(f"{f'  for what is broken: {project}':48} {count:8,}")
    print(f"{'failed installs':48} {len(crowd.failures):8,}")
    for line in itertools.islice(crowd.failures, 10):
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument(
        "--fail", type=float, default=0.2, help="share of the upstream's answers that fail, 0 to 1 (%(default)s)"
    )
    parser.add_argument("--sick", choices=SICK, default="dead", help="what is wrong with one of four addresses (%(default)s)")
    parser.add_argument("--mirrors", type=int, default=1, help="upstreams with the same projects (%(default)s)")
    parser.add_argument("--direct", action="store_true", help="without the proxy")
    parser.add_argument("--log", type=Path, help="where to write what the proxy logged")
    # Ended like this, it ends the processes that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return soak(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
