"""pypi-simple, the library: pages, metadata and files, each checked against its digest."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from tests.clients.conftest import MakePlace
from tests.clients.place import WAYS

SCRIPT = """
import json, pathlib, sys
from pypi_simple import ACCEPT_HTML_ONLY, ACCEPT_JSON_ONLY, PyPISimple

found = {}
for form, accept in {"json": ACCEPT_JSON_ONLY, "html": ACCEPT_HTML_ONLY}.items():
    with PyPISimple(endpoint=sys.argv[1], accept=accept) as client:
        page = client.get_project_page("Shop.Lib")
        files = {each.filename: each for each in page.packages}
        wheel = files["shop_lib-2.1-py3-none-any.whl"]
        client.download_package(wheel, pathlib.Path(wheel.filename))
        found[form] = {
            "version": page.repository_version,
            "files": sorted(files),
            "metadata": client.get_package_metadata(wheel),
            "yanked": files["shop_lib-2.2-py3-none-any.whl"].yanked_reason,
            "requires_python": wheel.requires_python,
            "size": pathlib.Path(wheel.filename).stat().st_size,
        }
print(json.dumps(found))
"""
INDEX = """
import sys
from pypi_simple import PyPISimple

with PyPISimple(endpoint=sys.argv[1]) as client:
    print(*sorted(client.get_index_page().projects), *sorted(client.stream_project_names()))
"""


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_pypi_simple_reads_a_project(make_place: MakePlace, way: str) -> None:
    place = await make_place(way)
    variables = {"REQUESTS_CA_BUNDLE": place.address.ca_file} if place.address.ca_file else {}
    output = await place.run("pypi-simple", "python", "-c", SCRIPT, place.address.index, variables=variables)
    found = json.loads(output)
    upstream = place.upstream.project("shop-lib").files
    assert set(found) == {"json", "html"}
    for told in found.values():
        assert told["version"] == "1.4"
        assert told["files"] == sorted(upstream)
        assert told["metadata"].startswith("Metadata-Version: 2.1\nName: shop-lib\n")
        assert told["yanked"] == "forgot the data"
        assert told["requires_python"] == ">=3.8"
        assert told["size"] == upstream["shop_lib-2.1-py3-none-any.whl"]["size"]


@pytest_twisted.ensureDeferred
async def test_pypi_simple_reads_the_list_of_projects(make_place: MakePlace) -> None:
    place = await make_place()
    output = await place.run("pypi-simple", "python", "-c", INDEX, place.address.index, variables={})
    assert output.split() == sorted(place.upstream.content.projects) * 2
