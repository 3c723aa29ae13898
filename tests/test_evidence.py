"""Evidence about an upstream, against a time that the test names: what fails says something about itself alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Condition
from proxy.upstream.http.failures import Fault
from proxy.upstream.http.origin import Origin, origin_of
from proxy.upstream.pool.evidence import (
    FEWEST_FAILURES,
    FIRST_ADDRESS_REST,
    GOOD_PAGES,
    LAST_URLS,
    LONGEST_PAUSE,
    LONGEST_URL_REST,
    OVERTAKEN,
    SLOWEST_PACE,
    THROTTLED_URLS,
    UNANSWERED,
    WITHIN,
    Admission,
    Evidence,
    Refusal,
    State,
)
from tests.support.wheels import seeded

HOME = origin_of("https://packages.example/simple/")
FILES = origin_of("https://files.example/")


def page(project: str | int) -> str:
    return f"https://packages.example/simple/{project}/"


class Case:
    """An upstream's evidence, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changes: list[tuple[State, State]] = []
        self.evidence = Evidence(HOME, seeded(1), lambda old, new, why: self.changes.append((old, new)))

    def admit(self, url: str, origin: Origin = HOME) -> Admission | Refusal:
        return self.evidence.admit(url, origin, self.now)

    def fails(self, url: str, fault: Fault = Fault.USELESS, origin: Origin = HOME, retry_after: float | None = None) -> bool:
        """Ask for *url* in vain; false when it may not be asked for."""
        admitted = self.admit(url, origin)
        if isinstance(admitted, Refusal):
            return False
        self.evidence.failed(url, origin, fault, "no", self.now, retry_after=retry_after, probe=admitted.probe)
        return True

    def works(self, url: str, origin: Origin = HOME) -> bool:
        """Ask for *url* with success; false when it may not be asked for."""
        admitted = self.admit(url, origin)
        if isinstance(admitted, Refusal):
            return False
        self.evidence.answered(origin, None, self.now)
        self.evidence.succeeded(url, origin, self.now, probe=admitted.probe)
        return True

    def goes_down(self) -> None:
        self.evidence.order(HOME, ["192.0.2.1"], self.now)
        self.evidence.address_failed(HOME, "192.0.2.1", self.now, unreachable=True)
        assert self.fails(page("x"), Fault.UNREACHABLE)
        assert self.evidence.state is State.DOWN

    def pause(self) -> None:
        self.now += self.evidence.retry_in(self.now)


@pytest.mark.parametrize("fault", [Fault.USELESS, Fault.UNANSWERED, Fault.BROKEN, Fault.THROTTLED])
def test_one_url_may_fail_for_ever_and_nothing_else_is_refused(fault: Fault) -> None:
    case = Case()
    for number in range(1000):
        case.fails(page("bad"), fault)
        assert case.works(page(number))
        case.now += 0.2
    assert (case.evidence.condition(), case.changes) == (Condition.UP, [])


@given(st.lists(st.integers(0, FEWEST_FAILURES - 2), max_size=200), st.sampled_from([Fault.USELESS, Fault.BROKEN]))
def test_fewer_bad_urls_than_a_majority_never_bring_an_upstream_down(asked: list[int], fault: Fault) -> None:
    case = Case()
    for bad in asked:
        case.fails(page(f"bad{bad}"), fault)
        case.now += 0.5
        assert case.works(page("good"))
    assert case.changes == []


def test_most_of_the_last_different_urls_failing_within_a_minute_is_an_outage() -> None:
    case = Case()
    for number in range(FEWEST_FAILURES):
        assert case.fails(page(number))
    assert (case.evidence.state, case.evidence.condition()) == (State.DOWN, Condition.DOWN)
    assert isinstance(case.admit(page("other")), Refusal)


def test_failures_that_are_far_apart_are_no_outage() -> None:
    case = Case()
    for number in range(10 * FEWEST_FAILURES):
        assert case.fails(page(number))
        case.now += WITHIN / (FEWEST_FAILURES - 1) + 1
    assert case.changes == []


def test_an_equal_number_of_urls_that_work_and_fail_is_no_outage() -> None:
    case = Case()
    for number in range(LAST_URLS):
        assert case.works(page(f"good{number}"))
        assert case.fails(page(f"bad{number}"))
    assert case.changes == []


def test_urls_that_are_never_answered_are_an_outage_sooner() -> None:
    case = Case()
    for number in range(UNANSWERED):
        assert case.evidence.state is State.UP
        case.fails(page(number), Fault.UNANSWERED)
    assert case.evidence.state is State.DOWN


