"""bandersnatch, mirroring this proxy."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import LOCAL, OUTWARD, TLS, Place
from tests.clients.shop import INSTALLED
from tests.support.clients import Scratch


async def mirror(place: Place) -> str:
    """The URL of the simple index of the tree that ``bandersnatch mirror`` made."""
    tree = place.folder / "mirror"
    rest = f"directory = {tree}\njson = true\nworkers = 2\nstop-on-error = true\n"
    configuration = place.folder / "bandersnatch.conf"
    configuration.write_text(place.text("bandersnatch", "bandersnatch.conf") + rest, "utf-8")
    # it does not know of NO_PROXY, and would take its way to the proxy through HTTP_PROXY too
    variables = {**place.variables("bandersnatch"), **dict.fromkeys(OUTWARD, "")}
    await place.run("bandersnatch", "bandersnatch", "--config", configuration, "mirror", variables=variables)
    return f"file://{tree}/web/simple/"


@pytest.mark.parametrize("way", [LOCAL, TLS])
@pytest_twisted.ensureDeferred
async def test_bandersnatch_mirrors_the_proxy(make_place: MakePlace, way: str) -> None:
    """All of it: pip then installs from the tree of files alone."""
    place = await make_place(way)
    url = await mirror(place)
    await place.proxy.stop()
    scratch = Scratch(place.folder)
    variables = {"PIP_INDEX_URL": url}
    await place.run("pip", "pip", "--python", scratch.python, "install", "shop-app", variables=variables)
    assert scratch.installed == INSTALLED
