"""Yanking, deleting, marking and promoting in hosted indexes: the next request sees it, on every route."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from packaging.version import Version
from twisted.internet.defer import Deferred, DeferredList

from proxy.administration import hosting
from proxy.cache.ledger import means
from proxy.core.uploads import Uploaded
from proxy.errors import BadRequest, BadUpload, FileExists, FilesChanged, NotFound, TooMuch
from proxy.hosted.folder import StandingFile
from proxy.names import version_of
from tests.hosting import drop, hosted, listed, standing, upload
from tests.inprocess import JSON, Running, Start
from tests.support.operator import Operator
from tests.support.process import ROOT, ProxyProcess, environment
from tests.support.process import Running as Spawned
from tests.support.promoting import INDEXES
from tests.support.wheels import sdist, wheel

WHEEL, SDIST, NEXT = wheel("app", "1.0"), sdist("app", "1.0"), wheel("app", "2.0")
CONFIG = """
[[index]]
name = "dev"
kind = "hosted"
default = true

[[index]]
name = "stable"
kind = "hosted"
uploads = false

[[index]]
name = "pypi"
offline = true
"""


async def stocked(serve: Start, *names: str, **settings: Any) -> Running:
    """A service with the hosted indexes *names*, the first of which has all files."""
    indexes = [hosted(name, default=number == 0, **(settings if number else {})) for number, name in enumerate(names)]
    proxy = await serve(indexes=tuple(indexes))
    for each in (WHEEL, SDIST, NEXT):
        assert await upload(proxy.service.receiving[names[0]], each) is Uploaded.NEW
    return proxy


async def perform(proxy: Running, operation: str, **arguments: Any) -> Any:
    return await proxy.service.administration.perform(operation, **arguments)


@pytest_twisted.ensureDeferred
async def test_a_yank_is_on_every_route_in_the_next_request(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev")
    for reason in ("broken & <b>wrong</b>", None):
        for _ in range(3):  # the page is hot
            assert not (await listed(proxy, "app"))[WHEEL.filename]["yanked"]
        changed = await perform(proxy, "yank", index="dev", project="App", which="1.0.0", reason=reason)
        assert [(each["filename"], each["yanked"]) for each in changed] == [
            (name, reason or True) for name in sorted((WHEEL.filename, SDIST.filename))
        ]
        files = await listed(proxy, "app")
        assert {name: file["yanked"] for name, file in files.items()} == {
            WHEEL.filename: reason or True,
            SDIST.filename: reason or True,
            NEXT.filename: False,
        }
        html = (await proxy.get("/simple/app/", Accept="text/html")).body.decode()
        assert html.count("data-yanked") == 2
        assert "<b>wrong" not in html
        legacy = (await proxy.get("/pypi/app/1.0/json")).json
        assert {each["yanked"] for each in legacy["urls"]} == {True}
        assert {each["yanked_reason"] for each in legacy["urls"]} == {reason}
        assert (await proxy.get("/pypi/app/json")).json["info"]["version"] == "2.0"
        noted = json.loads((tmp_path / "data/hosted/dev/app" / f"{WHEEL.filename}.json").read_text())
        assert (noted["yanked"], noted["uploader"], noted["sha256"]) == (reason or True, "ci", WHEEL.sha256)
        await perform(proxy, "unyank", index="dev", project="app", which="1.0")
    await perform(proxy, "yank", index="dev", project="app", which=WHEEL.filename)
    await proxy.stop()
    proxy = await serve(indexes=(hosted("dev"),))
    assert [name for name, file in (await listed(proxy, "app")).items() if file["yanked"]] == [WHEEL.filename]


@pytest_twisted.ensureDeferred
async def test_a_deleted_file_is_nowhere_in_the_next_request_and_its_name_keeps_its_bytes(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev")
    file = (await listed(proxy, "app"))[NEXT.filename]
    modified = (tmp_path / "data/hosted/dev/app" / NEXT.filename).stat().st_mtime_ns / 1e9
    dry = await perform(proxy, "delete", index="dev", project="app", which="2.0", dry=True)
    assert NEXT.filename in await listed(proxy, "app")
    assert await perform(proxy, "delete", index="dev", project="app", which="2.0") == dry
    there = {"filename": NEXT.filename, "size": len(NEXT.data), "modified": modified}
    assert dry == [{"index": "dev", "project": "app", **there}]
    assert await listed(proxy, "app") == {
        name: each for name, each in (await listed(proxy, "app")).items() if "2.0" not in name
    }
    assert (await proxy.get(f"/simple/app/{file['url']}".replace("/simple/app/..", "/simple"))).status == 404
    assert (await proxy.get("/pypi/app/json")).json["info"]["version"] == "1.0"
    assert sorted(standing(tmp_path / "data/hosted/dev")) == sorted(f"app/{each.filename}" for each in (WHEEL, SDIST))
    assert not list((tmp_path / "data/hosted/dev/app").glob("*2.0*"))
    receiving = proxy.service.receiving["dev"]
    with pytest.raises(FileExists):
        await upload(receiving, wheel("app", "2.0", size=5_000))
    assert await upload(receiving, NEXT) is Uploaded.NEW
    assert (await listed(proxy, "app"))[NEXT.filename]["upload-time"] == file["upload-time"]
    assert len(await perform(proxy, "delete", index="dev", project="app")) == 3
    assert (await proxy.get("/simple/app/", Accept=JSON)).status == 404
    assert (await proxy.get("/simple/", Accept=JSON)).json["projects"] == []
    with pytest.raises(NotFound, match="there is no file of app in the directory of index dev"):
        await perform(proxy, "delete", index="dev", project="app")
    await proxy.stop()
    proxy = await serve(indexes=(hosted("dev"),))
    assert await listed(proxy, "app") == {}


@pytest_twisted.ensureDeferred
async def test_what_was_confirmed_is_deleted_and_nothing_else(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev")
    directory = tmp_path / "data/hosted/dev"
    shown = await perform(proxy, "delete", index="dev", project="app", dry=True)
    late = wheel("app", "3.0")
    drop(directory, late)
    with pytest.raises(FilesChanged, match="the files of app have changed meanwhile: nothing was deleted"):
        await perform(proxy, "delete", index="dev", project="app", confirmed=shown)
    (directory / "app" / late.filename).unlink()
    os.utime(directory / "app" / NEXT.filename, (1, 1))
    with pytest.raises(FilesChanged):
        await perform(proxy, "delete", index="dev", project="app", confirmed=shown)
    assert len(standing(directory)) == 3
    shown = await perform(proxy, "delete", index="dev", project="app", which="1.0", dry=True)
    drop(directory, late)
    # What was confirmed is the same, and what is beside it remains.
    assert await perform(proxy, "delete", index="dev", project="app", which="1.0", confirmed=shown) == shown
    assert sorted(standing(directory)) == [f"app/{each.filename}" for each in (NEXT, late)]


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_replaced_while_others_are_deleted_remains(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev")
    parts = proxy.service.indexes["dev"].hosted
    assert parts is not None
    other = wheel("app", "2.0", seed=7)

    def replaced(files: Mapping[str, StandingFile]) -> bool:
        drop(tmp_path / "data/hosted/dev", NEXT, other.data)
        return True

    message = f"replaced meanwhile, and not deleted: {NEXT.filename} of app; 2 other files deleted"
    with pytest.raises(FilesChanged, match=message):
        await parts.editing.delete("app", lambda name: True, replaced)
    assert standing(tmp_path / "data/hosted/dev") == {f"app/{NEXT.filename}": other.sha256}


@pytest_twisted.ensureDeferred
async def test_names_of_files_are_read_in_worker_threads(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()

    def observed(which: str | None, filename: str) -> bool:
        threads.add(threading.get_ident())
        return means(which, filename)

    def observed_version(filename: str) -> Version | None:
        threads.add(threading.get_ident())
        return version_of(filename)

    proxy = await stocked(serve, "dev", "stable")
    monkeypatch.setattr(hosting, "means", observed)
    monkeypatch.setattr(hosting, "version_of", observed_version)
    for operation, arguments in (
        ("yank", {"index": "dev", "project": "app", "which": "1.0"}),
        ("promote", {"source": "dev", "target": "stable", "project": "app", "version": "1.0"}),
        ("delete", {"index": "dev", "project": "app", "which": "1.0", "dry": True}),
        ("delete", {"index": "dev", "project": "app", "which": "1.0"}),
    ):
        assert await perform(proxy, operation, **arguments)
        with pytest.raises(NotFound, match="has no file or version 9 on index dev"):
            await perform(proxy, operation, **{key: value if value != "1.0" else "9" for key, value in arguments.items()})
        assert threads
        assert threading.get_ident() not in threads
        threads.clear()


@pytest_twisted.ensureDeferred
async def test_the_status_of_a_project_is_seen_at_once_and_means_what_pep_792_says(serve: Start) -> None:
    proxy = await stocked(serve, "dev")
    for _ in range(3):
        assert "project-status" not in await proxy.page("app")
    outcome = await perform(proxy, "status", index="dev", project="app", status="deprecated", reason="use other")
    assert outcome == {"index": "dev", "project": "app", "status": "deprecated", "reason": "use other"}
    assert (await proxy.page("app"))["project-status"] == {"status": "deprecated", "reason": "use other"}
    receiving = proxy.service.receiving["dev"]
    assert await upload(receiving, wheel("app", "3.0")) is Uploaded.NEW  # as if it were active
    await perform(proxy, "status", index="dev", project="app", status="archived")
    assert len(await listed(proxy, "app")) == 4
    with pytest.raises(BadUpload, match="app is archived on index dev, and takes no new files"):
        await upload(receiving, wheel("app", "4.0"))
    await perform(proxy, "status", index="dev", project="app", status="quarantined", reason="malware")
    assert await listed(proxy, "app") == {}
    with pytest.raises(BadUpload, match=r"app is quarantined on index dev \(malware\)"):
        await upload(receiving, wheel("app", "4.0"))
    await perform(proxy, "status", index="dev", project="app", status="active")
    assert len(await listed(proxy, "app")) == 4
    assert await upload(receiving, wheel("app", "4.0")) is Uploaded.NEW


@pytest_twisted.ensureDeferred
async def test_what_operators_ask_for_in_vain_is_explained(serve: Start) -> None:
    proxy = await stocked(serve, "dev", "stable")
    for operation, arguments, error, words in (
        (
            "yank",
            {"index": "dev", "project": "app", "which": "1.1"},
            NotFound,
            "no file or version 1.1 on index dev; it has 2.0, 1.0",
        ),
        ("yank", {"index": "dev", "project": "none", "which": "1"}, NotFound, "there is no project none on index dev"),
        ("yank", {"index": "dav", "project": "app", "which": "1"}, NotFound, "no index named 'dav' here.*did you mean dev"),
        ("yank", {"index": "dev", "project": "a/b", "which": "1"}, BadRequest, "'a/b' is no name of a project"),
        ("yank", {"index": "dev", "project": "app", "which": "1.0", "reason": "a\nb"}, BadRequest, "one line"),
        ("delete", {"index": "dev", "project": "app", "which": "9"}, NotFound, "app has no file or version 9 on index dev"),
        ("status", {"index": "dev", "project": "app", "status": "odd"}, BadRequest, "'odd' is no status of a project"),
        ("promote", {"source": "dev", "target": "dev", "project": "app", "version": "1.0"}, BadRequest, "same as dev"),
        ("promote", {"source": "dev", "target": "stable", "project": "app", "version": "7"}, NotFound, "no file or version 7"),
        (
            "promote",
            {"source": "dev", "target": "stable", "project": "app", "version": WHEEL.filename},
            BadRequest,
            "a release is promoted as a whole",
        ),
    ):
        with pytest.raises(error, match=words):
            await perform(proxy, operation, **arguments)


@pytest_twisted.ensureDeferred
async def test_a_promoted_release_is_there_at_once_with_the_time_of_its_first_upload(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev", "stable", uploads=False)
    before = await listed(proxy, "app")
    await perform(proxy, "yank", index="dev", project="app", which=SDIST.filename, reason="odd")
    seen: list[int] = []

    async def watch(ended: Deferred[Any]) -> None:
        while not ended.called:
            seen.append(len(await listed(proxy, "app", "/index/stable")))

    promotion = Deferred.fromCoroutine(perform(proxy, "promote", source="dev", target="stable", project="app", version="1.0"))
    await DeferredList([promotion, *[Deferred.fromCoroutine(watch(promotion)) for _ in range(4)]])
    assert set(seen) <= {0, 2}
    files = await listed(proxy, "app", "/index/stable")
    assert {name: file["upload-time"] for name, file in files.items()} == {
        name: before[name]["upload-time"] for name in (WHEEL.filename, SDIST.filename)
    }
    assert {name: file["yanked"] for name, file in files.items()} == {WHEEL.filename: False, SDIST.filename: "odd"}
    assert standing(tmp_path / "data/hosted/stable") == {f"app/{each.filename}": each.sha256 for each in (WHEEL, SDIST)}
    reply = await proxy.get(files[WHEEL.filename]["url"].replace("../../", "/index/stable/"))
    assert (reply.status, reply.body) == (200, WHEEL.data)
    again = await perform(proxy, "promote", source="dev", target="stable", project="app", version="1.0")
    assert (again["new"], again["there"]) == ([], sorted((WHEEL.filename, SDIST.filename)))
    assert len(await listed(proxy, "app")) == 3


@pytest_twisted.ensureDeferred
async def test_what_was_confirmed_is_promoted_and_nothing_else(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev", "stable")
    release = {"source": "dev", "target": "stable", "project": "app", "version": "2.0"}
    shown = await perform(proxy, "promote", **release, dry=True)
    assert await upload(proxy.service.receiving["dev"], sdist("app", "2.0")) is Uploaded.NEW
    with pytest.raises(FilesChanged, match="the files of app have changed meanwhile: nothing was promoted"):
        await perform(proxy, "promote", **release, confirmed=shown)
    assert standing(tmp_path / "data/hosted/stable") == {}
    shown = await perform(proxy, "promote", **release, dry=True)
    promoted = await perform(proxy, "promote", **release, confirmed=shown)
    assert promoted == {**shown, "dry": False}
    assert len(standing(tmp_path / "data/hosted/stable")) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_in_the_way_of_a_promotion_is_told_before_anything_happens(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve, "dev", "stable", max_files=2, max_size=len(WHEEL.data) + len(SDIST.data) + 4_000)
    stable = proxy.service.receiving["stable"]
    rival = wheel("app", "1.0", size=1_000)
    assert await upload(stable, rival) is Uploaded.NEW
    before = standing(tmp_path / "data/hosted/stable")
    with pytest.raises(
        FileExists, match=f"nothing was promoted to index stable: {WHEEL.filename} is, or was, there with other"
    ):
        await perform(proxy, "promote", source="dev", target="stable", project="app", version="1.0")
    assert standing(tmp_path / "data/hosted/stable") == before
    await perform(proxy, "delete", index="stable", project="app")
    with pytest.raises(FileExists, match="is, or was"):
        await perform(proxy, "promote", source="dev", target="stable", project="app", version="1.0", dry=True)
    assert await upload(stable, wheel("other", "1.0")) is Uploaded.NEW
    one = wheel("few", "1.0"), sdist("few", "1.0")
    for each in one:
        await upload(proxy.service.receiving["dev"], each)
    with pytest.raises(TooMuch, match=r"index stable may have 2 files \(max_files\), and has 1"):
        await perform(proxy, "promote", source="dev", target="stable", project="few", version="1.0")
    assert standing(tmp_path / "data/hosted/stable").keys() == {"other/other-1.0-py3-none-any.whl"}
    assert not [each for each in os.listdir(tmp_path / "data/hosted/stable") if each.startswith(".")]


@pytest_twisted.ensureDeferred
async def test_a_promotion_killed_at_any_moment_has_happened_or_has_not(serve: Start, tmp_path: Path) -> None:
    files = {}
    proxy = await serve(indexes=INDEXES)
    rounds = 24
    for number in range(1, rounds + 1):
        files[number] = wheel("app", f"{number}.0"), sdist("app", f"{number}.0")
        for each in files[number]:
            assert await upload(proxy.service.receiving["dev"], each) is Uploaded.NEW
    await proxy.stop()
    outcomes = []
    for number in range(1, rounds + 1):
        line = [sys.executable, "-m", "tests.support.promoting", str(tmp_path / "data"), f"{number}.0", str(number)]
        ended = await Spawned().spawn(line, environment(tmp_path, PYTHONPATH=str(ROOT)), tmp_path).end()
        proxy = await serve(indexes=INDEXES)
        there = [each.filename for each in files[number] if each.filename in await listed(proxy, "app", "/index/stable")]
        assert len(there) in (0, 2), (number, there, ended)
        outcomes.append((len(there) == 2, "promoted" in ended.output))
        stable = tmp_path / "data/hosted/stable"
        assert not [each for each in os.listdir(stable) if "decided" in each] if stable.exists() else True
        for each in files[number]:
            path = stable / "app" / each.filename
            assert path.exists() == bool(there)
            assert path.with_name(f"{path.name}.json").exists() == bool(there)
        if not there:  # it can be done again
            again = await perform(proxy, "promote", source="dev", target="stable", project="app", version=f"{number}.0")
            assert len(again["new"]) == 2
        await proxy.stop()
        if "promoted" in ended.output:
            break
    assert (False, False) in outcomes  # killed before the decision
    assert (True, False) in outcomes  # killed after it
    assert outcomes[-1] == (True, True)  # no change was left to be killed at


@pytest_twisted.ensureDeferred
async def test_operators_do_all_that_with_commands_while_a_proxy_runs_and_without_one(tmp_path: Path) -> None:
    for each in (WHEEL, SDIST, NEXT):
        drop(tmp_path / "data/hosted/dev", each)
    (tmp_path / "data").chmod(0o700)
    proxy = ProxyProcess(tmp_path, config=CONFIG)
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(tmp_path / "pypiproxy.toml")))
    for running in (False, True):
        if running:
            await proxy.started()
        try:
            version, target = ("2.0", NEXT) if running else ("1.0", WHEEL)
            ended = await operator.run("yank", "dev", "app", version, "--reason", "bad")
            assert (ended.status, f"{target.filename} (dev)" in ended.output) == (0, True), ended
            ended = await operator.run("unyank", "dev", "app", target.filename)
            assert ended.output.splitlines() == [f"{target.filename} (dev)", "1 file unyanked"]
            ended = await operator.run("promote", "dev", "stable", "app", version)
            count = 1 if running else 2
            assert ended.output.splitlines()[-1] == f"{count} file{'s' if count > 1 else ''} promoted"
            ended = await operator.run("status", "stable", "app", "deprecated", "--reason", "old")
            assert ended.output.splitlines() == ["app (stable): deprecated: old"]
            assert await operator.json("status", "stable", "app") == {
                "index": "stable",
                "project": "app",
                "status": "deprecated",
                "reason": "old",
            }
            ended = await operator.run("delete", "dev", "app", version)
            assert ended.output.splitlines()[-1] == f"{count} file{'s' if count > 1 else ''} deleted"
            for line, status, words in (
                (("delete", "dev", "app"), 2, "expected a VERSION or a FILE, or --all"),
                (("status", "dev", "app", "--reason", "x"), 2, "--reason is given with a STATUS"),
                (("yank", "pypi", "app", "1.0"), 1, "the index pypi has no files of its own: hosted indexes here: dev, stable"),
            ):
                ended = await operator.run(*line)
                assert (ended.status, words in ended.output) == (status, True), ended
        finally:
            if running:
                await proxy.stop()
    assert sorted(standing(tmp_path / "data/hosted/stable")) == sorted(f"app/{e.filename}" for e in (WHEEL, SDIST, NEXT))
    assert standing(tmp_path / "data/hosted/dev") == {}
