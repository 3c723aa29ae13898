"""``pypiproxy hosted check``: what is wrong in the directory of a hosted index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest_twisted
from msgspec.structs import replace

from proxy.settings import GroupSettings, IndexSettings
from tests.hosting import drop, hosted, listed, upload
from tests.inprocess import Start
from tests.support.browser import BROWSER
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.wheels import sdist, wheel

GOOD, OTHER = wheel("good", "1.0"), wheel("other", "1.0")
CONFIG = '[[index]]\nname = "internal"\nkind = "hosted"\ndefault = true\n'


async def found_in(proxy: Any, **arguments: Any) -> dict[str, tuple[str, str]]:
    outcome = await proxy.service.administration.perform("hosted_check", index="internal", **arguments)
    assert outcome["served"] == 2
    return {each["place"]: (each["kind"], each["why"]) for each in outcome["found"]}


@pytest_twisted.ensureDeferred
async def test_all_that_is_wrong_is_found(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "data/hosted/internal"
    proxy = await serve(indexes=(hosted(),))
    for each in (GOOD, OTHER):
        await upload(proxy.service.receiving["internal"], each)
    assert await found_in(proxy) == {}
    drop(folder, wheel("bad", "1.0"), b"no zip")
    (folder / "good" / OTHER.filename.replace("1.0", "2.0")).write_bytes(wheel("other", "2.0").data)
    (folder / "good" / "gone-1.0.tar.gz.json").write_text("{}")
    (folder / "good" / "README").write_text("hello")
    (folder / "not a project").mkdir()
    (folder / sdist("good", "3.0").filename).write_bytes(sdist("good", "3.0").data)
    (folder / "Good").mkdir()
    (folder / "Good" / GOOD.filename).write_bytes(GOOD.data)
    (folder / "other" / ".project.json").write_text('{"status": "odd"}')
    found = await found_in(proxy)
    assert {place: kind for place, (kind, _) in found.items()} == {
        f"bad/{wheel('bad', '1.0').filename}": "refused",
        f"good/{wheel('other', '2.0').filename}": "refused",
        "good/gone-1.0.tar.gz.json": "orphan",
        "good/README": "stranger",
        "not a project/": "stranger",
        "good-3.0.tar.gz": "refused",
        f"good/{GOOD.filename}": "duplicate",
        "other": "status",
    }
    assert "belongs to other" in found[f"good/{wheel('other', '2.0').filename}"][1]
    assert "move it to good/" in found["good-3.0.tar.gz"][1]
    assert set(await listed(proxy, "good")) == {GOOD.filename}


@pytest_twisted.ensureDeferred
async def test_other_bytes_are_found_by_their_time_and_by_reading_them(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    for each in (GOOD, OTHER):
        await upload(proxy.service.receiving["internal"], each)
    path = tmp_path / "data/hosted/internal/good" / GOOD.filename
    before = path.stat()
    path.write_bytes(bytes(reversed(GOOD.data)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await found_in(proxy) == {}
    found = await found_in(proxy, digests=True)
    assert found[f"good/{GOOD.filename}"][0] == "changed"
    path.write_bytes(wheel("good", "1.0", size=5_000).data)
    found = await found_in(proxy)
    kind, why = found[f"good/{GOOD.filename}"]
    assert (kind, "this name had" in why) == ("refused", True)


@pytest_twisted.ensureDeferred
async def test_the_exit_status_says_whether_anything_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "pypiproxy.toml").write_text(CONFIG)
    folder = tmp_path / "data/hosted/internal"
    for each in (GOOD, OTHER):
        drop(folder, each)
    (tmp_path / "data").chmod(0o700)
    operator = Operator(tmp_path, tmp_path / "data", before=())
    line = ("--data-dir", str(tmp_path / "data"), "--config", str(tmp_path / "pypiproxy.toml"), "internal")
    ended = await operator.without_directory("hosted", "check", *line)
    assert (ended.status, ended.output.strip()) == (0, f"{folder}: 2 files served, 0 problems")
    drop(folder, wheel("bad", "1.0"), b"no zip")
    ended = await operator.without_directory("hosted", "check", *line)
    assert ended.status == 1
    assert f"bad/{wheel('bad', '1.0').filename}" in ended.output
    assert ended.output.splitlines()[-1] == f"{folder}: 2 files served, 1 problem"
    ended = await operator.without_directory("hosted", "check", "--json", *line)
    assert (ended.status, '"kind":"refused"' in ended.output) == (1, True)


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_held_is_told_and_is_no_fault(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> None:
    theirs, ours = wheel("six", "1.16"), wheel("six", "1.16.post1")
    upstream.add_file("six", theirs.filename, theirs.data)
    config = tmp_path / "proxy.toml"
    config.write_text(
        f'[upstream.up0]\nurl = "{upstream.url}"\n[[index]]\nname = "internal"\nkind = "hosted"\n[[index]]\nname = "pypi"\n'
        'upstreams = ["up0"]\n[[index]]\nname = "all"\nkind = "group"\nmembers = ["internal", "pypi"]\ndefault = true\n'
    )
    indexes = (
        hosted(default=False),
        IndexSettings(name="pypi", upstreams=("up0",), prefetch=False),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=("internal", "pypi"))),
    )
    proxy = await serve(upstream, indexes=indexes)
    assert list(await listed(proxy, "six")) == [theirs.filename]
    await upload(proxy.service.receiving["internal"], ours)
    outcome = await proxy.service.administration.perform("hosted_check", index="internal")
    (found,) = outcome["found"]
    assert (found["kind"], found["place"]) == ("held", "six/")
    assert found["why"].startswith("six is held: index pypi serves a project of that name")
    pages = [await proxy.get(f"/-/project/{name}/six", **BROWSER) for name in ("internal", "all", "pypi")]
    assert [found["why"].encode() in each.body for each in pages] == [True, True, False]
    await proxy.stop()

    line = ("--data-dir", str(tmp_path / "data"), "--config", str(config), "internal")
    ended = await Operator(tmp_path, tmp_path / "data").without_directory("hosted", "check", *line)
    assert (ended.status, "held" in ended.output) == (0, True), ended.output
    assert ended.output.splitlines()[-1].endswith("1 file served, 0 problems")
    # Who merges the name has decided.
    merging = replace(indexes[2], group=GroupSettings(members=("internal", "pypi"), merge=("six",)))
    proxy = await serve(upstream, indexes=(*indexes[:2], merging))
    assert (await proxy.service.administration.perform("hosted_check", index="internal"))["found"] == []
    assert proxy.service.receiving["internal"].remark("six") is None
    (claim,) = await proxy.service.administration.perform("claims", index="internal")
    assert (claim["state"], claim["why"]) == ("merged", None)
