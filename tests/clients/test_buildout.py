"""zc.buildout: a part with an egg and all that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import WAYS, Place
from tests.clients.shop import INSTALLED

PARTS = """
parts = app
eggs-directory = eggs

[app]
recipe = zc.recipe.egg
eggs = shop-app
interpreter = py
"""
SCRIPT = f"from importlib.metadata import version; print(*map(version, {tuple(INSTALLED)}))"


async def build(place: Place, project: Path) -> dict[str, str]:
    """The versions that the built interpreter imports."""
    variables = {**place.variables("buildout"), "PIP_NO_CACHE_DIR": "1"}
    await place.run("buildout", "buildout", "-N", within=project, variables=variables)
    told = await place.run("buildout", project / "bin" / "py", "-c", SCRIPT)
    return dict(zip(INSTALLED, told.split(), strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_buildout_builds(make_place: MakePlace, way: str) -> None:
    place = await make_place(way, "pypi")
    project = place.project("buildout.cfg", place.text("buildout", "buildout.cfg") + PARTS)
    assert await build(place, project) == {**INSTALLED, "shop_lib": "2.2"}, "it knows nothing of yanked releases"
