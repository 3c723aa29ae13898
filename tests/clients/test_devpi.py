"""devpi-server with a mirror index whose upstream is this proxy."""

from __future__ import annotations

import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import LOCAL, TLS, Place, free_port
from tests.clients.shop import INSTALLED
from tests.support.clients import Scratch


@asynccontextmanager
async def devpi(place: Place) -> AsyncIterator[str]:
    """The simple index of a running devpi-server's ``root/pypi``."""
    data, port = place.folder / "devpi", free_port()
    await place.run("devpi", "devpi-init", "--serverdir", data, "--no-root-pypi")
    server = place.start("devpi", "devpi-server", "--serverdir", data, "--host", "127.0.0.1", "--port", str(port))
    try:
        await server.until(lambda: "Serving" in server.output or server.ended is not None, 60.0)
        await place.run("devpi", "devpi", "use", f"http://127.0.0.1:{port}")
        for line in place.text("devpi", "command").splitlines():
            password = ["--password="] if "login" in line else []
            await place.run("devpi", *shlex.split(line), *password)
        yield f"http://127.0.0.1:{port}/root/pypi/+simple/"
    finally:
        server.signal(signal.SIGKILL)
        await server.end()


async def install(place: Place, index: str, wanted: str) -> dict[str, str]:
    scratch = Scratch(place.folder)
    variables = {"PIP_INDEX_URL": index, "PIP_NO_CACHE_DIR": "1"}
    await place.run("pip", "pip", "--python", scratch.python, "install", wanted, variables=variables)
    return scratch.installed


@pytest.mark.parametrize("way", [LOCAL, TLS])
@pytest_twisted.ensureDeferred
async def test_devpi_serves_what_the_proxy_has(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    async with devpi(place) as index:
        assert await install(place, index, "shop-app") == INSTALLED
        # from its own store
        await place.proxy.stop()
        assert await install(place, index, "shop-app") == INSTALLED


@pytest_twisted.ensureDeferred
async def test_devpi_finds_new_releases_also_after_the_proxy_lost_its_data(make_place: MakePlace) -> None:
    """It refuses a page whose serial is lower than the last it saw, or missing."""
    place = await make_place()
    async with devpi(place) as index:
        assert await install(place, index, "shop-lib") == {"shop_lib": "2.1"}
        await place.run("devpi", "devpi", "index", "root/pypi", "mirror_cache_expiry=0")
        await place.start_over()
        assert await install(place, index, "shop-lib") == {"shop_lib": "2.3"}
