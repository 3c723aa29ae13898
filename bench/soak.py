"""Two mirrors that each fail at random, and a crowd of clients that install through the proxy all the while.

``python -m bench.soak [--seconds 60]`` starts the mirrors and the proxy as processes and prints, in the end, how many installs
failed (none may) and how many requests went to the mirrors for those of the clients.  A client reads a page, then every file on
it, and checks the digest; like pip it asks again, up to five times, after a 503 or a body that is cut off.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bench.process import ORIGINAL, Pinned
from bench.upstream import ROOT

_JSON = "application/vnd.pypi.simple.v1+json"
_TRIES = 6
_PROJECTS = 400
_SIZE = 100_000


class Crowd:
    """Clients that install until time is up; *index* is the proxy's."""

    def __init__(self, index: str, seconds: float) -> None:
        self._index = index
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self, clients: int) -> None:
        """Return when all clients have ended."""
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _client(self, number: int) -> None:
        rng = random.Random(number)  # noqa: S311  # nobody has to guess it
        while time.monotonic() < self._until:
            project = f"p{rng.randrange(_PROJECTS)}"
            try:
                self._install(project)
            except OSError as error:
                with self._lock:
                    self.failures.append(f"{project}: {error}")
            self._count("installs")

    def _install(self, project: str) -> None:
        url = f"{self._index}{project}/"
        page = json.loads(self._fetch(url, None))
        for file in page["files"]:
            self._fetch(urljoin(url, file["url"]), file["hashes"]["sha256"])

    def _fetch(self, url: str, sha256: str | None) -> bytes:
        """The body at *url*.  Raises OSError when it cannot be had, or is not what *sha256* says."""
        reason = ""
        for number in range(_TRIES):
            if number:
                time.sleep(0.25 * 2 ** (number - 1))
                self._count("asked again")
            self._count("client requests")
            try:
                status, reason, body = _get(url)
            except (OSError, http.client.HTTPException) as error:
                reason = repr(error)
                continue
            if status == 200:
                if sha256 is not None and hashlib.sha256(body).hexdigest() != sha256:
                    raise OSError(f"{url}: wrong bytes that looked complete")
                return body
            if status != 503:
                break
        raise OSError(f"{url}: {reason}")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def _get(url: str) -> tuple[int, str, bytes]:
    """Status, reason phrase and body.  Raises what http.client does when the body is cut off."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=15)
    try:
        connection.request("GET", parts.path, headers={"Accept": _JSON})
        response = connection.getresponse()
        return response.status, response.reason, response.read()
    finally:
        connection.close()


def soak(seconds: float, clients: int, fail: float) -> int:
    """Run it; the exit status."""
    core = min(ORIGINAL)
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        started: list[Pinned] = []
        try:
            bases = []
            for number in range(2):
                wheels = [f"--wheel=p{each}={_SIZE}" for each in range(_PROJECTS)]
                options = ["--standalone", f"--fail={fail}", f"--seed={number}", "--max-age=2"]
                command = [sys.executable, "-m", "tests.support.fake_upstream", *options, *wheels]
                mirror = Pinned(command, core, place / f"mirror-{number}.log", place, environment)
                started.append(mirror)
                mirror.until(lambda mirror=mirror: mirror.said().endswith("}\n"))  # type: ignore[misc]  # a default binds it
                bases.append(f"http://127.0.0.1:{json.loads(mirror.said().splitlines()[-1])['port']}")
            upstreams = [option for base in bases for option in ("--upstream", f"{base}/simple/")]
            twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "pypiproxy"]
            listen = ["--listen", "tcp:0:interface=127.0.0.1", "--data-dir", str(place / "data")]
            proxy = Pinned([*twistd, *listen, *upstreams], max(ORIGINAL), place / "proxy.log", place, environment)
            started.append(proxy)
            proxy.until(lambda: "serving on http://" in proxy.said())
            port = int(proxy.said().split("serving on http://127.0.0.1:")[1].split("/")[0])
            crowd = Crowd(f"http://127.0.0.1:{port}/simple/", seconds)
            crowd.run(clients)
            asked = [json.loads(urllib.request.urlopen(f"{base}/-/asked").read())["requests"] for base in bases]
        finally:
            for process in reversed(started):
                process.stop()
    for what, count in sorted(crowd.counts.items()):
        print(f"{what:16} {count:8,}")
    print(f"{'mirror requests':16} {sum(asked):8,}  ({' + '.join(f'{each:,}' for each in asked)})")
    print(f"{'failed installs':16} {len(crowd.failures):8,}")
    for each in crowd.failures[:10]:
        print(f"  {each}")
    return 1 if crowd.failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--fail", type=float, default=0.2, help="share of the mirrors' answers that fail, 0 to 1")
    asked = parser.parse_args()
    return soak(asked.seconds, asked.clients, asked.fail)


if __name__ == "__main__":
    sys.exit(main())
