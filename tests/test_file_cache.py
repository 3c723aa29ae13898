"""Files: one download shared by all, gone on with after its first client, refused when its bytes are wrong."""

from __future__ import annotations

import hashlib
import os

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.core.events import Incident, Notice
from proxy.errors import Attempted, DigestMismatch, NotFound, ProxyError, UpstreamFailed
from proxy.interfaces import IBytesSource
from proxy.mechanism.offload import Inline
from proxy.model import Change, Digest, FileFacts, LedgerEntry, Wanted
from proxy.statistics.recorders import MemoryRecorder
from proxy.storage.memory import MemoryFiles, MemoryVersioned
from tests.twins import ScriptedUpstreams

DATA = os.urandom(40_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
STATED = Digest("sha256", SHA256)


class FileCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryFiles()
        self.upstreams = ScriptedUpstreams()
        self.asks: list[Deferred[IBytesSource]] = []
        self.sources: list[IBytesSource] = []
        self.recorder = MemoryRecorder()
        self.committed: list[tuple[str, str, int]] = []
        self.cache = FileCache(self.store, Inline(), self.recorder)

    def tearDown(self) -> None:
        self.successResultOf(self.cache.close())
        for ask in self.asks:
            ask.addErrback(lambda failure: failure.trap(ProxyError))
        for source in self.sources:
            source.close()

    def opened(self, source: IBytesSource) -> IBytesSource:
        self.sources.append(source)
        return source

    async def note(self, wanted: Wanted, sha256: str, size: int) -> None:
        self.committed.append((wanted.name, sha256, size))

    def wanted(self, digest: Digest | None = STATED, index: str = "pypi") -> Wanted:
        return Wanted(index, "big", "big-1.0.whl", "https://files.example/big-1.0.whl", "pypi", digest)

    def ask(self, wanted: Wanted | None = None) -> Deferred[IBytesSource]:
        ask = Deferred.fromCoroutine(self.cache.download(wanted or self.wanted(), self.upstreams, self.note))
        ask.addCallback(self.opened)
        self.asks.append(ask)
        return ask

    def content(self, source: IBytesSource) -> bytes:
        self.assertTrue(source.ended())
        data = os.pread(source.fileno(), source.extent(), 0)
        source.close()
        return data

    def test_a_hundred_askers_share_one_download(self) -> None:
        askers = [self.ask() for _ in range(100)]
        self.assertEqual(len(self.upstreams.fetches), 1)
        self.upstreams.deliver(DATA)
        for asker in askers:
            self.assertEqual(self.content(self.successResultOf(asker)), DATA)
        self.assertEqual(self.committed, [("big-1.0.whl", SHA256, len(DATA))])
        self.assertEqual(self.store.files, {SHA256: DATA})

    def test_a_second_client_joins_the_download_in_progress(self) -> None:
        self.ask()
        _, sink, done = self.upstreams.fetches[0]
        sink.begin(FileFacts(len(DATA)))
        sink.write(DATA[:30_000])
        late = self.successResultOf(self.ask())
        self.assertEqual(os.pread(late.fileno(), late.extent(), 0), DATA[:30_000])
        sink.write(DATA[30_000:])
        done.callback(None)
        self.assertEqual(self.content(late), DATA)
        self.assertEqual(len(self.upstreams.fetches), 1)

    def test_a_file_that_is_still_arriving_is_not_looked_for_in_the_store(self) -> None:
        looked_for: list[str] = []

        async def opened(sha256: str, size: int | None = None) -> None:
            looked_for.append(sha256)

        self.patch(self.store, "open", opened)
        self.ask()
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(self.cache.stored(SHA256))))
        self.assertEqual(looked_for, [])
        self.upstreams.deliver(DATA)
        self.successResultOf(Deferred.fromCoroutine(self.cache.stored(SHA256)))
        self.assertEqual(looked_for, [SHA256])

    def test_the_download_goes_on_when_its_first_client_leaves(self) -> None:
        first = self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.upstreams.deliver(DATA)
        self.assertIn(SHA256, self.store.files)

    def test_two_indexes_share_the_download_of_the_same_bytes(self) -> None:
        self.ask(self.wanted(index="pypi"))
        self.ask(self.wanted(index="mirror"))
        self.assertEqual(len(self.upstreams.fetches), 1)

    def test_without_a_digest_another_index_is_another_file(self) -> None:
        self.ask(self.wanted(None, "pypi"))
        self.ask(self.wanted(None, "mirror"))
        self.assertEqual(len(self.upstreams.fetches), 2)

    def test_wrong_bytes_are_refused_and_counted_and_the_next_asker_tries_again(self) -> None:
        reader = self.ask()
        self.upstreams.deliver(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        with self.assertRaises(DigestMismatch):
            self.successResultOf(reader).ended()
        self.assertEqual((self.store.files, self.committed), ({}, []))
        self.assertEqual(self.recorder.events, [Notice(Incident.WRONG_BYTES, "pypi", "big", "big-1.0.whl")])
        again = self.ask()
        self.upstreams.deliver(DATA)
        self.assertEqual(self.content(self.successResultOf(again)), DATA)

    def test_an_upstream_that_fails_before_its_headers_fails_every_asker(self) -> None:
        askers = [self.ask() for _ in range(3)]
        self.upstreams.fetches[0][2].errback(UpstreamFailed("big", [Attempted("pypi", "connection refused", 0.0)]))
        for asker in askers:
            self.failureResultOf(asker, UpstreamFailed)

    def test_a_definite_no_stays_one(self) -> None:
        asker = self.ask()
        self.upstreams.fetches[0][2].errback(NotFound("big"))
        self.failureResultOf(asker, NotFound)

    def test_a_download_that_breaks_is_met_by_its_readers_and_gone_on_with_by_the_next(self) -> None:
        asker = self.ask()
        _, sink, done = self.upstreams.fetches[0]
        sink.begin(FileFacts(len(DATA)))
        sink.write(DATA[:30_000])
        reader = self.successResultOf(asker)
        done.errback(UpstreamFailed("big", []))
        with self.assertRaises(UpstreamFailed):
            reader.ended()
        self.ask()
        self.assertEqual(self.upstreams.fetches[1][1].offset, 30_000)

    def test_closing_leaves_what_has_arrived_for_the_next_start(self) -> None:
        asker = self.ask()
        _, sink, _ = self.upstreams.fetches[0]
        sink.begin(FileFacts(len(DATA)))
        sink.write(DATA[:10_000])
        self.successResultOf(asker)
        self.successResultOf(self.cache.close())
        self.assertEqual(self.store.left, {f"sha256-{SHA256}": DATA[:10_000]})


class LedgerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = MemoryVersioned()
        self.pins = Ledger(self.records, 10_000, Inline())

    def add(self, name: str, sha256: str) -> None:
        pin = LedgerEntry(sha256, 1, {"md5": "0" * 32}, "https://files.example/x", 0.0)
        self.successResultOf(Deferred.fromCoroutine(self.pins.add("pypi", "six", name, pin)))

    def of(self, pins: Ledger) -> dict[str, str]:
        return {name: pin.sha256 for name, pin in self.successResultOf(Deferred.fromCoroutine(pins.of("pypi", "six"))).items()}

    def test_the_first_bytes_under_a_name_stay(self) -> None:
        self.add("a.whl", "a" * 64)
        self.add("a.whl", "b" * 64)
        self.add("b.whl", "b" * 64)
        self.assertEqual(self.of(self.pins), {"a.whl": "a" * 64, "b.whl": "b" * 64})

    def test_pins_survive_a_restart(self) -> None:
        self.add("a.whl", "a" * 64)
        self.assertEqual(self.of(Ledger(self.records, 10_000, Inline())), {"a.whl": "a" * 64})

    def test_a_removed_pin_is_free_again(self) -> None:
        self.add("a.whl", "a" * 64)
        self.successResultOf(Deferred.fromCoroutine(self.pins.remove("pypi", "six", ["a.whl"])))
        self.assertEqual(self.of(self.pins), {})
        self.add("a.whl", "b" * 64)
        self.assertEqual(self.of(Ledger(self.records, 10_000, Inline())), {"a.whl": "b" * 64})

    def test_damaged_pins_start_anew(self) -> None:
        self.add("a.whl", "a" * 64)
        self.successResultOf(Deferred.fromCoroutine(self.records.apply([Change("entry/pypi/six/b.whl", b"damaged")])))
        again = Ledger(self.records, 10_000, Inline())
        self.assertEqual(self.of(again), {"a.whl": "a" * 64})
        self.pins = again
        self.add("b.whl", "b" * 64)
        self.assertEqual(self.of(Ledger(self.records, 10_000, Inline())), {"a.whl": "a" * 64, "b.whl": "b" * 64})
        self.assertEqual(self.flushLoggedErrors(), [])