def test_a_majority_is_confirmed_by_a_page_that_is_known_to_work() -> None:
    case = Case()
    case.evidence.page_worked("good")
    for number in range(FEWEST_FAILURES):
        case.fails(page(number))
    assert (case.evidence.state, case.evidence.probe_due(case.now), case.evidence.good_page) == (State.UP, True, "good")
    probe = case.evidence.admit_probe()
    assert case.works(page("other"))
    case.evidence.succeeded(page("good"), HOME, case.now, probe=probe.probe)
    assert (case.evidence.state, case.evidence.probe_due(case.now), case.changes) == (State.UP, False, [])
    for number in range(FEWEST_FAILURES):
        case.fails(page(f"more{number}"))
    probe = case.evidence.admit_probe()
    case.evidence.failed(page("good"), HOME, Fault.USELESS, "no", case.now, probe=probe.probe)
    assert case.evidence.state is State.DOWN


def test_a_host_none_of_whose_addresses_accepts_a_connection_is_down_at_once() -> None:
    case = Case()
    assert case.evidence.order(HOME, ["192.0.2.1", "192.0.2.2"], case.now) == ["192.0.2.1", "192.0.2.2"]
    case.evidence.address_failed(HOME, "192.0.2.1", case.now, unreachable=True)
    case.fails(page("x"), Fault.UNREACHABLE)
    assert case.evidence.state is State.UP
    case.evidence.address_failed(HOME, "192.0.2.2", case.now, unreachable=True)
    case.fails(page("y"), Fault.UNREACHABLE)
    assert [each for each in case.changes if State.DOWN in each] == [(State.UP, State.DOWN)]


def test_a_name_that_cannot_be_resolved_is_down_at_once() -> None:
    case = Case()
    case.fails(page("x"), Fault.UNRESOLVED)
    assert case.evidence.state is State.DOWN


@pytest.mark.parametrize("fault", [Fault.UNRESOLVED, Fault.UNREACHABLE, Fault.USELESS, Fault.UNANSWERED])
def test_a_file_host_that_fails_says_nothing_about_the_index(fault: Fault) -> None:
    case = Case()
    for number in range(50):
        case.fails(f"https://files.example/{number}", fault, FILES)
    assert isinstance(case.admit("https://files.example/x", FILES), Refusal)
    assert (case.evidence.condition(), case.changes) == (Condition.UP, [])
    assert case.works(page("x"))


def test_pauses_grow_up_to_a_limit_and_have_jitter() -> None:
    case = Case()
    case.goes_down()
    pauses = []
    for number in range(9):
        pauses.append(case.evidence.retry_in(case.now))
        case.pause()
        assert case.fails(page(number), Fault.UNREACHABLE)
    assert all(0.74 * 2**n <= pause <= 1.26 * 2**n for n, pause in enumerate(pauses[:5]))
    assert max(pauses) <= 1.25 * LONGEST_PAUSE
    assert len({round(pause / 2**n, 3) for n, pause in enumerate(pauses[:5])}) > 1


def test_after_the_pause_one_request_is_the_probe_and_its_success_ends_the_outage() -> None:
    case = Case()
    case.goes_down()
    case.pause()
    probe = case.admit(page("a"))
    assert probe == Admission(probe=True)
    assert isinstance(case.admit(page("b")), Refusal)
    case.evidence.succeeded(page("a"), HOME, case.now, probe=True)
    assert (case.evidence.condition(), case.changes) == (Condition.UP, [(State.UP, State.DOWN), (State.PROBING, State.UP)])


def test_each_probe_asks_for_another_url_than_those_that_failed() -> None:
    case = Case()
    case.goes_down()
    for project in ("a", "b", "c"):
        assert isinstance(case.admit(page(project)), Refusal)
    case.pause()
    assert case.fails(page("a"))
    case.pause()
    assert isinstance(case.admit(page("a")), Refusal)
    assert case.fails(page("b"))
    case.pause()
    assert isinstance(case.admit(page("a")), Refusal)
    assert isinstance(case.admit(page("b")), Refusal)
    assert case.works(page("c"))
    assert case.evidence.state is State.UP


def test_a_url_may_be_the_probe_again_when_nobody_waits_for_another_one() -> None:
    case = Case()
    case.goes_down()
    for _ in range(5):
        case.now += 10 * LONGEST_PAUSE
        assert case.fails(page("only"))
    case.now += 10 * LONGEST_PAUSE
    assert case.works(page("only"))


