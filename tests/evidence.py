"""What tests of evidence about upstreams share: projects to be installed, clients that pester, and ways to be broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import urljoin

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from tests.inprocess import JSON, Running, upstream_settings
from tests.support.addresses import Addresses
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

Serve = Callable[..., Awaitable[Running]]
Make = Callable[..., FakeUpstream]
Names = dict[str, list[str]]
MakeAddresses = Callable[..., Awaitable[Addresses[FakeUpstream]]]

#: Clients that keep asking for what is broken.
PESTERING = 3
SIZE = 20_000

BROKEN = {
    "500": Fault(status=500),
    "502": Fault(status=502),
    "503": Fault(status=503),
    "503 and a long pause": Fault(status=503, headers={"Retry-After": "300"}),
    "429 and a long pause": Fault(status=429, headers={"Retry-After": "300"}),
    "429": Fault(status=429),
    "another page": Fault(body=b"<html><form>sign in</form></html>", headers={"Content-Type": "text/html"}),
    "JSON that is none": Fault(body=b'{"files": ', headers={"Content-Type": JSON}),
    "unknown type": Fault(body=b"\x89PNG", headers={"Content-Type": "image/png"}),
    "bad gzip": Fault(headers={"Content-Encoding": "gzip"}),
    "unasked 304": Fault(status=304),
    "dropped": Fault(drop=True),
    "reset": Fault(reset=True),
    "cut off": Fault(cut_after=20),
    "no HTTP": Fault(garbage=b"220 mail.example ESMTP\r\n"),
    "redirected in a circle": Fault(redirect="/simple/circle/"),
    "redirected to where nobody is": Fault(redirect="http://dead.example:9/simple/bad/"),
    "redirected to nowhere": Fault(redirect="http://nowhere.example/simple/bad/"),
}


def fill(upstream: FakeUpstream, *projects: str, **keys: Any) -> None:
    """Have a wheel of each of *projects*, with metadata beside it."""
    for project in projects:
        made = wheel(project, size=SIZE)
        upstream.add_file(project, made.filename, made.data, metadata=made.metadata, **keys)


def filename(project: str) -> str:
    return f"{project}-1.0-py3-none-any.whl"


async def harm(proxy: Running, project: str) -> list[str]:
    """What goes wrong with an install of *project*: its page, its metadata, its file, each asked for once."""
    page = await proxy.get(f"/simple/{project}/", Accept=JSON)
    if page.status != 200:
        return [f"{project}: {page.status} {page.reason}"]
    link = urljoin(f"/simple/{project}/", page.json["files"][0]["url"])
    made = wheel(project, size=SIZE)
    wrong = []
    for path, data in ((f"{link}.metadata", made.metadata), (link, made.data)):
        reply = await proxy.get(path)
        if reply.status != 200 or reply.body != data:
            wrong.append(f"{path.rpartition('/')[2]}: {reply.status} {reply.reason}, {len(reply.body)} of {len(data)} bytes")
    return wrong


async def pester(proxy: Running, path: str) -> None:
    """Three clients ask for *path* one after the other: requests at the same moment would be one to upstream."""
    for _ in range(PESTERING):
        await proxy.get(path)


async def at_once(asked: Iterable[Coroutine[Any, Any, Any] | Deferred[Any]]) -> list[Any]:
    found: list[Any] = await gatherResults([ensureDeferred(each) for each in asked])
    return found


def quick(url: str, name: str = "up") -> Any:
    return upstream_settings(url, name, connect_timeout=1.0, first_byte_timeout=0.5, body_idle_timeout=0.5)
