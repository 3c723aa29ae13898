"""What the ledger knows of a file."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
from msgspec.structs import replace

from proxy.model import LedgerEntry
from proxy.names import kind_of
from tests.inprocess import Start
from tests.support.content import UPLOADED
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of

DATA = data_of(5_000, seed=3)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest_twisted.ensureDeferred
async def test_a_stored_file_is_entered_with_the_facts_that_its_page_states(upstream: FakeUpstream, run: Start) -> None:
    """And keeps them, whatever the page says later."""
    name = "six-1.16.0-py3-none-any.whl"
    url = upstream.add_file("six", name, DATA, requires_python=">=3.8", yanked="broken on Tuesdays")
    proxy = await run(upstream, clock=lambda: 1_000_000_000.0)
    path = await proxy.link("six", name)
    assert (await proxy.get(path)).body == DATA
    entry = LedgerEntry(
        SHA256,
        len(DATA),
        {"sha256": SHA256},
        url,
        1_000_000_000.0,
        upload_time=UPLOADED,
        version="1.16.0",
        kind="wheel",
        requires_python=">=3.8",
        yanked="broken on Tuesdays",
    )
    (found,) = (await proxy.service.ledger.of("pypi", "six")).values()
    assert replace(found, first_seen=None) == entry


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("six-1.0-py3-none-any.whl", "wheel"),
        ("six-1.0.tar.gz", "sdist"),
        ("six-1.0.ZIP", "sdist"),
        ("six-1.0-py3.7.egg", "egg"),
        ("six-1.0.win32.exe", "installer"),
        ("six-1.0.unknown", None),
    ],
)
def test_the_kind_of_a_file_is_told_by_its_name(filename: str, kind: str | None) -> None:
    assert kind_of(filename) == kind
