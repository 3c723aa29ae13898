"""simple-repository-server with this proxy as its only source."""

from __future__ import annotations

import shlex
import signal

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import LOCAL, TLS, free_port
from tests.clients.shop import INSTALLED
from tests.support.clients import Scratch

NAME = "simple-repository-server"


@pytest.mark.parametrize("options", [(), ("--stream-http-resources",)], ids=["redirecting", "streaming"])
@pytest.mark.parametrize("way", [LOCAL, TLS])
@pytest_twisted.ensureDeferred
async def test_it_serves_what_the_proxy_has(make_place: MakePlace, way: str, options: tuple[str, ...]) -> None:
    """To uv, which asks it for pages, metadata and files."""
    place = await make_place(way)
    port = free_port()
    command = shlex.split(place.text(NAME, "command"))
    server = place.start(NAME, *command, "--host", "127.0.0.1", "--port", str(port), *options)
    try:
        await server.until(lambda: "Uvicorn running on" in server.output or server.ended is not None, 30.0)
        assert server.ended is None, server.output
        scratch = Scratch(place.folder)
        asked = {**place.variables("uv"), "UV_DEFAULT_INDEX": f"http://127.0.0.1:{port}/simple/"}
        await place.run("uv", "uv", "pip", "install", "--python", scratch.python, "shop-app", variables=asked)
        assert scratch.installed == INSTALLED
    finally:
        server.signal(signal.SIGKILL)
        await server.end()
    assert place.upstream.count("/simple/shop-app/") == 1
