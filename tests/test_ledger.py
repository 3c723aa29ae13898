"""What the ledger knows of a file."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
from msgspec.structs import replace

from proxy.cache.ledger import Ledger
from proxy.errors import StorageFailed
from proxy.mechanism.offload import Inline
from proxy.model import LedgerEntry, Versioned
from proxy.names import kind_of
from tests.inprocess import Start
from tests.support.content import UPLOADED
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import data_of
from tests.test_sightings import Stubborn
from tests.test_stores import now

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
    (found,) = (await proxy.service.caches.ledger.of("pypi", "six")).values()
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


class Silent(Stubborn):
    """It can also be told to give nothing."""

    gives = True

    async def scan(self, prefix: str, after: str = "", limit: int | None = None) -> list[Versioned]:
        if not self.gives:
            raise StorageFailed("it gives nothing")
        return await super().scan(prefix, after, limit)


def entry(digit: str) -> LedgerEntry:
    return LedgerEntry(digit * 64, 1, {}, "https://files.example/x", 0.0)


@pytest.mark.parametrize("memory", [0, 1_000_000], ids=["none at hand", "at hand"])
def test_a_replacement_that_cannot_be_written_yet_counts_and_is_written_later(memory: int) -> None:
    records = Silent()
    ledger = Ledger(records, memory, Inline())
    now(ledger.add("pypi", "six", "a", entry("a")))
    records.takes = False
    now(ledger.put("pypi", "six", "a", entry("b")))
    now(ledger.add("pypi", "six", "a", entry("c")))
    now(ledger.add("pypi", "six", "b", entry("d")))
    expected = {"a": entry("b"), "b": entry("d")}
    assert now(ledger.of("pypi", "six")) == expected
    records.takes = True
    now(ledger.mend())
    assert now(ledger.of("pypi", "six")) == now(Ledger(records, 0, Inline()).of("pypi", "six")) == expected


def test_what_could_not_be_read_is_not_replaced() -> None:
    records = Silent()
    now(Ledger(records, 0, Inline()).add("pypi", "six", "a", entry("a")))
    ledger = Ledger(records, 0, Inline())
    records.takes = records.gives = False
    now(ledger.put("pypi", "six", "a", entry("b")))
    assert now(ledger.of("pypi", "six")) == {"a": entry("b")}
    records.takes = records.gives = True
    now(ledger.mend())
    assert now(ledger.of("pypi", "six")) == now(Ledger(records, 0, Inline()).of("pypi", "six")) == {"a": entry("a")}
