"""Verifying the tree: damage is found, set aside and repaired; names and bytes that lost each other are found again."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from proxy.administration.verifying import Pace, Verifying
from proxy.cli import main
from proxy.commands import asking
from proxy.commands.verify import ProgressLines
from proxy.policy.policy import Policy
from tests.inprocess import Running, Start
from tests.support import wire
from tests.support.fake_upstream import FakeUpstream
from tests.support.larger_than import LargerThan
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.support.wheels import Distribution, wheel

reactor: Any = default_reactor

SIX, ATTRS = wheel("six", size=5_000, seed=1), wheel("attrs", size=3_000, seed=2)


class Tree:
    """The stored files below *data_dir*."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def path(self, which: Distribution | str) -> Path:
        digest = which if isinstance(which, str) else which.sha256
        return self.data_dir / "files" / digest[:2] / digest

    def damage(self, which: Distribution) -> None:
        """Change one byte in the middle."""
        data = bytearray(which.data)
        data[2_000] ^= 1
        self.path(which).write_bytes(data)

    def good(self, which: Distribution) -> bool:
        return self.path(which).exists() and self.path(which).read_bytes() == which.data

    def quarantined(self) -> list[str]:
        return sorted(each.name for each in self.data_dir.glob("quarantine/*"))


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    for each in (SIX, ATTRS):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    return upstream


async def served(stocked: FakeUpstream, run: Start) -> Running:
    """A proxy that has served both files and their metadata."""
    proxy = await run(stocked)
    for each in (SIX, ATTRS):
        path = await proxy.link(each.project, each.filename)
        assert (await proxy.get(path)).body == each.data
        assert (await proxy.get(f"{path}.metadata")).body == each.metadata
    return proxy


async def verify(data_dir: Path, **arguments: Any) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """The sums and the problems that a verification finds."""
    said: list[dict[str, Any]] = []
    tally = await deferToThread(asking.ask, data_dir, "verify", arguments, said.append)
    return tally, [each for each in said if "problem" in each]


