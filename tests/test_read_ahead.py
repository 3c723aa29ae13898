"""Project pages: what is asked of upstream, what is remembered, what clients get when upstream fails."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from proxy.cache.pages import PageCache
from proxy.cache.parsed import ParsedPages
from proxy.cache.refreshed import Served, Terms
from proxy.core.events import Incident, Notice
from proxy.errors import Attempted, NotFound, UpstreamFailed
from proxy.mechanism.offload import Inline
from proxy.model import Condition, File, PageFound, PageMissing, PageUnchanged, Record, body_digest
from proxy.settings import PageLimits
from proxy.statistics.recorders import MemoryRecorder
from proxy.storage.memory import MemoryRecords
from tests.twins import ScriptedUpstreams, found

SIX = File("six-1.0.tar.gz", "https://files.example/six-1.0.tar.gz", {"sha256": "a" * 64})
LATER = File("six-2.0.tar.gz", "https://files.example/six-2.0.tar.gz", {"sha256": "b" * 64})


class PageCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.records = MemoryRecords()
        self.recorder = MemoryRecorder()
        #: By how much the wall clock is ahead of the one that nobody sets.
        self.ahead = 0.0
        self.start()

    def start(self, limits: PageLimits | None = None) -> None:
        """Start (again) on the same records."""
        self.upstreams = ScriptedUpstreams()
        self.cache = PageCache(
            "pypi",
            self.upstreams,
            self.records,
            Inline(),
            Terms(limits or PageLimits(), self.clock, lambda: self.clock.seconds() + self.ahead, self.recorder),
            ParsedPages(1 << 20),
        )

    def get(self, project: str = "six", **how: Any) -> Deferred[Served]:
        return Deferred.fromCoroutine(self.cache.get(project, **how))

    def files(self, served: Served, project: str = "six") -> list[str]:
        page = self.successResultOf(Deferred.fromCoroutine(self.cache.parsed(project, served.head)))
        return [file.filename for file in page.files]

    def found(self, *files: File, **more: Any) -> Any:
        return found("six", list(files), self.clock.seconds(), **more)

    def failed(self) -> UpstreamFailed:
        return UpstreamFailed("the page of six", [Attempted("pypi", "connection refused", 0.0)])

    def warm(self, age: float = 0.0, **more: Any) -> Served:
        """Have the page in the cache, *age* seconds old."""
        first = self.get()
        self.upstreams.answer(self.found(SIX, **more))
        served = self.successResultOf(first)
        self.clock.advance(age)
        return served

    def test_two_hundred_askers_of_a_cold_page_cause_one_request(self) -> None:
        askers = [self.get() for _ in range(200)]
        self.assertEqual(len(self.upstreams.pages), 1)
        self.upstreams.answer(self.found(SIX))
        for asker in askers:
            self.assertEqual(self.files(self.successResultOf(asker)), ["six-1.0.tar.gz"])
        self.assertEqual(self.successResultOf(self.get()).status.word, "hit")

    def test_a_fresh_page_asks_nothing(self) -> None:
        self.warm(age=479)
        served = self.successResultOf(self.get())
        self.assertEqual((served.status.word, served.status.ttl), ("hit", 121))
        self.assertEqual(len(self.upstreams.pages), 1)

    def test_a_hot_page_is_refreshed_before_it_expires(self) -> None:
        self.warm(age=500)
        self.assertTrue(self.get().called)
        self.upstreams.answer(self.found(SIX, LATER))
        self.assertEqual(len(self.files(self.successResultOf(self.get()))), 2)
        self.assertEqual(len(self.upstreams.pages), 2)

    def test_an_expired_page_is_asked_for_with_its_validators_and_renewed_by_304(self) -> None:
        served = self.warm(age=601)
        again = self.get()
        self.assertEqual(self.upstreams.pages[-1][1], served.head.validators)
        self.upstreams.answer(PageUnchanged("pypi", self.clock.seconds(), None, None))
        renewed = self.successResultOf(again)
        self.assertEqual((renewed.status.word, self.files(renewed)), ("refreshed", ["six-1.0.tar.gz"]))
        self.assertEqual(self.successResultOf(self.get()).status.ttl, 600)

    def test_records_survive_a_restart(self) -> None:
        self.warm(age=10)
        self.start()
        served = self.successResultOf(self.get())
        self.assertEqual((served.status.ttl, self.files(served)), (590, ["six-1.0.tar.gz"]))
        self.assertEqual(self.upstreams.pages, [])

    def test_whoever_sets_the_clock_makes_no_page_older_or_newer(self) -> None:
        self.warm(age=100)
        for jump in (-86_400, 10, 365 * 86_400):
            self.ahead += jump
            self.assertEqual(self.successResultOf(self.get()).status.ttl, 500)
        self.clock.advance(501)
        self.assertFalse(self.get().called)

    def test_a_record_from_the_future_counts_as_confirmed_now_and_is_not_fresh_for_ever(self) -> None:
        self.warm()
        self.ahead = -86_400
        self.start()
        self.assertEqual(self.successResultOf(self.get()).status.ttl, 600)
        self.clock.advance(601)
        self.assertFalse(self.get().called)
        self.assertEqual(len(self.upstreams.pages), 1)

    def test_after_a_year_that_nobody_lived_through_records_are_stale_and_served(self) -> None:
        self.warm()
        self.ahead = 365 * 86_400
        self.start()
        self.upstreams.state = Condition.DOWN
        served = self.successResultOf(self.get())
        self.assertEqual(self.files(served), ["six-1.0.tar.gz"])
        self.assertEqual((served.status.hit, served.status.ttl), (True, 600 - 365 * 86_400))

    def of_mirror(self, *files: File) -> Any:
        """A page as the upstream ``mirror`` would deliver it."""
        page = self.found(*files)
        return replace(page, record=replace(page.record, head=replace(page.record.head, upstream="mirror")))

    def test_a_mirror_that_states_other_digests_does_not_replace_the_page(self) -> None:
        self.warm(age=700)
        refreshed = self.get()
        self.upstreams.answer(self.of_mirror(replace(SIX, hashes={"sha256": "f" * 64}), LATER))
        self.assertEqual(self.files(self.successResultOf(refreshed)), [SIX.filename])
        ((mirror, why),) = self.upstreams.distrusted
        self.assertEqual(mirror, "mirror")
        self.assertIn("six-1.0.tar.gz of six another digest than pypi did", why)
        self.assertIn(Notice(Incident.MIRROR_WITH_OTHER_DIGESTS, "pypi", "six", "six-1.0.tar.gz"), self.recorder.events)

    def test_a_mirror_that_only_has_more_does_and_so_does_whoever_is_preferred(self) -> None:
        self.warm(age=700)
        refreshed = self.get()
        self.upstreams.answer(self.of_mirror(SIX, LATER))
        self.assertEqual(len(self.files(self.successResultOf(refreshed))), 2)
        self.clock.advance(700)
        self.upstreams.preferred.add("pypi")
        refreshed = self.get()
        self.upstreams.answer(self.found(replace(SIX, hashes={"sha256": "f" * 64})))
        self.assertEqual(len(self.files(self.successResultOf(refreshed))), 1)
        self.assertEqual(self.upstreams.distrusted, [])

    def test_a_slow_upstream_costs_the_soft_deadline_once_and_the_refresh_goes_on(self) -> None:
        self.warm(age=601)
        first = self.get()
        self.assertNoResult(first)
        self.clock.advance(2.0)
        self.assertEqual(self.successResultOf(first).status.word, "stale")
        self.assertEqual(self.upstreams.told_slow, 1)
        self.assertEqual(self.successResultOf(self.get()).status.word, "stale")
        self.assertEqual(len(self.upstreams.pages), 2)
        self.upstreams.state = Condition.UP
        self.upstreams.answer(self.found(LATER))
        self.assertEqual(self.files(self.successResultOf(self.get())), ["six-2.0.tar.gz"])

    def test_a_failing_upstream_gives_the_stale_page_and_is_not_asked_again_at_once(self) -> None:
        self.warm(age=601)
        first = self.get()
        self.upstreams.answer(self.failed())
        self.assertEqual(self.successResultOf(first).status.header(), "pypiproxy; hit; ttl=-1; detail=upstream-failed")
        for _ in range(50):
            self.assertEqual(self.successResultOf(self.get()).status.word, "stale")
        self.assertEqual(len(self.upstreams.pages), 2)
        self.clock.advance(5)
        self.successResultOf(self.get())
        self.assertEqual(len(self.upstreams.pages), 3)

    def test_while_every_breaker_is_open_nothing_is_asked(self) -> None:
        self.warm(age=601)
        self.upstreams.state, self.upstreams.pause = Condition.DOWN, 12.0
        self.assertEqual(self.successResultOf(self.get()).status.word, "stale")
        self.assertEqual(len(self.upstreams.pages), 1)

    def test_a_cold_page_that_fails_is_an_error_and_is_not_remembered(self) -> None:
        first = self.get()
        self.upstreams.answer(self.failed())
        self.assertEqual(self.failureResultOf(first, UpstreamFailed).value.status, 503)
        second = self.get()
        self.upstreams.answer(self.found(SIX))
        self.assertEqual(self.files(self.successResultOf(second)), ["six-1.0.tar.gz"])

    def test_an_outage_may_last_for_any_number_of_refreshes(self) -> None:
        self.warm(age=601)
        for _ in range(1_100):
            self.clock.advance(61)
            served = self.get()
            self.upstreams.answer(self.failed())
            self.assertEqual(self.successResultOf(served).status.word, "stale")

    def test_a_cold_page_is_the_same_error_however_often_it_is_asked_for(self) -> None:
        for _ in range(1_100):
            asked = self.get()
            self.upstreams.answer(self.failed())
            self.failureResultOf(asked, UpstreamFailed)

    def test_an_unknown_project_is_remembered_for_the_negative_ttl(self) -> None:
        first = self.get()
        self.upstreams.answer(PageMissing("pypi", "https://pypi.example/simple/six/", self.clock.seconds()))
        self.failureResultOf(first, NotFound)
        self.clock.advance(59)
        self.failureResultOf(self.get(), NotFound)
        self.assertEqual(len(self.upstreams.pages), 1)
        self.clock.advance(1)
        again = self.get()
        self.upstreams.answer(self.found(SIX))
        self.successResultOf(again)

    def test_a_project_that_vanished_is_a_404(self) -> None:
        self.warm(age=601)
        again = self.get()
        self.upstreams.answer(PageMissing("pypi", "https://pypi.example/simple/six/", self.clock.seconds()))
        self.failureResultOf(again, NotFound)

    def test_a_mirror_that_lags_never_takes_a_page_back(self) -> None:
        self.warm(age=601, serial=20)
        again = self.get()
        self.upstreams.answer(self.found(LATER, serial=19))
        served = self.successResultOf(again)
        self.assertEqual((self.files(served), served.head.serial), (["six-1.0.tar.gz"], 20))
        self.assertIn(Notice(Incident.PAGE_OLDER, "pypi", "six"), self.recorder.events)

    def test_what_one_upstream_states_for_ten_minutes_is_taken_although_it_looks_like_a_step_back(self) -> None:
        for files, serial in ((SIX, LATER), 19), ((), None):
            with self.subTest(files=files, serial=serial):
                self.start()
                self.successResultOf(Deferred.fromCoroutine(self.cache.forget("six")))
                self.warm(age=601, serial=20)
                shown = []
                for _ in range(11):
                    again = self.get()
                    self.upstreams.answer(self.found(*files, serial=serial))
                    shown.append(len(self.files(self.successResultOf(again))))
                    self.clock.advance(60)
                self.assertEqual(shown, [1] * 10 + [len(files)])

    def test_a_client_that_leaves_does_not_stop_the_refresh(self) -> None:
        leaving = self.get()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.upstreams.answer(self.found(SIX))
        self.assertEqual(self.successResultOf(self.get()).status.word, "hit")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_cache_refreshes_once_in_five_seconds_however_many_ask(self) -> None:
        self.warm(age=6)
        askers = [self.get(no_cache=True) for _ in range(10)]
        self.upstreams.answer(self.found(LATER))
        self.assertEqual({self.successResultOf(asker).status.fwd for asker in askers}, {"request"})
        self.clock.advance(4)
        self.assertEqual(self.successResultOf(self.get(no_cache=True)).status.word, "hit")
        self.assertEqual(len(self.upstreams.pages), 2)

    def test_a_body_that_was_damaged_on_disk_is_fetched_again(self) -> None:
        self.warm()
        for key in self.successResultOf(Deferred.fromCoroutine(self.records.keys("page1/pypi/six/"))):
            self.successResultOf(Deferred.fromCoroutine(self.records.set(key, b"damaged")))
        self.start()
        served = self.successResultOf(self.get())
        page = Deferred.fromCoroutine(self.cache.parsed("six", served.head))
        self.upstreams.answer(self.found(SIX))
        self.assertEqual(self.successResultOf(page).files[0].filename, "six-1.0.tar.gz")

    def listing(self) -> Any:
        """What an earlier version took for an empty project."""
        body = b"<title>Index of /simple/six/</title><a href='../'>../</a>"
        page = self.found()
        head = replace(page.record.head, digest=body_digest(body), content_type="text/html")
        return PageFound(Record(head, body), page.page)

    def test_a_body_that_is_no_page_to_this_version_is_fetched_again(self) -> None:
        first = self.get()
        self.upstreams.answer(self.listing())
        self.successResultOf(first)
        self.start()
        served = self.successResultOf(self.get())
        page = Deferred.fromCoroutine(self.cache.parsed("six", served.head))
        self.upstreams.answer(self.found(SIX))
        self.assertEqual(self.successResultOf(page).files[0].filename, "six-1.0.tar.gz")

    def test_a_body_that_is_no_page_to_this_version_contradicts_no_mirror(self) -> None:
        first = self.get()
        self.upstreams.answer(self.listing())
        self.successResultOf(first)
        self.start()
        self.clock.advance(700)
        refreshed = self.get()
        self.upstreams.answer(self.of_mirror(SIX))
        self.assertEqual(self.files(self.successResultOf(refreshed)), [SIX.filename])

    def test_a_replaced_page_leaves_no_body_behind(self) -> None:
        self.warm(age=601)
        again = self.get()
        self.upstreams.answer(self.found(LATER))
        self.successResultOf(again)
        self.assertEqual(len(self.successResultOf(Deferred.fromCoroutine(self.records.keys("page1/")))), 2)

    def test_a_forgotten_page_is_asked_for_anew(self) -> None:
        self.warm()
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(self.cache.forget("six"))))
        self.get()
        self.assertEqual(self.upstreams.pages[-1][1], None)

    def test_a_page_older_than_stale_if_error_allows_is_an_error_when_upstream_fails(self) -> None:
        self.start(PageLimits(stale_if_error=60.0))
        self.warm(age=700)
        again = self.get()
        self.upstreams.answer(self.failed())
        self.failureResultOf(again, UpstreamFailed)
