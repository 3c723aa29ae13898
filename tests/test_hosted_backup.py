"""Hosted indexes in the commands that work on the whole data directory: backup, verify, purge, ls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner

from proxy.cli import main
from proxy.errors import BadRequest
from tests.hosting import hosted, listed, standing, upload
from tests.inprocess import Running, Start
from tests.support.operator import Operator
from tests.support.wheels import sdist, wheel

CONFIG = '[[index]]\nname = "internal"\nkind = "hosted"\ndefault = true\n'
FILES = wheel("app", "1.0"), sdist("app", "1.0"), wheel("lib", "2.0")


async def perform(proxy: Running, operation: str, **arguments: Any) -> Any:
    return await proxy.service.administration.perform(operation, **arguments)


async def stocked(serve: Start) -> Running:
    proxy = await serve(indexes=(hosted(),))
    for each in FILES:
        await upload(proxy.service.receiving["internal"], each)
    await perform(proxy, "yank", index="internal", project="app", which=FILES[1].filename, reason="old")
    await perform(proxy, "status", index="internal", project="lib", status="deprecated")
    return proxy


@pytest.mark.parametrize("with_files", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_backup_has_the_directories_of_hosted_indexes(serve: Start, tmp_path: Path, with_files: bool) -> None:
    proxy = await stocked(serve)
    before = {project: await listed(proxy, project) for project in ("app", "lib")}
    await proxy.stop()
    (tmp_path / "pypiproxy.toml").write_text(CONFIG)
    operator = Operator(tmp_path, tmp_path / "data", ("--config", str(tmp_path / "pypiproxy.toml")))
    # one that was dropped and that nobody has looked at yet
    (tmp_path / "data/hosted/internal/app" / wheel("app", "3.0").filename).write_bytes(wheel("app", "3.0").data)
    options = ["--with-files"] if with_files else []
    ended = await operator.run("backup", *options, str(tmp_path / "saved"))
    assert ended.status == 0, ended
    restored = CliRunner().invoke(main, ["restore", str(tmp_path / "saved"), str(tmp_path / "other")])
    assert restored.exit_code == 0, restored.output
    there = standing(tmp_path / "other" / "hosted") if (tmp_path / "other" / "hosted").exists() else {}
    assert there == (standing(tmp_path / "data" / "hosted") if with_files else {})
    other = await serve(indexes=(hosted(),), data="other")
    if with_files:
        after = {project: await listed(other, project) for project in ("app", "lib")}
        assert after["app"].pop(wheel("app", "3.0").filename)["size"] == len(wheel("app", "3.0").data)
        assert after == before
        assert (await other.page("lib"))["project-status"] == {"status": "deprecated"}
        assert (await other.get(await other.link("app", FILES[0].filename))).body == FILES[0].data
    else:
        notes = sorted(
            str(each.relative_to(tmp_path / "other/hosted/internal")) for each in (tmp_path / "other").rglob("*.json")
        )
        assert notes == sorted([*(f"{each.project}/{each.filename}.json" for each in FILES), "lib/.project.json"])


@pytest_twisted.ensureDeferred
async def test_damaged_bytes_are_restored_from_the_directory(serve: Start, tmp_path: Path) -> None:
    proxy = await stocked(serve)
    path = tmp_path / "data" / "files" / FILES[0].sha256[:2] / FILES[0].sha256
    path.unlink()
    path.write_bytes(b"damaged")
    tally = await perform(proxy, "verify", repair=True)
    assert (tally["damaged"], tally["repaired"], tally["left"]) == (1, 1, 0)
    assert path.read_bytes() == FILES[0].data


@pytest_twisted.ensureDeferred
async def test_nothing_of_a_hosted_index_is_purged(serve: Start) -> None:
    proxy = await stocked(serve)
    for arguments in ({"project": "app"}, {"project": "app", "index": "internal"}, {"project": "app", "which": "1.0"}):
        with pytest.raises(BadRequest, match="pypiproxy delete internal app removes files from it"):
            await perform(proxy, "purge", **arguments)
    gone = await perform(proxy, "purge_unused", seconds=0)
    assert (gone["removed"], gone["pinned"], gone["files"]) == ([], [], 0)
    assert len(await listed(proxy, "app")) == 2
    for operation in ("refresh", "upstreams"):
        arguments = {"index": "internal", **({"project": "app"} if operation == "refresh" else {})}
        with pytest.raises(BadRequest, match="the index internal asks no upstream itself"):
            await perform(proxy, operation, **arguments)
    rows = await perform(proxy, "ls")
    assert [(each["project"], each["files"]) for each in rows] == [("app", 2), ("lib", 1)]
    assert (await perform(proxy, "stats"))["projects"] == 2