@pytest_twisted.ensureDeferred
async def test_a_sound_tree_has_nothing_to_tell(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    await served(stocked, run)
    tally, problems = await verify(tmp_path / "data")
    size = sum(len(each.data) + len(each.metadata) for each in (SIX, ATTRS))
    assert tally == {
        "files": 4,
        "bytes": size,
        "damaged": 0,
        "missing": 0,
        "unnamed": 0,
        "unreadable": 0,
        "repaired": 0,
        "left": 0,
    }
    assert problems == []


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_is_set_aside_and_fetched_again_when_it_is_asked_for(
    stocked: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "data")
    proxy = await served(stocked, run)
    tree.damage(SIX)
    wrong = hashlib.sha256(tree.path(SIX).read_bytes()).hexdigest()
    tally, (problem,) = await verify(tree.data_dir)
    assert (tally["damaged"], tally["repaired"], tally["left"]) == (1, 0, 1)
    assert (problem["problem"], problem["sha256"], problem["repaired"]) == ("damaged", SIX.sha256, False)
    assert problem["what"] == f"its bytes are sha256-{wrong}"
    assert [each["filename"] for each in problem["names"]] == [SIX.filename]
    assert tree.quarantined() == [SIX.sha256]
    assert not tree.path(SIX).exists()
    reply = await proxy.get(await proxy.link("six", SIX.filename))
    assert reply.body == SIX.data
    assert tree.good(SIX)


@pytest_twisted.ensureDeferred
async def test_a_repair_fetches_what_is_damaged_and_what_is_missing(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data")
    await served(stocked, run)
    tree.damage(SIX)
    tree.path(ATTRS).unlink()
    tree.path(hashlib.sha256(ATTRS.metadata).hexdigest()).unlink()
    tally, problems = await verify(tree.data_dir, repair=True)
    assert (tally["damaged"], tally["missing"], tally["repaired"], tally["left"]) == (1, 2, 3, 0)
    assert {each["problem"] for each in problems if each["repaired"]} == {"damaged", "missing"}
    assert tree.good(SIX)
    assert tree.good(ATTRS)
    assert (await verify(tree.data_dir))[0]["left"] == 0


@pytest_twisted.ensureDeferred
async def test_a_repair_fetches_what_clients_may_not_see(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data")
    proxy = await served(stocked, run)
    path = await proxy.link("six", SIX.filename)
    await proxy.stop()
    proxy = await run(stocked, policy=Policy((LargerThan(1_000),)))
    assert (await proxy.get(path)).status == 404
    tree.damage(SIX)
    tally, _ = await verify(tree.data_dir, repair=True)
    assert (tally["damaged"], tally["repaired"], tally["left"]) == (1, 1, 0)
    assert tree.good(SIX)
    assert (await proxy.get(path)).status == 404


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_repaired_is_told_with_its_reason(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data")
    await served(stocked, run)
    tree.damage(SIX)
    await stocked.down()
    tally, (problem,) = await verify(tree.data_dir, repair=True)
    assert (tally["damaged"], tally["repaired"], tally["left"]) == (1, 0, 1)
    assert problem["error"].startswith(f"{SIX.filename}: cannot fetch {SIX.filename}: up0: ")


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_set_aside_is_not_called_repaired(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data")
    await served(stocked, run)
    tree.damage(SIX)
    (tree.data_dir / "quarantine").write_text("in the way")
    tally, (problem,) = await verify(tree.data_dir, repair=True)
    assert (tally["damaged"], tally["repaired"], tally["left"]) == (1, 0, 1)
    assert problem["what"].endswith(", and it cannot be set aside: File exists")


@pytest_twisted.ensureDeferred
async def test_where_files_are_evicted_a_missing_one_is_no_problem_unless_it_is_pinned(
    stocked: FakeUpstream, run: Start, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "data")
    proxy = await run(stocked, max_size=10**9)
    for each in (SIX, ATTRS):
        await proxy.get(await proxy.link(each.project, each.filename))
    await deferToThread(asking.ask, tree.data_dir, "pin", {"project": "six"}, lambda said: None)
    for each in (SIX, ATTRS):
        tree.path(each).unlink()
    tally, problems = await verify(tree.data_dir, repair=True)
    assert (tally["missing"], tally["repaired"]) == (1, 1)
    assert [each["sha256"] for each in problems] == [SIX.sha256]
    assert not tree.path(ATTRS).exists()


@pytest_twisted.ensureDeferred
async def test_bytes_whose_record_was_lost_get_their_name_back(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "data")
    proxy = await served(stocked, run)
    await proxy.stop()
    for database in ("records", "ledger", "ledger-copy"):
        shutil.rmtree(tree.data_dir / database)
    proxy = await run(stocked)
    nobodys = hashlib.sha256(b"nobody's").hexdigest()
    tree.path(nobodys).parent.mkdir(exist_ok=True)
    tree.path(nobodys).write_bytes(b"nobody's")

    tally, problems = await verify(tree.data_dir, repair=True)
    assert (tally["unnamed"], tally["repaired"], tally["left"]) == (5, 0, 0)
    assert {each["error"] for each in problems} == {"no page that is kept lists it"}

    for each in ("six", "attrs"):
        await proxy.page(each)
    tally, problems = await verify(tree.data_dir, repair=True)
    assert (tally["unnamed"], tally["repaired"]) == (5, 4)
    called = {each["sha256"]: [name["filename"] for name in each["names"]] for each in problems}
    assert called[SIX.sha256] == [SIX.filename]
    assert called[hashlib.sha256(SIX.metadata).hexdigest()] == [f"{SIX.filename}.metadata"]
    assert called[nobodys] == []
    assert (await verify(tree.data_dir))[0]["unnamed"] == 1

    await stocked.down()
    path = await proxy.link("six", SIX.filename)
    assert (await proxy.get(path)).body == SIX.data
    assert (await proxy.get(f"{path}.metadata")).body == SIX.metadata


@pytest_twisted.ensureDeferred
async def test_what_comes_while_the_tree_is_read_is_not_missing(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    proxy = await run(stocked)
    assert (await proxy.get(await proxy.link("six", SIX.filename))).body == SIX.data
    clock = Clock()
    clock.rightNow = reactor.seconds()
    operations = proxy.service.administration
    working = replace(operations.working, reactor=clock)
    verifying = Verifying(operations.indexes, operations.stores, working)
    problems: list[Any] = []
    verification = Deferred.fromCoroutine(verifying.verify(problems.append, rate=1_000))
    await wait_for(lambda: bool(clock.getDelayedCalls()))
    assert (await proxy.get(await proxy.link("attrs", ATTRS.filename))).body == ATTRS.data
    for _ in range(10):
        await wait_for(lambda: bool(clock.getDelayedCalls()) or verification.called)
        clock.advance(1)
    tally = await verification
    assert (tally["files"], tally["bytes"], tally["missing"]) == (1, len(SIX.data), 0)
    assert [each for each in problems if "problem" in each] == []
    assert problems[0]["of"] == {"files": 1, "bytes": len(SIX.data)}


def test_the_pace_holds_the_rate_over_many_pieces() -> None:
    clock = Clock()
    pace = Pace(clock, 1_000)
    assert pace.piece == 1_000

    async def read() -> float:
        for count in (1_000, 500, 1, 1_499):
            await pace.read(count)
        return clock.seconds()

    ended: list[float] = []
    Deferred.fromCoroutine(read()).addCallback(ended.append)
    for _ in range(400):
        clock.advance(0.01)
    assert ended == [pytest.approx(3.0, abs=0.05)]


@pytest_twisted.ensureDeferred
async def test_a_rate_of_nothing_is_refused(stocked: FakeUpstream, run: Start, tmp_path: Path) -> None:
    await run(stocked)
    with pytest.raises(asking.OperationFailed, match="a rate of 0 bytes a second never comes to an end"):
        await verify(tmp_path / "data", rate=0)


@pytest.mark.parametrize("rate", ["0B/s", "fast", "50"])
def test_a_rate_that_makes_no_sense_is_refused(rate: str) -> None:
    result = CliRunner().invoke(main, ["verify", "--rate", rate])
    assert result.exit_code == 2
    assert f"{rate!r} is no rate; expected bytes per second, such as 50MB/s" in result.stderr


async def wait_for(condition: Callable[[], bool]) -> None:
    """Look until *condition* holds: nothing tells when another process has a file open."""
    deadline = reactor.seconds() + 20.0
    while not condition():
        assert reactor.seconds() < deadline
        await deferLater(reactor, 0.02)


def has_open(pid: int, path: Path) -> bool:
    """Whether the process has the file open."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(os.path.realpath(each) == str(path) for each in folder.iterdir())
    except FileNotFoundError:
        return False


def test_progress_that_is_piped_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = ProgressLines(clock.seconds)
    for _ in range(25):
        clock.advance(1.0)
        progress.show({"files": 1_200, "bytes": 3_000_000}, {"files": 5_000, "bytes": 40_000_000})
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["checked 1,200 of 5,000 files, 3.0 MB of 40.0 MB"] * 2
    assert printed.out == ""


# -- as processes ----------------------------------------------------------------------------------------------------------


async def with_six(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> tuple[ProxyProcess, Operator]:
    """A running proxy that has stored the wheel of six, and who works on its data directory."""
    config = f'[upstream.up]\nurl = "{stocked.url}"\n[[index]]\nname = "pypi"\nupstreams = ["up"]\nprefetch = false\n'
    proxy = await make_proxy(config=config).started()
    page = (await wire.fetch(proxy.port, "/simple/six/", Accept="application/vnd.pypi.simple.v1+json")).json
    path = "/" + page["files"][0]["url"].removeprefix("../../")
    assert (await wire.fetch(proxy.port, path)).body == SIX.data
    return proxy, Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("running", [True, False], ids=["running", "not running"])
async def test_the_command_finds_and_repairs_damage_whether_the_proxy_runs_or_not(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path, running: bool
) -> None:
    proxy, operator = await with_six(stocked, make_proxy, tmp_path)
    tree = Tree(proxy.data_dir)
    if not running:
        await proxy.stop()
    size = f"{len(SIX.data) / 1000:.1f} kB"

    ended = await operator.run("verify", "--rate", "50MB/s")
    assert (ended.status, ended.output) == (
        0,
        f"1 file read, {size}: 0 damaged, 0 missing, 0 orphaned; 0 repaired\n",
    )
    tree.damage(SIX)
    ended = await operator.run("verify")
    assert ended.status == 1
    problem, sums = ended.output.splitlines()
    assert problem.startswith(f"damaged pypi: {SIX.filename} ({size}, sha256-{SIX.sha256}): its bytes are sha256-")
    assert sums == f"1 file read, {size}: 1 damaged, 0 missing, 0 orphaned; 0 repaired"
    assert tree.quarantined() == [SIX.sha256]

    ended = await operator.run("verify", "--repair", "--quiet")
    missing = f"missing pypi: {SIX.filename} ({size}, sha256-{SIX.sha256}): no file of that digest was found; fetched again"
    assert (ended.status, ended.output.splitlines()) == (0, [missing])
    assert tree.good(SIX)
    tree.path(SIX).unlink()
    found, tally = await operator.lines("verify", "--repair")
    assert (found["problem"], found["repaired"], tally["left"]) == ("missing", True, 0)
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_without_a_running_proxy_the_output_is_that_of_the_command(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    proxy, operator = await with_six(stocked, make_proxy, tmp_path)
    await proxy.stop()
    await stocked.down()
    Tree(proxy.data_dir).path(SIX).unlink()
    ended = await operator.run("verify", "--repair")
    problem, sums = ended.output.splitlines()
    assert problem.startswith(f"missing pypi: {SIX.filename} ")
    assert "connection refused" in problem
    assert sums.startswith("0 files read, 0 B: 0 damaged, 1 missing")

    (proxy.data_dir / "ledger" / "records.db").write_bytes(b"no database" * 1000)
    ended = await operator.run("pins", "--json")
    damaged, lost = ended.output.splitlines()
    assert damaged.startswith(
        "error: the database ledger is damaged (file is not a database) and was set aside as ledger.damaged-"
    )
    assert lost == "error: ledger/ was lost: it is made again out of its copy"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("running", [True, False], ids=["running", "not running"])
async def test_an_interrupt_ends_a_long_verification(
    stocked: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path, running: bool
) -> None:
    proxy = await make_proxy(stocked.url).started()
    tree = Tree(proxy.data_dir)
    huge = b"\0" * 1_000_000
    digest = hashlib.sha256(huge).hexdigest()
    tree.path(digest).parent.mkdir(parents=True)
    tree.path(digest).write_bytes(huge)
    if not running:
        await proxy.stop()
    process = Operator(tmp_path, proxy.data_dir).start("verify", "--rate", "1kB/s")
    reader = proxy.process.pid if proxy.process is not None else process.pid
    await wait_for(lambda: has_open(reader, tree.path(digest)))
    process.signal(signal.SIGINT)
    ended = await process.end()
    assert (ended.status, ended.output) == (130, "interrupted\n")
    if running:
        await wait_for(lambda: not has_open(reader, tree.path(digest)))
        assert (await wire.fetch(proxy.port, "/-/ready")).status == 200
    assert "Traceback" not in proxy.log
