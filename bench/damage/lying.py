"""An upstream that misbehaves: which answer goes wrong, and how, depends on the seed, the URL, and how often it was asked.

Faults are only such as leave a sign that something is wrong: a digest, a size, the framing, the coding, or the form of the file
that does not hold.  Where upstream states nothing and sends another file in good order, it has changed its mind and is right.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random
from urllib.parse import unquote

from msgspec import Struct

from bench.damage.journal import WORLD, Journal
from bench.damage.truth import TrueFile, World
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Answer, Fault, Request
from tests.support.wheels import seeded

_SIGN_IN = (
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form action=/login>Name <input></form></body></html>"
)
_CODINGS = ("aws-chunked", "binary", "none", "br", "gzip, gzip")
_HTML = {"Content-Type": "text/html; charset=utf-8"}

#: What upstream may be asked for, apart from files: pages and documents of well-formed names, the list, a mirror's age.
_ASKED = re.compile(
    r"/simple/(?:[a-z0-9]+(?:-[a-z0-9]+)*/)?|/pypi/[a-z0-9]+(?:-[a-z0-9]+)*/(?:[a-z0-9.+!-]+/)?json|/last-modified"
)


def _bomb(size: int) -> bytes:
    """*size* zeros, compressed to a thousandth."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1_000_000)
    return b"".join([*(packer.compress(zeros) for _ in range(size // len(zeros))), packer.flush()])


class Subject(Struct, frozen=True):
    """What a request is for: a file or its METADATA, a page (of a project in HTML or not), or another document."""

    kind: str
    name: str
    file: TrueFile | None = None
    html: bool = False


class LyingUpstream(FakeUpstream):
    """A mirror of *world*, to be `begin`-ned with it.  ``share`` is the part of its answers that go wrong."""

    def begin(self, name: str, seed: int, world: World, journal: Journal, *, bomb: int, endless: int) -> None:
        """*bomb* and *endless*: bytes of a page that is compressed, and of headers that do not end."""
        self.share = 0.0
        self._called = name
        self._seed = seed
        self._world = world
        self._journal = journal
        self._times: Counter[str] = Counter()
        self._bomb = _bomb(bomb)
        self._endless = b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * (endless // 18)
        #: The round in which a subject was last lied about.
        self.lied: dict[str, int] = {}

    def arrive(self, request: Request) -> None:
        super().arrive(request)
        path = unquote(request.path)
        if path not in self._world.by_path and not _ASKED.fullmatch(request.path):
            self._journal.violated("door", WORLD, f"upstream {self._called} was asked for {request.method} {request.path}")

    def answer(self, request: Request) -> Answer:
        subject = self._subject(request)
        if subject.kind == "page" and subject.html:
            request = Request(request.method, request.path, {**request.headers, "accept": "text/html"})
        return super().answer(request)

    def fault_for(self, request: Request) -> Fault:
        scripted = super().fault_for(request)
        if scripted != Fault() or self.share == 0.0:
            return scripted
        which = f"{request.method} {request.path}"
        self._times[which] += 1
        rng = seeded(f"{self._seed} {self._called} {which} {self._times[which]}")
        if rng.random() >= self.share:
            return Fault()
        subject = self._subject(request)
        name, fault = self._choose(rng, request, subject)
        self._journal.faults[f"{subject.kind}: {name}"] += 1
        ranged = f" {request.headers['range']}" if "range" in request.headers else ""
        self._journal.note(subject.name, f"upstream {self._called} {request.method} {subject.kind}{ranged}: {name}")
        self.lied[subject.name] = self._journal.round
        if fault.status in (404, 410):
            self._world.denied.add(subject.name)
        if fault.status == 403:
            self._world.forbidden[subject.name] = self._journal.round
        return fault

    def _subject(self, request: Request) -> Subject:
        path = unquote(request.path.partition("?")[0])
        file = self._world.by_path.get(path)
        if file is not None:
            return Subject("metadata" if path.endswith(".metadata") else "file", file.subject, file)
        parts = path.split("/")
        if parts[1] == "simple" and len(parts) > 3:
            project = self._world.project_of(parts[2])
            return Subject("page", f"page of {parts[2]}", html=project is not None and project.html)
        return Subject("document", path)

    def _choose(self, rng: Random, request: Request, subject: Subject) -> tuple[str, Fault]:
        body = bytes(super().answer(Request("GET", request.path, {"accept": request.headers.get("accept", "")})).body)
        menu = {**self._anywhere(rng, len(body)), **self._codings(body, rng)}
        if subject.kind == "file":
            assert subject.file is not None
            menu |= self._of_files(rng, subject.file, body, request)
        elif subject.kind == "metadata":
            menu |= {"404": lambda: Fault(status=404), "401": lambda: Fault(status=401)}
        else:
            menu |= {"bomb": lambda: Fault(body=self._bomb, headers={"Content-Encoding": "gzip"})}
        if subject.kind == "page":
            menu["304 unasked"] = lambda: Fault(status=304)
            if subject.name in self._vanishing():
                menu |= {f"404 ({number})": lambda: Fault(status=404) for number in range(6)}
            if not subject.html:
                menu["length too short"] = lambda: Fault(content_length=rng.randrange(len(body)), close=True)
        name = rng.choice(sorted(menu))
        return name, menu[name]()

    def _vanishing(self) -> set[str]:
        return {f"page of {each.name}" for each in self._world.projects.values() if each.kind == "vanishing"}

    def _anywhere(self, rng: Random, size: int) -> dict[str, Callable[[], Fault]]:
        """What can go wrong with any answer of *size* bytes."""
        place = rng.randrange(max(1, size))
        return {
            "cut": lambda: Fault(cut_after=place),
            "reset": lambda: Fault(reset_after=place),
            "chunked and cut": lambda: Fault(chunked=True, cut_after=place),
            "without length and cut": lambda: Fault(no_content_length=True, cut_after=place),
            "stall": lambda: Fault(stall_after=place),
            "silence": lambda: Fault(silent=True),
            "dropped": lambda: Fault(drop=True),
            "no HTTP": lambda: Fault(garbage=b"220 mail.example ESMTP\r\n"),
            "endless headers": lambda: Fault(garbage=self._endless),
            "refused": lambda: Fault(status=rng.choice([401, 403, 500, 502, 503])),
            "429": lambda: Fault(status=429, headers={"Retry-After": "1"}),
            "sign-in page": lambda: Fault(body=_SIGN_IN, headers=_HTML),
            "empty": lambda: Fault(body=b""),
            "length 0": lambda: Fault(content_length=0, close=True),
            "length too large": lambda: Fault(content_length=size + rng.randrange(1, 5_000), close=True),
            "redirect loop": lambda: Fault(redirect="/simple/"),
        }

    def _codings(self, body: bytes, rng: Random) -> dict[str, Callable[[], Fault]]:
        """Content codings that are not what they say, and some that are."""
        return {
            "odd coding": lambda: Fault(headers={"Content-Encoding": rng.choice(_CODINGS)}),
            "plain called gzip": lambda: Fault(headers={"Content-Encoding": "gzip"}),
            "gzip": lambda: Fault(gzip=True),
            "gzip twice": lambda: Fault(
                body=gzip.compress(gzip.compress(body, 1), 1), headers={"Content-Encoding": "gzip, gzip"}
            ),
            "gzip cut": lambda: Fault(
                body=gzip.compress(body, 1)[: rng.randrange(1, 20 + len(body) // 2)], headers={"Content-Encoding": "gzip"}
            ),
        }

    def _of_files(self, rng: Random, file: TrueFile, body: bytes, request: Request) -> dict[str, Callable[[], Fault]]:
        place = rng.randrange(len(body))
        more = rng.randbytes(rng.choice([1, 100, 20_000]))
        menu: dict[str, Callable[[], Fault]] = {
            "404": lambda: Fault(status=404),
            "range ignored": lambda: Fault(ignore_range=True),
            "range ignored again": lambda: Fault(ignore_range=True),
            "another ETag": lambda: Fault(headers={"ETag": '"another"'}),
            "trickle": lambda: Fault(trickle=(max(1, len(body) // 5), 0.02)),
        }
        if "range" in request.headers:
            first = rng.randrange(len(body))
            menu["another range"] = lambda: Fault(headers={"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"})
        if file.algorithm is not None or file.sized:
            menu |= {
                "length too short": lambda: Fault(content_length=place, close=True),
                "too long": lambda: Fault(body=body + more),
                "too long, without length": lambda: Fault(body=body + more, no_content_length=True),
            }
        if file.algorithm is not None:
            other = rng.choice([each for each in self._world.files if each is not file])
            menu |= {
                "wrong byte": lambda: Fault(corrupt_at=place),
                "wrong last byte": lambda: Fault(corrupt_at=-1),
                "another file": lambda: Fault(body=other.latest.data),
                "bomb": lambda: Fault(body=self._bomb, headers={"Content-Encoding": "gzip"}),
            }
        return menu
