"""The disk in order, through the whole service: who goes when there is too much, who stays, and what a full disk does."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import pytest_twisted

from proxy.errors import ConfigError
from proxy.storage.local import LocalFiles
from tests.inprocess import Running, Start
from tests.support import wheels
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of

SIZE = 100_000
#: Room for four of the files; the low-water mark is at three.
LIMIT = 4 * SIZE + SIZE // 4


class Farm:
    """The projects a to f on *upstream*, one wheel of :data:`SIZE` bytes each, and what the proxy has of them in *files*."""

    def __init__(self, upstream: FakeUpstream, files: Path) -> None:
        self.upstream = upstream
        self._files = files
        self._data = {name: data_of(SIZE, seed=number) for number, name in enumerate("abcdef")}
        for name, data in self._data.items():
            upstream.add_file(name, wheel(name), data)

    def _path(self, name: str) -> Path:
        sha256 = hashlib.sha256(self._data[name]).hexdigest()
        return self._files / sha256[:2] / sha256

    def stored(self) -> str:
        return "".join(name for name in self._data if self._path(name).exists())

    async def age(self, proxy: Running, names: str) -> None:
        """Let the files of *names* have been used long ago, the first one first."""
        await proxy.service.caches.usage.write()
        for hours, name in enumerate(reversed(names), start=1):
            then = 1_000_000_000 - 3600 * hours
            os.utime(self._path(name), (then, then))

    async def get(self, proxy: Running, names: str) -> None:
        for name in names:
            reply = await proxy.get(await proxy.link(name, wheel(name)))
            assert reply.body == self._data[name]


def wheel(name: str) -> str:
    return f"{name}-1.0-py3-none-any.whl"


@pytest.fixture
def farm(upstream: FakeUpstream, tmp_path: Path) -> Farm:
    return Farm(upstream, tmp_path / "data" / "files")


async def settled(proxy: Running) -> None:
    """Wait until what goes of itself has gone."""
    await proxy.service.caches.room.settled()


@pytest_twisted.ensureDeferred
async def test_files_not_used_for_longest_go_first_and_are_fetched_again(farm: Farm, run: Start) -> None:
    proxy = await run(farm.upstream, max_size=LIMIT)
    await farm.get(proxy, "abcd")
    await farm.get(proxy, "a")
    assert farm.stored() == "abcd"
    await farm.get(proxy, "e")
    await settled(proxy)
    assert farm.stored() == "ade"
    metrics = (await proxy.get("/-/metrics")).body.decode()
    assert "pypiproxy_evicted_files_total 2.0" in metrics
    assert f"pypiproxy_evicted_bytes_total {2.0 * SIZE}" in metrics
    await farm.get(proxy, "b")
    assert farm.stored() == "abde"
    assert farm.upstream.count(f"/packages/*{wheel('b')}") == 2


@pytest_twisted.ensureDeferred
async def test_metadata_that_was_read_out_of_a_wheel_goes_and_is_read_again(
    upstream: FakeUpstream, farm: Farm, run: Start
) -> None:
    made = wheels.wheel("small")
    upstream.add_file("small", made.filename, made.data)
    proxy = await run(upstream, max_size=LIMIT)
    path = await proxy.link("small", made.filename) + ".metadata"
    assert (await proxy.get(path)).body == made.metadata
    sha256 = hashlib.sha256(made.metadata).hexdigest()
    assert sha256 in await proxy.service.caches.usage.last_used()
    await farm.get(proxy, "abcde")
    await settled(proxy)
    assert sha256 not in await proxy.service.caches.usage.last_used()
    assert (await proxy.get(path)).body == made.metadata


@pytest_twisted.ensureDeferred
async def test_without_a_limit_nothing_goes(farm: Farm, run: Start) -> None:
    proxy = await run(farm.upstream)
    await farm.get(proxy, "abcdef")
    await settled(proxy)
    assert farm.stored() == "abcdef"


@pytest_twisted.ensureDeferred
async def test_what_is_over_a_new_limit_goes_at_the_start_in_the_order_of_earlier_runs(farm: Farm, run: Start) -> None:
    first = await run(farm.upstream)
    await farm.get(first, "abcdef")
    await farm.age(first, "fedcba")
    await farm.get(first, "e")
    await first.stop()
    second = await run(farm.upstream, max_size=LIMIT)
    await settled(second)
    assert farm.stored() == "abe"


@pytest_twisted.ensureDeferred
async def test_a_use_that_is_answered_from_memory_counts(farm: Farm, run: Start) -> None:
    farm.upstream.add_file("small", wheel("small"), small := data_of(2_000))
    proxy = await run(farm.upstream)
    path = await proxy.link("small", wheel("small"))
    sha256 = hashlib.sha256(small).hexdigest()
    for _ in range(2):
        client = await proxy.connect(path)
        assert (await client.reply()).body == small
        await client.close()
    await proxy.service.caches.usage.write()
    await proxy.service.storage.files.delete(sha256)
    assert not proxy.service.caches.usage.used_since(sha256, 0.0)
    client = await proxy.connect(path)
    assert (await client.reply()).body == small
    await client.close()
    assert proxy.service.caches.usage.used_since(sha256, 0.0)


@pytest_twisted.ensureDeferred
async def test_kept_files_never_go_not_even_after_a_restart(farm: Farm, run: Start) -> None:
    first = await run(farm.upstream)
    await farm.get(first, "abcdef")
    await farm.age(first, "abcdef")
    assert await first.service.caches.pinned.pin("pypi", "a") == [wheel("a")]
    assert await first.service.caches.pinned.pin("pypi", "c", "1.0.0") == [wheel("c")]
    assert await first.service.caches.pinned.pin("pypi", "d", "2.0") == []
    await first.stop()
    second = await run(farm.upstream, max_size=LIMIT)
    await settled(second)
    assert farm.stored() == "acf"
    assert await second.service.caches.pinned.unpin("pypi", "a") == [wheel("a")]
    await farm.get(second, "de")
    await settled(second)
    assert farm.stored() == "cde"


@pytest_twisted.ensureDeferred
async def test_who_reads_a_file_that_goes_reads_it_to_its_end(upstream: FakeUpstream, run: Start) -> None:
    old, new = data_of(8_000_000), data_of(3_000_000, seed=1)
    upstream.add_file("old", wheel("old"), old)
    upstream.add_file("new", wheel("new"), new)
    proxy = await run(upstream, max_size=9_000_000)
    path = await proxy.link("old", wheel("old"))
    await proxy.get(path)
    client = await proxy.connect(path)
    await client.got(1_000)
    client.transport.pauseProducing()
    await proxy.get(await proxy.link("new", wheel("new")))
    await settled(proxy)
    assert list(await proxy.service.caches.usage.last_used()) == [hashlib.sha256(new).hexdigest()]
    client.transport.resumeProducing()
    assert (await client.reply()).body == old


@pytest_twisted.ensureDeferred
async def test_a_file_larger_than_the_limit_does_not_drive_out_the_others(
    upstream: FakeUpstream, farm: Farm, run: Start
) -> None:
    upstream.add_file("big", wheel("big"), data_of(LIMIT + SIZE))
    proxy = await run(upstream, max_size=LIMIT)
    await farm.get(proxy, "ab")
    await proxy.get(await proxy.link("big", wheel("big")))
    await settled(proxy)
    assert farm.stored() == "ab"
    assert len(await proxy.service.caches.usage.last_used()) == 2


@pytest.mark.parametrize(("limits", "files"), [({}, "a"), ({"max_size": 2**40}, "b")], ids=["unlimited", "limited"])
@pytest_twisted.ensureDeferred
async def test_a_disk_on_which_no_file_can_be_made(
    farm: Farm, run: Start, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], files: str
) -> None:
    proxy = await run(farm.upstream, **limits)
    await farm.get(proxy, "a")
    real = os.open

    def full(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and farm.stored():
            raise OSError(28, "No space left on device", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr("proxy.storage.local.os.open", full)
    await farm.get(proxy, "bab")
    assert farm.stored() == files


@pytest_twisted.ensureDeferred
async def test_min_free_makes_room_on_the_file_system(farm: Farm, run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def free(store: LocalFiles) -> int:
        return 5 * SIZE - len(farm.stored()) * SIZE

    monkeypatch.setattr(LocalFiles, "free", free)
    proxy = await run(farm.upstream, min_free=2 * SIZE)
    await farm.get(proxy, "abc")
    await settled(proxy)
    assert farm.stored() == "abc"
    await farm.get(proxy, "d")
    await settled(proxy)
    assert farm.stored() == "cd"


@pytest_twisted.ensureDeferred
async def test_min_free_that_the_file_system_can_never_have_is_refused(farm: Farm, run: Start) -> None:
    with pytest.raises(ConfigError, match=r"server.min_free = .*file system .* has [0-9,]+ bytes in all"):
        await run(farm.upstream, min_free=2**60)