def test_a_page_that_worked_is_what_probes_ask_for_and_not_what_clients_wait_for() -> None:
    case = Case()
    for number in range(2 * GOOD_PAGES):
        case.evidence.page_worked(f"good{number}")
    case.goes_down()
    assert not case.evidence.probe_due(case.now)
    case.pause()
    assert isinstance(case.admit(page("bad")), Refusal)
    asked = []
    for _ in range(GOOD_PAGES):
        project = case.evidence.good_page
        assert project is not None
        asked.append(project)
        probe = case.evidence.admit_probe()
        case.evidence.failed(page(project), HOME, Fault.USELESS, "no", case.now, probe=probe.probe)
        case.evidence.page_failed(project)
        case.now += 2 * LONGEST_PAUSE
    assert asked == [f"good{number}" for number in reversed(range(GOOD_PAGES, 2 * GOOD_PAGES))]
    assert case.works(page("bad")), "when none of them works any more, a waiting request is the probe"


@pytest.mark.parametrize("end", ["abandoned", "no evidence", "throttled"])
def test_a_probe_that_says_nothing_makes_room_for_the_next(end: str) -> None:
    case = Case()
    case.goes_down()
    case.pause()
    assert case.admit(page("a")) == Admission(probe=True)
    if end == "abandoned":
        case.evidence.abandoned(HOME, probe=True)
    else:
        fault = Fault.NO_EVIDENCE if end == "no evidence" else Fault.THROTTLED
        case.evidence.failed(page("a"), HOME, fault, "no", case.now, probe=True)
    assert (case.evidence.state is State.UP) is (end == "throttled"), "who answers 429 is there"
    case.pause()
    assert case.works(page("b"))
    assert case.evidence.state is State.UP


@pytest.mark.parametrize("fault", [Fault.NO_EVIDENCE, Fault.CREDENTIALS])
def test_a_probe_that_is_refused_with_an_answer_ends_the_outage(fault: Fault) -> None:
    case = Case()
    case.goes_down()
    case.pause()
    assert case.admit(page("a")) == Admission(probe=True)
    case.evidence.failed(page("a"), HOME, fault, "401", case.now, probe=True, answered=True)
    assert case.evidence.state is State.UP


def test_credentials_that_are_refused_are_the_last_failure_and_do_not_take_the_upstream_down() -> None:
    case = Case()
    for project in range(2 * LAST_URLS):
        assert case.fails(page(project), Fault.CREDENTIALS)
    known = case.evidence
    assert (known.state, known.condition(), known.failures, known.last_failure) == (State.UP, Condition.UP, 2 * LAST_URLS, "no")
    assert case.works(page(0)), "no URL rests: the next request may have other credentials"


def test_a_url_whose_rivals_have_left_may_be_the_probe_again() -> None:
    case = Case()
    case.goes_down()
    for project in ("a", "b"):
        assert isinstance(case.admit(page(project)), Refusal)
    case.pause()
    assert case.fails(page("a"))
    case.now += 2 * LONGEST_PAUSE
    assert case.works(page("a")), "nobody has asked for b for a long time"


def test_requests_that_were_under_way_when_it_went_down_do_not_lengthen_the_pause() -> None:
    case = Case()
    case.goes_down()
    pause = case.evidence.retry_in(case.now)
    for number in range(20):
        case.evidence.failed(page(number), HOME, Fault.USELESS, "no", case.now)
    assert case.evidence.retry_in(case.now) == pause


@pytest.mark.parametrize(("asked", "rest"), [(300.0, LONGEST_URL_REST), (7.0, 7.0), (0.0, 0.0), (None, 1.0)])
def test_retry_after_rests_its_own_url_and_at_most_a_minute(asked: float | None, rest: float) -> None:
    case = Case()
    assert case.fails(page("busy"), Fault.THROTTLED, retry_after=asked)
    if rest:
        refused = case.admit(page("busy"))
        assert isinstance(refused, Refusal)
        assert refused.seconds == rest
    assert case.works(page("other"))
    case.now += rest
    assert case.works(page("busy"))


def test_a_url_that_fails_again_and_again_is_asked_for_less_and_less_often() -> None:
    case = Case()
    asked = 0
    for _ in range(5 * 600):
        asked += case.fails(page("bad"))
        case.now += 0.2
    assert 8 <= asked <= 20
    case.now += LONGEST_URL_REST
    assert case.works(page("bad"))
    assert case.fails(page("bad"))
    assert case.works(page("bad")), "one failure is no reason to rest"


def test_who_has_nobody_else_to_ask_cuts_the_rest_of_a_url_short_less_and_less_often() -> None:
    case = Case()
    assert case.fails(page("busy"), Fault.THROTTLED, retry_after=300.0)
    began, asked = case.now, []
    while case.now - began < 120.0:
        case.now += 0.25
        if isinstance(case.evidence.admit(page("busy"), HOME, case.now, insist=True), Admission):
            case.evidence.failed(page("busy"), HOME, Fault.THROTTLED, "429", case.now, retry_after=300.0)
            asked.append(case.now - began)
    assert asked == [1.0, 3.0, 7.0, 15.0, 31.0, 63.0]


