"""Clients that ask for anything in any way: well-behaved ones, ones that leave, hostile ones, and operators."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from bench.damage.journal import WORLD, Journal
from bench.damage.truth import TrueFile, TrueProject, Version, World
from bench.damage.verdicts import Verdicts
from proxy.host.adminaddress import address
from tests.support import wire
from tests.support.content import HTML_TYPE, JSON_TYPE

reactor: Any = default_reactor

#: Seconds in which an answer must have ended: what the proxy allows itself, and then some for a machine that is busy.
PATIENCE = 45.0

#: The media types and codings that clients ask for.
_ACCEPTS = (
    JSON_TYPE,
    HTML_TYPE,
    "text/html",
    f"{JSON_TYPE}, {HTML_TYPE};q=0.1, text/html;q=0.01",
    "*/*",
)
_CODINGS = ("identity", "gzip", "gzip, deflate", "zstd, gzip")

#: Requests that nobody should send.  Each must be answered or refused soon, and do nothing else.
_HOSTILE: tuple[tuple[str, bytes], ...] = (
    ("bare LF", b"GET /simple/p0/ HTTP/1.1\nHost: proxy.example\n\n"),
    ("bare LF in a field", b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nX: a\nY: b\r\n\r\n"),
    ("bare CR in a field", b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nX: a\rb\r\n\r\n"),
    ("NUL in a field", b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nX: a\0b\r\n\r\n"),
    ("long Via", b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nVia: " + b"1" * 15_000 + b"\r\n\r\n"),
    ("odd Via", b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nVia: 1.1 a (" + b"(" * 5_000 + b"\r\n\r\n"),
    ("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(range(190))),
    ("long number in Range", b"GET /simple/ HTTP/1.1\r\nHost: proxy.example\r\nRange: bytes=" + b"9" * 5_000 + b"-\r\n\r\n"),
    (
        "long Content-Length",
        b"GET /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    ),
    ("two lengths", b"GET /simple/p0/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
    ("POST", b"POST /simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nContent-Length: 5\r\n\r\nhello"),
    ("no HTTP", b"\r\n\r\nSSH-2.0-probe\r\n\r\n"),
    ("escapes", b"GET /pypi/p0/..%2F..%2Fapi%2Fsecret%23/json HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n"),
    ("climbing", b"GET /files/..%2F..%2Frecords/none/cache.db HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n"),
    ("long name", b"GET /simple/" + b"a" * 5_000 + b"/ HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n"),
    (
        "long query",
        b"GET /simple/p0/?format=" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n",
    ),
    ("absolute form", b"GET http://proxy.example/simple/p0/ HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n\r\n"),
    (
        "smuggled",
        b"GET /simple/p0/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
)
#: What of these are requests in good order: all others must not be answered with success.
_HARMLESS = ("long Via", "odd Via", "long number in Range", "long query", "absolute form")


class Crowd:
    """Whoever asks the proxy at *port*; *admin* is its data directory as seen from here."""

    def __init__(self, world: World, journal: Journal, verdicts: Verdicts) -> None:
        self.port = 0
        self.data_dir = Path()
        #: Whether operators may ask now.
        self.has_operators = True
        self._world = world
        self._journal = journal
        self._verdicts = verdicts
        #: Recent ETags of pages, to ask conditionally with.
        self._etags: dict[str, list[str]] = {}
        self._operations: list[tuple[int, Callable[[Random], Awaitable[None]]]] = [
            (22, self._file),
            (18, self._page),
            (12, self._range),
            (10, self._metadata),
            (8, self._head),
            (6, self._again),
            (6, self._resume),
            (6, self._aborted),
            (4, self._slow),
            (4, self._legacy),
            (3, self._names),
            (3, self._hostile),
            (2, self._wrong_digest),
            (2, self._operator),
        ]

    async def act(self, rng: Random) -> None:
        """Do one thing, as *rng* chooses."""
        weights = [weight for weight, _ in self._operations]
        (_, operation), *_ = rng.choices(self._operations, weights)
        try:
            await operation(rng)
        except ConnectError:
            self._journal.events["connections refused"] += 1
        except (EOFError, DeferredTimeout):
            self._journal.events["answers cut off"] += 1

    # -- asking ---------------------------------------------------------------------------------------------------------------

    async def ask(self, subject: str, path: str, method: str = "GET", **headers: str) -> wire.Reply:
        """The answer to one request on a connection of its own; an empty one when none came."""
        lines = [f"{method} {path} HTTP/1.1", "Host: proxy.example", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        raw = await self._exchange(subject, f"{method} {path[-70:]}", "\r\n".join([*lines, "", ""]).encode())
        return wire.parse(raw, head=method == "HEAD")

    async def _exchange(self, subject: str, asked: str, request: bytes) -> bytes:
        """All that comes back for *request* until the connection ends."""
        client = await wire.connect(self.port)
        client.transport.write(request)
        try:
            await client.until(lambda: client.reason is not None, PATIENCE)
        except DeferredTimeout:
            self._journal.violated("hang", subject, f"{asked}: nothing came to an end within {PATIENCE:g} s")
        await client.close()
        return bytes(client.received)

    def _any(self, rng: Random) -> tuple[TrueFile, Version]:
        """A file that is or was on a page; often one of the few that everybody asks for."""
        projects = list(self._world.projects.values())
        project = rng.choice(projects[:6] if rng.random() < 0.4 else projects)
        file = rng.choice(list(project.files.values()))
        version = file.latest if rng.random() < 0.8 else rng.choice(file.versions)
        return file, version

    def _purges(self, project: str) -> int:
        return self._world.purges.get(project, 0)

    # -- well-behaved ---------------------------------------------------------------------------------------------------------

    async def _file(self, rng: Random) -> None:
        file, version = self._any(rng)
        root = rng.choice(["/files/", "/files/", "/packages/", "/index/main/files/"])
        await self.whole(file, version, root, f'"{file.segment(version)}"' if rng.random() < 0.1 else "")

    async def whole(self, file: TrueFile, version: Version, root: str = "/files/", etag: str = "") -> wire.Reply:
        """Ask for all of *file*, conditionally if there is an *etag*."""
        path = file.url(version, root=root)
        purges = self._purges(file.project)
        headers = {"If_None_Match": etag} if etag else {}
        reply = await self.ask(file.subject, path, **headers)
        self._verdicts.file(file, version, f"GET {_short(path)}", reply, purges, etag)
        return reply

    async def _again(self, rng: Random) -> None:
        """Requests that are the same to the last byte, on one connection: what answers from memory is for these."""
        file, version = self._any(rng)
        project = self._world.projects[file.project]
        client = await wire.connect(self.port)
        try:
            for _ in range(rng.randrange(2, 5)):
                purges = self._purges(file.project)
                if len(version.data) < 100_000 and rng.random() < 0.6:
                    client.ask(file.url(version))
                    reply = await client.reply()
                    self._verdicts.file(file, version, f"GET again {_short(file.url(version))}", reply, purges)
                else:
                    client.ask(f"/simple/{project.name}/", Accept=JSON_TYPE, Accept_Encoding="gzip")
                    reply = await client.reply()
                    self._verdicts.page(project, f"GET again /simple/{project.name}/ json gzip", reply, purges)
                if not reply.complete or reply.headers.get("connection", "").lower() == "close":
                    break
        finally:
            await client.close()

    async def head(self, file: TrueFile, version: Version) -> wire.Reply:
        """Ask for the head of *file*."""
        path = file.url(version)
        reply = await self.ask(file.subject, path, "HEAD")
        self._verdicts.head(file, version, f"HEAD {_short(path)}", reply)
        return reply

    async def _head(self, rng: Random) -> None:
        await self.head(*self._any(rng))

    async def part(self, file: TrueFile, version: Version, span: tuple[int | None, int | None], **headers: str) -> wire.Reply:
        """Ask for the bytes *span* of *file*; see `Verdicts.range`."""
        first, last = span
        asked = f"bytes={'' if first is None else first}-{'' if last is None else last}"
        path = file.url(version)
        reply = await self.ask(file.subject, path, Range=asked, **headers)
        self._verdicts.range(file, version, f"GET {_short(path)} {asked} {headers or ''}", reply, span)
        return reply

    async def _range(self, rng: Random) -> None:
        file, version = self._any(rng)
        size = len(version.data)
        first = rng.randrange(size)
        spans: list[tuple[int | None, int | None]] = [
            (first, min(size - 1, first + rng.randrange(1, 40_000))),
            (None, rng.randrange(1, 40_000)),
            (0, rng.randrange(size)),
            (first, size + 5),
            (size, None),
            (size + rng.randrange(10_000), None),
        ]
        await self.part(file, version, rng.choices(spans, [4, 4, 2, 1, 1, 1])[0])

    async def _resume(self, rng: Random) -> None:
        """Go on with a download, as long as it is the same file."""
        file, version = self._any(rng)
        etag = rng.choice([f'"{file.segment(version)}"', f'"{version.sha256}"', '"of another file"'])
        await self.part(file, version, (rng.randrange(len(version.data)), None), If_Range=etag)

    async def metadata(self, file: TrueFile, version: Version) -> wire.Reply:
        """Ask for the METADATA of *file*."""
        path = file.url(version, companion=".metadata")
        reply = await self.ask(file.subject, path)
        self._verdicts.metadata(file, version, f"GET {_short(path)}", reply)
        return reply

    async def _metadata(self, rng: Random) -> None:
        await self.metadata(*self._any(rng))

    async def page(self, project: TrueProject, accept: str, coding: str, etag: str = "") -> wire.Reply:
        """Ask for a project page."""
        path = f"/simple/{project.name}/"
        purges = self._purges(project.name)
        headers = {"Accept": accept, "Accept_Encoding": coding, **({"If_None_Match": etag} if etag else {})}
        reply = await self.ask(f"page of {project.name}", path, **headers)
        self._verdicts.page(project, f"GET {path} {accept[-24:]} {coding} {etag}", reply, purges, etag)
        if "etag" in reply.headers:
            known = self._etags.setdefault(project.name, [])
            known.append(reply.headers["etag"])
            del known[:-4]
        return reply

    async def _page(self, rng: Random) -> None:
        project = rng.choice(list(self._world.projects.values()))
        known = self._etags.get(project.name)
        etag = rng.choice(known) if known and rng.random() < 0.3 else ""
        await self.page(project, rng.choice(_ACCEPTS), rng.choice(_CODINGS), etag)

    async def legacy(self, project: TrueProject) -> wire.Reply:
        """Ask for the legacy JSON document of a project."""
        reply = await self.ask(f"/pypi/{project.name}/json", f"/pypi/{project.name}/json")
        self._verdicts.legacy(project, f"GET /pypi/{project.name}/json", reply)
        return reply

    async def _legacy(self, rng: Random) -> None:
        await self.legacy(rng.choice(list(self._world.projects.values())))

    async def names(self, accept: str = JSON_TYPE, coding: str = "identity") -> wire.Reply:
        """Ask for the list of all projects."""
        reply = await self.ask("/simple/", "/simple/", Accept=accept, Accept_Encoding=coding)
        self._verdicts.names(f"GET /simple/ {accept[-24:]} {coding}", reply)
        return reply

    async def _names(self, rng: Random) -> None:
        await self.names(rng.choice(_ACCEPTS[:3]), rng.choice(_CODINGS))

    # -- the others -----------------------------------------------------------------------------------------------------------

    async def _aborted(self, rng: Random) -> None:
        """Leave in the middle, or at once."""
        file, version = self._any(rng)
        client = await wire.ask(self.port, file.url(version))
        try:
            after = rng.choice([0, 0, 1, rng.randrange(len(version.data))])
            if after:
                await client.until(lambda: client.reason is not None or len(client.received) >= after, PATIENCE)
        finally:
            await client.close()
        self._journal.events["clients that left"] += 1
        self._journal.note(file.subject, f"a client left after {len(client.received):,} bytes")

    async def _slow(self, rng: Random) -> None:
        """Stop reading for a moment in the middle."""
        file, version = self._any(rng)
        path = file.url(version)
        purges = self._purges(file.project)
        client = await wire.ask(self.port, path)
        try:
            client.transport.pauseProducing()
            await deferLater(reactor, rng.random() / 2)
            client.transport.resumeProducing()
            await client.until(lambda: client.reason is not None, PATIENCE)
        finally:
            await client.close()
        self._verdicts.file(file, version, f"GET slowly {_short(path)}", wire.parse(bytes(client.received)), purges)

    async def _hostile(self, rng: Random) -> None:
        name, request = rng.choice(_HOSTILE)
        client = await wire.connect(self.port)
        try:
            client.transport.write(request)
            # Who means harm does not close: an answer, or an end, is all there is to wait for.
            await client.until(lambda: client.reason is not None or b"\r\n\r\n" in client.received, 20.0)
        except DeferredTimeout:
            self._journal.violated("hang", WORLD, f"{name}: neither an answer nor an end of the connection within 20 s")
        finally:
            await client.close()
        if not client.received.startswith(b"HTTP/"):
            self._journal.events["hostile clients hung up on"] += 1
            return
        reply = wire.parse(bytes(client.received), head=True)
        self._journal.answered("hostile", reply.status, "hostile", f"{name}: {reply.status}")
        fine = (400, 404, 405, 406, 413, 414, 431, 501, 503, *((200, 304) if name in _HARMLESS else ()))
        if reply.status not in fine:
            self._journal.violated("hostile", WORLD, f"{name}: answered {reply.status} {reply.reason[:80]}")

    async def _wrong_digest(self, rng: Random) -> None:
        """Ask for a file under a digest that it never had."""
        file, _ = self._any(rng)
        if file.algorithm is None:
            return
        digest = rng.choice([f"sha256-{rng.randbytes(32).hex()}", f"md5-{rng.randbytes(16).hex()}", "sha256-", "none-0"])
        path = f"/files/{file.project}/{digest}/{quote(file.filename)}"
        self._verdicts.refused(file, f"GET {path}", await self.ask(file.subject, path))

    # -- operators ------------------------------------------------------------------------------------------------------------

    async def _operator(self, rng: Random) -> None:
        if not self.has_operators:
            return
        file, _ = self._any(rng)
        operations: list[tuple[str, dict[str, Any]]] = [
            ("verify", {"repair": True}),
            ("verify", {}),
            ("purge", {"project": file.project}),
            ("purge", {"project": file.project, "which": file.filename}),
            ("refresh", {"project": file.project}),
            ("ls", {}),
            ("stats", {}),
        ]
        name, arguments = rng.choice(operations)
        await self.operate(name, **arguments)

    async def operate(self, name: str, **arguments: Any) -> Any:
        """What the operation *name* results in; ``None`` when it was refused, or the proxy is not there."""
        if name == "purge":
            self._world.unsettle(arguments["project"])
        body = json.dumps(arguments).encode()
        head = f"POST /{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            with address(self.data_dir) as path:
                client: wire.Client = await connectProtocol(UNIXClientEndpoint(reactor, path), wire.Client())
        except (ConnectError, OSError):
            self._journal.events["operators refused"] += 1
            return None
        try:
            client.transport.write(head.encode() + body)
            await client.until(lambda: client.reason is not None, 2 * PATIENCE)
        except DeferredTimeout:
            self._journal.violated("hang", WORLD, f"the operation {name} did not end within {2 * PATIENCE:g} s")
        finally:
            await client.close()
            if name == "purge":
                self._world.unsettle(arguments["project"])
        reply = wire.parse(bytes(client.received))
        last = reply.body.rpartition(b"\n")[0].rpartition(b"\n")[2]
        said = json.loads(last) if reply.complete and last else {}
        self._journal.note(WORLD, f"operator: {name} {arguments}: {str(said)[:70]}")
        if "result" in said or "error" in said:
            self._journal.answers[f"operator {name} {reply.status}"] += 1
        if reply.status == 500 or said.get("error", {}).get("code") == "internal-error":
            self._journal.violated("operator", WORLD, f"{name} {arguments}: {str(said)[:300]}")
        return said.get("result")


def _short(path: str) -> str:
    """*path* with its digest and a long name cut short."""
    root, project, digest, name = path.rsplit("/", 3)
    return f"{root}/{project}/{digest[:15]}/{name[:40]}{'…' + name[-9:] if len(name) > 40 else ''}"
