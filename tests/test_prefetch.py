"""What is asked for ahead: the metadata of the newest release, as soon as a page is new."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from proxy.model import File, Page
from proxy.repository.prefetch import next_wanted
from proxy.settings import IndexSettings, PageLimits
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

AHEAD = (IndexSettings(name="pypi", upstreams=("up0",), default=True, limits=PageLimits(soft_deadline=0.1)),)
OLD, NEW = wheel("six", "1.9"), wheel("six", "1.10")


@pytest.fixture
def six(upstream: FakeUpstream) -> FakeUpstream:
    for each in (OLD, NEW):
        upstream.add_file("six", each.filename, each.data, metadata=each.metadata)
    return upstream


@pytest_twisted.ensureDeferred
async def test_the_newest_metadata_is_there_when_it_is_asked_for(six: FakeUpstream, run: Start) -> None:
    proxy = await run(six, indexes=AHEAD)
    path = await proxy.link("six", NEW.filename) + ".metadata"
    await six.until(lambda: six.answered == 2)
    assert [each.path.endswith(f"{NEW.filename}.metadata") for each in six.asked] == [False, True]
    assert (await proxy.get(path)).body == NEW.metadata
    await proxy.page("six")
    assert len(six.asked) == 2


@pytest_twisted.ensureDeferred
async def test_a_client_that_asks_meanwhile_shares_the_request(six: FakeUpstream, run: Start) -> None:
    gate = six.hold("*.metadata")
    proxy = await run(six, indexes=AHEAD)
    path = await proxy.link("six", NEW.filename) + ".metadata"
    await six.arrived("*.metadata")
    client = await proxy.connect(path)
    gate.release()
    assert (await client.reply()).body == NEW.metadata
    assert six.count("*.metadata") == 1


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=404), Fault(silent=True)], ids=["500", "404", "silent"])
async def test_when_it_fails_the_page_is_as_good_as_ever(six: FakeUpstream, run: Start, fault: Fault) -> None:
    six.script("*.metadata", fault)
    proxy = await run(six, indexes=AHEAD)
    assert len((await proxy.page("six"))["files"]) == 2
    await six.arrived("*.metadata")
    await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_an_older_release_that_is_asked_for_is_not_waited_for(six: FakeUpstream, run: Start) -> None:
    gate = six.hold(f"*{NEW.filename}.metadata")
    proxy = await run(six, indexes=AHEAD)
    path = await proxy.link("six", OLD.filename) + ".metadata"
    assert (await proxy.get(path)).body == OLD.metadata
    gate.release()


def file(filename: str, **keys: Any) -> File:
    return File(filename, f"https://files.example/{filename}", {"sha256": "a" * 64}, **{"core_metadata": True, **keys})


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            [file("x-1.0-py3-none-any.whl"), file("x-1.10-py3-none-any.whl"), file("x-1.9-py3-none-any.whl")],
            "x-1.10-py3-none-any.whl",
        ),
        ([file("x-1.0-py3-none-any.whl"), file("x-2.0rc1-py3-none-any.whl")], "x-1.0-py3-none-any.whl"),
        ([file("x-1.0-py3-none-any.whl"), file("x-2.0-py3-none-any.whl", yanked=True)], None),
        ([file("x-1.0-cp312-cp312-win_amd64.whl"), file("x-1.0-py3-none-any.whl")], None),
        ([file("x-1.0-py3-none-any.whl", core_metadata=None)], None),
        ([file("x-1.0.tar.gz"), file("odd.whl")], None),
        ([], None),
    ],
    ids=["newest", "final", "not yanked", "a choice", "not offered", "no wheel", "nothing"],
)
def test_only_what_surely_comes_next_is_wanted(files: list[File], wanted: str | None) -> None:
    versions = tuple({each.filename.removesuffix(".tar.gz").split("-")[1] for each in files if "-" in each.filename})
    found = next_wanted(Page("x", tuple(files), versions=versions))
    assert (found and found.filename) == wanted
