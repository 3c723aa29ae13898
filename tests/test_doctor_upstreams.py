"""What ``pypiproxy doctor`` finds out about upstreams, at each of their addresses, with a handful of requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor

from proxy.doctor.findings import Diagnosis, Grade
from proxy.doctor.probing import ProbeMeans, Prober, SeenHead
from proxy.doctor.upstreams import clock_difference, judged
from proxy.interfaces import IOffload
from proxy.mechanism.offload import Inline
from proxy.mechanism.rotating import Observing
from proxy.settings import UpstreamSettings
from proxy.statistics.recorders import UNRECORDED
from proxy.upstream.http.identity import Identity
from tests.evidence import Make, MakeAddresses
from tests.inprocess import upstream_settings
from tests.support import certs
from tests.support.addresses import sicken
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

reactor: Any = default_reactor
NOW = 1_900_000_000.0


def means(now: float = NOW, limit: float = 5.0, files: IOffload | None = None) -> ProbeMeans:
    """What probes are made with, at the time *now*; *files* is for looks at this machine."""
    offload = Inline()
    observing = Observing(offload, UNRECORDED, lambda: now)
    return ProbeMeans(reactor, offload, files or offload, observing, lambda: now, Identity("doctor", "pypiproxy-test"), limit)


async def examined(settings: UpstreamSettings, project: str = "six", now: float = NOW, limit: float = 5.0) -> list[Diagnosis]:
    """What is found about the upstream of *settings*."""
    made = means(now, limit)
    prober = Prober(settings, made)
    try:
        return judged(await prober.probe(project), now)
    finally:
        await prober.close()


def fill(upstream: FakeUpstream) -> None:
    """Give it a project with a wheel and its metadata, and the right time."""
    made = wheel("six")
    upstream.add_file("six", made.filename, made.data, metadata=made.metadata)


def at(now: float, **more: Any) -> Fault:
    """Answers that bear the time *now*."""
    return Fault(headers={"Date": formatdate(now, usegmt=True)}, **more)


def bad(found: Sequence[Diagnosis]) -> list[tuple[str, Grade]]:
    """What is not in order; each has advice."""
    assert all((each.advice is None) == (each.grade is Grade.OK) for each in found)
    return [(each.check, each.grade) for each in found if each.grade is not Grade.OK]


def one(found: Sequence[Diagnosis], check: str) -> Diagnosis:
    """The only finding of this kind."""
    (each,) = [each for each in found if each.check == check]
    return each


@pytest_twisted.ensureDeferred
async def test_an_upstream_in_order_is_asked_three_times(upstream: FakeUpstream) -> None:
    fill(upstream)
    upstream.script("*", at(NOW))
    found = await examined(upstream_settings(upstream.url))
    assert bad(found) == []
    assert {each.check for each in found} == {"dns", "address", "clock", "json", "ranges", "metadata"}
    assert sorted(each.path.rpartition(".")[2] for each in upstream.asked) == sorted(["/simple/six/", "whl", "metadata"])


@pytest.mark.parametrize(("ahead", "grade", "words"), [(-45.0, Grade.WARNING, "ahead of"), (7200.0, Grade.FAULT, "behind")])
@pytest_twisted.ensureDeferred
async def test_a_clock_that_disagrees_is_found(upstream: FakeUpstream, ahead: float, grade: Grade, words: str) -> None:
    fill(upstream)
    upstream.script("*", at(NOW + ahead))
    found = await examined(upstream_settings(upstream.url))
    assert bad(found) == [("clock", grade)]
    assert words in one(found, "clock").seen


@pytest_twisted.ensureDeferred
async def test_each_address_is_asked_and_a_dead_one_is_named(at_addresses: MakeAddresses) -> None:
    up = await at_addresses()
    fill(up.first)
    await sicken(up.at[1], "dead")
    found = await examined(upstream_settings(up.url))
    assert bad(found) == [("address", Grade.FAULT)]
    (dead,) = [each for each in found if each.grade is Grade.FAULT]
    assert dead.seen == "127.0.0.2: connection refused"
    assert up.counts("/simple/*") == [1, 0, 1]


@pytest_twisted.ensureDeferred
async def test_a_silent_address_costs_no_more_than_the_limit(upstream: FakeUpstream) -> None:
    upstream.silent()
    found = await examined(upstream_settings(upstream.url, first_byte_timeout=60.0), limit=0.2)
    assert bad(found) == [("address", Grade.FAULT)]
    assert one(found, "address").seen == "127.0.0.1: no answer within 0.2 s"


@pytest_twisted.ensureDeferred
async def test_a_name_without_an_address_is_found() -> None:
    found = await examined(upstream_settings("http://nowhere.invalid./simple/"))
    assert bad(found) == [("dns", Grade.FAULT)]


@pytest_twisted.ensureDeferred
async def test_files_without_ranges_pages_without_json_and_metadata_that_is_missing_are_found(upstream: FakeUpstream) -> None:
    fill(upstream)
    upstream.content.json = False
    upstream.script("*.whl", Fault(ignore_range=True))
    upstream.script("*.metadata", Fault(status=404))
    found = await examined(upstream_settings(upstream.url))
    assert bad(found) == [("json", Grade.WARNING), ("ranges", Grade.WARNING), ("metadata", Grade.WARNING)]
    assert "HTML only" in one(found, "json").seen


@pytest_twisted.ensureDeferred
async def test_a_file_on_a_host_that_may_not_be_asked_is_a_fault(upstream: FakeUpstream, make_upstream: Make) -> None:
    index = make_upstream(file_host=upstream)
    upstream.host = "files.example"
    fill(index)
    found = await examined(upstream_settings(index.url, file_hosts=("other.example",)))
    assert one(found, "file").grade is Grade.FAULT
    assert "file_hosts" in f"{one(found, 'file').seen} {one(found, 'file').advice}"


@pytest_twisted.ensureDeferred
async def test_a_project_that_the_upstream_lacks_is_no_fault_of_it(upstream: FakeUpstream) -> None:
    found = await examined(upstream_settings(upstream.url), "gone")
    assert bad(found) == [("page", Grade.WARNING)]
    assert "--project" in str(one(found, "page").advice)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (certs.server(expired=True), "has expired"),
        (certs.server("other.example"), "is for other.example and not for the host"),
        (certs.server(issuer="another authority"), "an authority that is not trusted here"),
    ],
    ids=["expired", "other host", "other authority"],
)
@pytest_twisted.ensureDeferred
async def test_a_certificate_that_is_refused_is_explained(
    make_upstream: Make, tmp_path: Path, identity: certs.Identity, words: str
) -> None:
    authority, _ = certs.authority().write(tmp_path, "ca")
    upstream = make_upstream(tls=certs.server_context(identity))
    fill(upstream)
    found = await examined(upstream_settings(upstream.url, ca_file=authority), now=time.time())
    assert bad(found) == [("address", Grade.FAULT), ("tls", Grade.FAULT)]
    assert words in one(found, "tls").seen


@pytest_twisted.ensureDeferred
async def test_a_certificate_is_to_be_renewed_before_its_end(make_upstream: Make, tmp_path: Path) -> None:
    authority, _ = certs.authority().write(tmp_path, "ca")
    upstream = make_upstream(tls=certs.server_context(certs.server()))
    fill(upstream)
    settings = upstream_settings(upstream.url, ca_file=authority)
    assert one(await examined(settings, now=time.time()), "tls").grade is Grade.OK
    end = certs.server().certificate.not_valid_after_utc.timestamp()
    assert one(await examined(settings, now=end - 86400.0), "tls").grade is Grade.WARNING


@pytest_twisted.ensureDeferred
async def test_no_credential_is_in_what_is_found(upstream: FakeUpstream) -> None:
    fill(upstream)
    upstream.script("*", Fault(status=401))
    url = upstream.url.replace("://", "://carol:f00tball@")
    for settings in (
        upstream_settings(upstream.url, username="carol", password="f00tball"),
        upstream_settings(upstream.url, token="f00tball"),
        upstream_settings(url),
        replace(upstream_settings(upstream.url), outbound_proxy="http://carol:f00tball@127.0.0.1:1"),
    ):
        found = await examined(settings)
        assert Grade.FAULT in {each.grade for each in found}
        assert "f00tball" not in repr(found)


@given(
    ahead=st.floats(-1e6, 1e6),
    seconds=st.floats(0, 5),
    age=st.none() | st.integers(0, 100_000),
)
def test_the_clock_is_judged_to_a_second_and_the_time_of_the_answer(ahead: float, seconds: float, age: int | None) -> None:
    """A cache on the way may have kept the Date of its answer and state the Age of that."""
    made = NOW + ahead - seconds
    date = formatdate(made - (age or 0), usegmt=True)
    found = clock_difference(SeenHead(date, None if age is None else str(age), NOW, seconds))
    assert found is not None
    assert abs(found) <= abs(ahead) + 1.0 or age
    assert age or abs(found - ahead) <= seconds + 1.5


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "x" * 1000])
def test_a_date_that_is_none_says_nothing_about_the_clock(date: str | None) -> None:
    assert clock_difference(SeenHead(date, None, NOW, 0.1)) is None
