"""``kill -9`` at any instant of a download: no wrong byte is ever served, and nothing is left to rot.

The instants are numbers of bytes that a client has received, drawn from a seeded generator.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest_twisted

from tests.support import wire
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess
from tests.support.wheels import data_of, seeded

SIZE = 3_000_000
ROUNDS = 8


async def path_of(proxy: ProxyProcess, filename: str) -> str:
    """Where the page says *filename* is."""
    page = (await wire.fetch(proxy.port, "/simple/big/", Accept=JSON_TYPE)).json
    (url,) = [each["url"] for each in page["files"] if each["filename"] == filename]
    assert url.startswith("../../")
    return "/" + str(url).removeprefix("../../")


def kept(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def stored(proxy: ProxyProcess) -> dict[str, Path]:
    return {each.name: each for each in proxy.data_dir.glob("files/*/*")}


@pytest_twisted.ensureDeferred
async def test_killed_in_a_download_no_wrong_byte_is_ever_served(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    rng = seeded("kill")
    files = {f"big-{number}.tar.gz": data_of(SIZE, number) for number in range(ROUNDS)}
    for filename, data in files.items():
        upstream.add_file("big", filename, data)
    upstream.rate = 60_000_000
    proxy = await make_proxy(upstream.url).started()
    for filename, data in files.items():
        path = await path_of(proxy, filename)
        client = await wire.ask(proxy.port, path)
        await client.got_body(rng.choice([0, 1, SIZE - 1, SIZE, rng.randrange(SIZE), rng.randrange(SIZE)]))
        await proxy.kill()
        await client.close()
        assert data.startswith(client.body)

        await proxy.started()
        for name, file in stored(proxy).items():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == name
        reply = await wire.fetch(proxy.port, path)
        assert (reply.status, reply.complete, reply.body == data) == (200, True, True)
        assert kept(proxy.data_dir / "partial") == []
    assert "Traceback" not in proxy.log


async def killed_halfway(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], data: bytes, seen: int
) -> tuple[ProxyProcess, str]:
    """A proxy killed when half of *data* has been sent to it and a client has seen *seen* bytes, and the path of the file."""
    upstream.add_file("big", "big-1.tar.gz", data)
    proxy = await make_proxy(upstream.url).started()
    path = await path_of(proxy, "big-1.tar.gz")
    upstream.hold("/packages/*", after=len(data) // 2, times=1)
    client = await wire.ask(proxy.port, path)
    await client.got_body(seen)
    await proxy.kill()
    await client.close()
    return proxy, path


@pytest_twisted.ensureDeferred
async def test_after_a_kill_the_download_is_resumed_where_it_stood(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    data = data_of(SIZE)
    proxy, path = await killed_halfway(upstream, make_proxy, data, SIZE // 2 - 200_000)
    assert kept(proxy.data_dir / "partial") != []

    await proxy.started()
    reply = await wire.fetch(proxy.port, path)
    assert (reply.status, reply.body == data) == (200, True)
    first, second = [each for each in upstream.asked if each.path.startswith("/packages/")]
    assert "range" not in first.headers
    assert second.headers["range"].startswith("bytes=")
    assert int(second.headers["range"][6:-1]) > SIZE // 4
    assert kept(proxy.data_dir / "partial") == []
    assert await proxy.stop() == -signal.SIGTERM, "as twistd ends"
    await proxy.started()
    await upstream.down()
    assert (await wire.fetch(proxy.port, path)).body == data


@pytest_twisted.ensureDeferred
async def test_after_a_kill_the_other_bytes_that_upstream_has_now_are_not_mixed_in(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess]
) -> None:
    data = data_of(SIZE)
    proxy, path = await killed_halfway(upstream, make_proxy, data, SIZE // 4)

    (packages,) = [each for each in upstream.content.paths if each.startswith("/packages/")]
    upstream.content.keep(packages, data_of(SIZE, 99))
    await proxy.started()
    reply = await wire.fetch(proxy.port, path)
    assert reply.status == 503 or not reply.complete, "a client must see that this is not the file"
    assert stored(proxy) == {}

    upstream.content.keep(packages, data)
    reply = await wire.fetch_until(proxy.port, path, lambda reply: reply.status != 503 and reply.complete)
    assert reply.body == data
