"""Real twine and real ``uv publish`` in front of an index in memory: what they send is taken, what they are told is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from zope.interface import implementer

from proxy.access.principals import Principal, PrincipalKind
from proxy.access.rights import Access
from proxy.interfaces import IAccounts
from tests.shelf import Shelf
from tests.support.counter import Counter, Doorkeeper
from tests.support.process import Ended
from tests.support.publishers import Publisher
from tests.support.receiving import Shop
from tests.support.wheels import Distribution, sdist, wheel

SIX, SDIST = wheel("Six.App", "1.0", requires_python=">=3.8", extras={"a": ["b"]}), sdist("Six.App", "1.0")
OTHER = wheel("Six.App", "1.0", size=10)
TOOLS = ("twine", "uv")


@implementer(IAccounts)
class Known:
    """Whatever the credential is, it is that of alice."""

    alice = Principal(PrincipalKind.USER, "alice")

    def remembered(self, credential: bytes) -> Principal | None:
        return self.alice

    async def authenticate(self, credential: bytes, origin: str) -> Principal | None:
        return self.alice


@pytest.fixture
def counter(_clean_reactor: None) -> Iterator[Callable[..., Counter]]:
    opened: list[Counter] = []

    def opens(*shops: Shop, **options: Any) -> Counter:
        opened.append(Counter(*shops, **options).open())
        return opened[-1]

    yield opens
    for each in opened:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


def tool(name: str, place: Path) -> Callable[..., Awaitable[Ended]]:
    publish: Callable[..., Awaitable[Ended]] = getattr(Publisher(place), name)
    return publish


@pytest.mark.parametrize("path", ["/index/internal/", "/index/internal/legacy/", "/index/internal"])
@pytest.mark.parametrize("name", TOOLS)
@pytest_twisted.ensureDeferred
async def test_a_wheel_and_a_source_archive_are_uploaded(counter: Any, tmp_path: Path, name: str, path: str) -> None:
    shop = Shop()
    site = counter(shop)
    ended = await tool(name, tmp_path)(site.base + path, SIX, SDIST)
    assert ended.status == 0, ended.output
    assert shop.files == {SIX.filename: SIX.data, SDIST.filename: SDIST.data}
    for made in (SIX, SDIST):
        form = shop.forms[made.filename]
        assert (form.project, form.name, form.version) == ("six-app", "Six.App", "1.0")
        assert form.digests["sha256"] == made.sha256
    assert shop.forms[SIX.filename].requires_python == ">=3.8"
    again = await tool(name, tmp_path)(site.base + path, SIX)
    assert again.status == 0, again.output
    assert shop.under_way == []


LARGE = wheel("six-app", "2.0", size=200_000)
REFUSED: dict[str, tuple[Distribution, Access, str, str, str]] = {
    "other bytes": (OTHER, Access.ALLOWED, "internal", "File already exists", f"{SIX.filename} is on the index internal"),
    "wrong password": (SIX, Access.LOGIN, "internal", "Login required", "the user name, the password or the token is wrong"),
    "not allowed": (SIX, Access.HIDDEN, "internal", "Not found", "there is nothing at /index/internal/"),
    "no such index": (SIX, Access.ALLOWED, "wrong", "Not found", "there is no index named 'wrong' here"),
    "no uploads": (SIX, Access.ALLOWED, "pypi", "Method not allowed", "takes no uploads: they go to http://127.0.0.1:"),
    "too much": (LARGE, Access.ALLOWED, "internal", "Too much", "the index internal may have 100000 bytes"),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("name", TOOLS)
@pytest_twisted.ensureDeferred
async def test_what_is_refused_is_shown_with_the_reason(counter: Any, tmp_path: Path, name: str, why: str) -> None:
    made, access, index, title, detail = REFUSED[why]
    shop = Shop(largest=100_000)
    rights = Doorkeeper()
    site = counter(shop, shelves=(Shelf("pypi"),), rights=rights, accounts=None if access is Access.LOGIN else Known())
    assert (await tool(name, tmp_path)(f"{site.base}/index/internal/", SIX)).status == 0
    rights.uploads = access
    ended = await tool(name, tmp_path)(f"{site.base}/index/{index}/", made)
    assert ended.status not in (0, None)
    shown = " ".join(ended.output.split())
    assert title in shown, ended.output
    assert detail in shown, ended.output
    assert shop.files == {SIX.filename: SIX.data}
    assert shop.under_way == []


@pytest.mark.parametrize("name", TOOLS)
@pytest_twisted.ensureDeferred
async def test_a_tool_that_sends_a_large_file_before_it_reads_is_told_why_it_is_refused(
    counter: Any, tmp_path: Path, name: str
) -> None:
    shop = Shop()
    site = counter(shop, rights=Doorkeeper(Access.LOGIN))
    ended = await tool(name, tmp_path)(f"{site.base}/index/internal/", wheel("Six.App", "1.0", size=30_000_000))
    assert ended.status != 0
    assert "Login required" in ended.output, ended.output
    assert shop.begun == []
