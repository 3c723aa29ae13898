"""The fixture of the tests with real clients: a place to work in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.place import LOCAL, Place, write_certificates
from tests.clients.shop import fill
from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ProxyProcess

MakePlace = Callable[..., Awaitable[Place]]


@pytest.fixture
def make_place(
    make_upstream: Callable[..., FakeUpstream], make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> Iterator[MakePlace]:
    """Makes the place of a test, once: ``await make_place(way, index)``; what it stood for is checked in the end."""
    made: list[Place] = []

    async def make(way: str = LOCAL, index: str | None = None) -> Place:
        upstream = fill(make_upstream())
        proxy = make_proxy(upstream.url, options=write_certificates(tmp_path))
        await proxy.started()
        made.append(Place(tmp_path, proxy, upstream, make_upstream(), way, index))
        return made[-1]

    yield make
    for each in made:
        each.check()