def test_429s_on_several_urls_slow_the_origin_down_and_never_stop_it() -> None:
    case = Case()
    for number in range(100):
        assert case.fails(page(number), Fault.THROTTLED, retry_after=60.0)
        if number < THROTTLED_URLS - 1:
            assert case.evidence.pace(HOME, case.now) == 0.0
    assert 0.0 < case.evidence.pace(HOME, case.now) <= SLOWEST_PACE
    assert case.evidence.pace(FILES, case.now) == 0.0
    assert (case.evidence.state, case.works(page("other"))) == (State.UP, True)
    case.now += WITHIN + 1
    assert case.evidence.pace(HOME, case.now) == 0.0


def test_each_answer_makes_up_for_one_429() -> None:
    case = Case()
    for number in range(100):
        assert case.fails(page(f"refused{number}"), Fault.THROTTLED, retry_after=60.0)
        assert case.works(page(number))
        assert case.evidence.pace(HOME, case.now) == 0.0


def test_an_address_that_failed_is_tried_after_the_others_for_a_while() -> None:
    case = Case()
    addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    case.evidence.address_failed(HOME, "192.0.2.1", case.now, unreachable=False)
    assert case.evidence.order(HOME, addresses, case.now) == ["192.0.2.2", "192.0.2.3", "192.0.2.1"]
    assert case.evidence.resting(case.now) == ["192.0.2.1"]
    case.now += FIRST_ADDRESS_REST
    assert case.evidence.order(HOME, addresses, case.now) == addresses
    case.evidence.address_failed(HOME, "192.0.2.1", case.now, unreachable=False)
    case.now += FIRST_ADDRESS_REST
    assert case.evidence.order(HOME, addresses, case.now)[-1] == "192.0.2.1", "it rests for longer each time"
    case.evidence.answered(HOME, "192.0.2.1", case.now)
    assert case.evidence.order(HOME, addresses, case.now) == addresses


def test_slowness_counts_only_when_nothing_else_was_answered_meanwhile() -> None:
    case = Case()
    case.evidence.answered(HOME, None, case.now)
    case.evidence.slow(2.0, case.now + 1.0)
    assert case.evidence.condition() is Condition.UP
    case.evidence.slow(2.0, case.now + 2.0)
    assert case.evidence.condition() is Condition.SUSPECT
    case.evidence.answered(HOME, None, case.now + 3.0)
    assert case.evidence.condition() is Condition.UP


def test_two_different_urls_failing_in_a_row_make_an_upstream_suspect() -> None:
    case = Case()
    case.fails(page("a"))
    case.fails(page("a"))
    assert case.evidence.condition() is Condition.UP
    case.fails(page("b"))
    assert case.evidence.condition() is Condition.SUSPECT
    case.works(page("c"))
    assert case.evidence.condition() is Condition.UP


def test_being_overtaken_counts_when_it_was_long_or_happens_for_every_url() -> None:
    case = Case()
    case.evidence.overtaken(page("a"), HOME, 4.0, case.now, long=4.0)
    assert case.evidence.failures == 1
    case.works(page("a"))
    for _ in range(5):
        for number in range(OVERTAKEN - 1):
            case.evidence.overtaken(page(number), HOME, 0.1, case.now, long=4.0)
    assert case.evidence.failures == 1
    case.evidence.overtaken(page("another"), HOME, 0.1, case.now, long=4.0)
    assert case.evidence.failures == 2


Step = Callable[[Case, str], object]
_STEPS: list[Step] = [
    lambda case, url: case.fails(url),
    lambda case, url: case.fails(url, Fault.UNANSWERED),
    lambda case, url: case.fails(url, Fault.UNREACHABLE),
    lambda case, url: case.fails(url, Fault.THROTTLED, retry_after=300.0),
    lambda case, url: case.works(url),
    lambda case, url: case.evidence.order(HOME, ["192.0.2.1"], case.now),
    lambda case, url: case.evidence.address_failed(HOME, "192.0.2.1", case.now, unreachable=True),
    lambda case, url: case.evidence.abandoned(HOME, probe=isinstance(case.admit(url), Admission)),
]


@given(st.lists(st.tuples(st.sampled_from(range(len(_STEPS))), st.integers(0, 12), st.floats(0.0, 20.0)), max_size=60))
def test_whatever_happened_an_upstream_that_works_again_is_up_within_two_pauses(steps: list[tuple[int, int, float]]) -> None:
    case = Case()
    for step, url, seconds in steps:
        _STEPS[step](case, page(url))
        case.now += seconds
    for _ in range(3):
        case.now += 2 * LONGEST_PAUSE
        for number in range(13):
            case.works(page(number))
    assert case.evidence.condition() is Condition.UP
    assert case.works(page("new"))
