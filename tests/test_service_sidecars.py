"""Announced metadata is served whatever upstream does about it, and is never anything but metadata of that very file."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, ensureDeferred, gatherResults
from twisted.internet.task import Clock

from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.core.completeness import is_metadata_of
from proxy.mechanism.offload import Inline
from proxy.model import LedgerEntry
from proxy.repository.metadata import Sidecars
from proxy.settings import PageLimits
from proxy.statistics.recorders import UNRECORDED
from proxy.storage.memory import MemoryFiles, MemoryVersioned
from tests.inprocess import Running, Start, upstream_settings
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import Distribution, sdist, wheel

MADE = wheel("demo", size=200_000)
SIGN_IN = b"<!DOCTYPE html><html><body><form>Sign in</form></body></html>"
LIES = wheel("demo", requires=["malware"]).metadata
FOREIGN = wheel("other").metadata

#: What upstream may do about metadata that its page announces.
FAULTS = {
    "403": Fault(status=403),
    "401": Fault(status=401),
    "404": Fault(status=404),
    "410": Fault(status=410),
    "500": Fault(status=500),
    "503": Fault(status=503),
    "dropped": Fault(drop=True),
    "garbage": Fault(garbage=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "cut": Fault(cut_after=20),
    "reset": Fault(reset_after=20),
    "cut where only the connection ends it": Fault(body=MADE.metadata[:-20], no_content_length=True),
    "empty": Fault(body=b""),
    "204": Fault(status=204),
    "304": Fault(status=304),
    "sign-in page": Fault(body=SIGN_IN, headers={"Content-Type": "text/html"}),
    "XML error": Fault(body=b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
    "JSON error": Fault(body=b'{"message": "Not Found"}'),
    "another project's": Fault(body=FOREIGN),
    "redirect loop": Fault(redirect="/simple/demo/"),
    "too large": Fault(content_length=2**40),
    "coding that it is not in": Fault(body=b"\x1f\x8b" + b"x" * 100, headers={"Content-Encoding": "gzip"}),
}
STATED: dict[str, Callable[[Distribution], Any]] = {
    "true": lambda made: True,
    "digest": lambda made: {"sha256": hashlib.sha256(made.metadata).hexdigest()},
    "md5": lambda made: {"md5": hashlib.md5(made.metadata).hexdigest()},
}


def publish(upstream: FakeUpstream, made: Distribution, stated: Any, metadata: bytes | None = None) -> None:
    upstream.add_file(made.project, made.filename, made.data, metadata=metadata or made.metadata, core_metadata=stated)


async def metadata_path(proxy: Running, made: Distribution) -> str:
    return await proxy.link(made.project, made.filename) + ".metadata"


async def announced(proxy: Running, made: Distribution) -> Any:
    (entry,) = [file for file in (await proxy.page(made.project))["files"] if file["filename"] == made.filename]
    return entry.get("core-metadata")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("stated", STATED.values(), ids=STATED)
async def test_announced_metadata_is_served_whatever_upstream_answers(
    upstream: FakeUpstream, run: Start, fault: Fault, stated: Callable[[Distribution], Any]
) -> None:
    publish(upstream, MADE, stated(MADE))
    upstream.script("*.metadata", fault)
    proxy = await run(upstream)
    path = await metadata_path(proxy, MADE)
    for _ in range(2):
        reply = await proxy.get(path)
        assert (reply.status, reply.body) == (200, MADE.metadata)
    assert await announced(proxy, MADE) in ({"sha256": hashlib.sha256(MADE.metadata).hexdigest()}, stated(MADE))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fault", [Fault(silent=True), Fault(stall_after=10), Fault(trickle=(1, 1.0))], ids=["silent", "stalled", "slow"]
)
async def test_metadata_that_does_not_come_leaves_time_for_the_wheel(upstream: FakeUpstream, run: Start, fault: Fault) -> None:
    publish(upstream, MADE, True)
    upstream.script("*.metadata", fault)
    proxy = await run(upstream_settings(upstream.url, first_byte_timeout=60.0, body_idle_timeout=60.0))
    asked = ensureDeferred(proxy.get(await metadata_path(proxy, MADE)))
    reply = await asked.addTimeout(11.0, reactor)
    assert (reply.status, reply.body) == (200, MADE.metadata)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("stated", STATED.values(), ids=STATED)
@pytest.mark.parametrize("how", ["down", "silent", "500"])
async def test_the_metadata_of_a_stored_wheel_needs_no_upstream(
    upstream: FakeUpstream, run: Start, stated: Callable[[Distribution], Any], how: str
) -> None:
    publish(upstream, MADE, stated(MADE))
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=0.1))
    path = await proxy.link("demo", MADE.filename)
    await proxy.get(path)
    if how == "down":
        await upstream.down()
    elif how == "silent":
        upstream.silent()
    else:
        upstream.script("*", Fault(status=500))
    asked = len(upstream.asked)
    reply = await proxy.get(path + ".metadata")
    assert (reply.status, reply.body) == (200, MADE.metadata)
    assert len(upstream.asked) == asked


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "stated", [{"sha256": "0" * 64}, {"sha256": hashlib.sha256(LIES).hexdigest()}], ids=["nobody's", "lies"]
)
@pytest.mark.parametrize("stored", [False, True], ids=["cold", "stored"])
async def test_what_the_page_states_binds_and_what_nobody_has_is_not_announced_any_more(
    upstream: FakeUpstream, run: Start, stated: Any, stored: bool
) -> None:
    publish(upstream, MADE, stated)
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    if stored:
        await proxy.get(path)
    assert await announced(proxy, MADE) == stated
    reply = await proxy.get(path + ".metadata")
    assert (reply.status, "page states" in reply.reason) == (404, True)
    assert await announced(proxy, MADE) is False
    html = (await proxy.get("/simple/demo/", Accept="text/html")).body
    assert b"core-metadata" not in html
    assert (await proxy.get(path)).body == MADE.data


@pytest_twisted.ensureDeferred
async def test_when_the_page_states_something_else_it_is_tried_again(upstream: FakeUpstream, run: Start) -> None:
    publish(upstream, MADE, {"sha256": "0" * 64})
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    path = await metadata_path(proxy, MADE)
    assert (await proxy.get(path)).status == 404
    publish(upstream, MADE, STATED["digest"](MADE))
    assert await announced(proxy, MADE) == STATED["digest"](MADE)
    assert (await proxy.get(path)).body == MADE.metadata


@pytest_twisted.ensureDeferred
async def test_upstreams_own_metadata_is_served_where_only_that_is_what_the_page_states(
    upstream: FakeUpstream, run: Start
) -> None:
    """As when going direct: what clients make of a wheel with other metadata is up to them."""
    publish(upstream, MADE, {"sha256": hashlib.sha256(LIES).hexdigest()}, LIES)
    proxy = await run(upstream)
    path = await proxy.link("demo", MADE.filename)
    await proxy.get(path)
    assert (await proxy.get(path + ".metadata")).body == LIES


@pytest_twisted.ensureDeferred
async def test_what_was_served_once_stays_when_the_page_states_other_metadata_later(upstream: FakeUpstream, run: Start) -> None:
    upstream.add_file("demo", MADE.filename, MADE.data)
    proxy = await run(upstream, limits=PageLimits(ttl=0.0, soft_deadline=5.0))
    path = await metadata_path(proxy, MADE)
    await proxy.get(path)
    publish(upstream, MADE, {"sha256": hashlib.sha256(LIES).hexdigest()}, LIES)
    assert await announced(proxy, MADE) == {"sha256": hashlib.sha256(MADE.metadata).hexdigest()}
    assert (await proxy.get(path)).body == MADE.metadata


@pytest_twisted.ensureDeferred
async def test_failing_metadata_does_not_take_upstream_out(upstream: FakeUpstream, run: Start) -> None:
    made = [wheel("many", f"{number}.0") for number in range(12)]
    for each in made:
        publish(upstream, each, True)
    upstream.script("*.metadata", Fault(status=500))
    proxy = await run(upstream)
    paths = [await metadata_path(proxy, each) for each in made]
    replies = await gatherResults([ensureDeferred(proxy.get(path)) for path in paths])
    assert [reply.body for reply in replies] == [each.metadata for each in made]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kept", [SIGN_IN, b"", FOREIGN])
async def test_what_an_earlier_version_kept_for_metadata_is_looked_into_and_forgotten(kept: bytes) -> None:
    files, pins = FileCache(MemoryFiles(), Inline()), Ledger(MemoryVersioned(), 10_000, Inline())
    sidecars = Sidecars(files, pins, Inline(), time.time, Clock(), UNRECORDED)
    for data in (MADE.metadata, kept):
        sha256 = await files.keep(data)
        await pins.put("pypi", "demo", "none/a.whl.metadata", LedgerEntry(sha256, len(data), {}, "", 0.0))
        found = await sidecars.stored("pypi", "demo", "none", "a.whl")
        assert (found is not None) == (data == MADE.metadata)
        if found is not None:
            found.close()
    assert not await pins.of("pypi", "demo")


@pytest_twisted.ensureDeferred
async def test_who_leaves_while_stored_metadata_is_looked_into_leaves_no_open_file() -> None:
    class Leaving(Inline):
        async def run(self, function, *args):  # type: ignore[no-untyped-def]  # any function
            if function is is_metadata_of:
                raise CancelledError
            return await super().run(function, *args)

    files, pins = FileCache(MemoryFiles(), Inline()), Ledger(MemoryVersioned(), 10_000, Inline())
    sidecars = Sidecars(files, pins, Leaving(), time.time, Clock(), UNRECORDED)
    sha256 = await files.keep(MADE.metadata)
    await pins.put("pypi", "demo", "none/a.whl.metadata", LedgerEntry(sha256, len(MADE.metadata), {}, "", 0.0))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CancelledError):
        await sidecars.stored("pypi", "demo", "none", "a.whl")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("length", [255, 250])
async def test_names_as_long_as_a_file_system_takes_have_companions(upstream: FakeUpstream, run: Start, length: int) -> None:
    tail = "-1.0-py3-none-any.whl"
    made = replace(wheel("demo"), filename="demo" + "_" * (length - 4 - len(tail)) + tail)
    upstream.add_path("/provenance", b'{"version": 1}', "application/json")
    publish(upstream, made, None)
    proxy = await run(upstream)
    path = await proxy.link("demo", made.filename)
    assert (await proxy.get(path)).body == made.data
    assert (await proxy.get(path + ".metadata")).body == made.metadata
    assert "no provenance" in (await proxy.get(path + ".provenance")).reason
    assert (await proxy.get(path + "x")).status == 404


# -- source archives --------------------------------------------------------------------------------------------------------


SDIST = sdist("src")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [None, *FAULTS.values()], ids=["well", *FAULTS])
@pytest.mark.parametrize("stored", [False, True], ids=["cold", "stored"])
async def test_the_announced_metadata_of_an_sdist_is_read_out_of_it_where_upstream_has_none(
    upstream: FakeUpstream, run: Start, fault: Fault | None, stored: bool
) -> None:
    publish(upstream, SDIST, STATED["digest"](SDIST))
    if fault is not None:
        upstream.script("*.metadata", fault)
    proxy = await run(upstream)
    if stored:
        await proxy.get(await proxy.link("src", SDIST.filename))
    assert (await proxy.get(await metadata_path(proxy, SDIST))).body == SDIST.metadata


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("version", ["2.1", "2.4"])
async def test_what_an_sdist_says_of_itself_is_believed_only_from_the_version_on_that_promises_it(
    upstream: FakeUpstream, run: Start, version: str
) -> None:
    made = sdist("src", metadata_version=version)
    publish(upstream, made, True)
    upstream.script("*.metadata", Fault(status=404))
    proxy = await run(upstream)
    reply = await proxy.get(await metadata_path(proxy, made))
    if version == "2.4":
        assert (reply.status, reply.body) == (200, made.metadata)
    else:
        assert (reply.status, "leaves fields to the build" in reply.reason) == (404, True)
        assert await announced(proxy, made) is False


# -- provenance --------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["403", "500", "dropped", "empty", "sign-in page", "cut", "silent"])
@pytest.mark.parametrize("where", ["provenance", "everything"])
async def test_provenance_that_was_served_is_served_when_upstream_fails(
    make_upstream: Any, run: Start, tmp_path: Path, name: str, where: str
) -> None:
    upstream: FakeUpstream = make_upstream(tls=certs.server_context())
    path = "/integrity/demo/1.0/provenance"
    upstream.add_file("demo", MADE.filename, MADE.data, provenance=f"{upstream.base}{path}")
    upstream.add_path(path, b'{"version":1}', "application/json")
    ca_file = certs.authority().write(tmp_path, "ca")[0]
    proxy = await run(upstream_settings(upstream.url, "pypi", ca_file=ca_file), limits=PageLimits(ttl=0.0, soft_deadline=0.1))
    there = await proxy.link("demo", MADE.filename) + ".provenance"
    assert (await proxy.get(there)).body == b'{"version":1}'
    fault = Fault(silent=True) if name == "silent" else replace(FAULTS[name], cut_after=5 if name == "cut" else None)
    upstream.script(path if where == "provenance" else "*", fault)
    reply = await proxy.get(there)
    assert (reply.status, reply.body) == (200, b'{"version":1}')
