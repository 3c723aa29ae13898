"""Bundles of hosted and group indexes: private projects are carried over with all that is known of them, and no further."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
from click.testing import CliRunner, Result

from proxy.bundle.format import FORMAT, MANIFEST, VERSION, End, HostedFile, Kind, Manifest, Section, encode
from proxy.bundle.members import MemberWriter
from proxy.cli import main
from proxy.core.uploads import Uploaded
from proxy.errors import BadBundle, ProxyError
from proxy.hosted.notes import Note
from proxy.settings import GrantSettings, GroupSettings, HostedSettings, IndexSettings, PageLimits
from tests.hosting import hosted, listed, upload
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream
from tests.support.operator import Operator
from tests.support.wheels import Distribution, sdist, wheel
from tests.test_bundle import bundle_of, filled

APP, APP2, TOOL = wheel("acme-app", "1.0", requires=["lib"]), sdist("acme-app", "2.0"), wheel("acme-tool", "1.0")
SIX, LIB, OURS = wheel("six", "1.16"), wheel("lib", "1.0"), wheel("lib", "1.0", seed=1, size=100)
TIME = "2020-01-01T00:00:00.000000Z"
CONFIG = """
[[index]]
name = "internal"
kind = "hosted"
[[index]]
name = "pypi"
offline = true
[[index]]
name = "all"
kind = "group"
members = ["internal", "pypi"]
default = true
"""


def indexes(name: str = "internal", *, offline: bool = False, **settings: Any) -> tuple[IndexSettings, ...]:
    """The hosted index *name*, the proxy index ``pypi``, and both as the group ``all``, which is the default."""
    limits = PageLimits(soft_deadline=0.1)
    upstreams = () if offline else ("up0",)
    return (
        IndexSettings(name=name, kind="hosted", hosted=HostedSettings(**settings)),
        IndexSettings(name="pypi", upstreams=upstreams, limits=limits, prefetch=False, offline=offline),
        IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=(name, "pypi"))),
    )


def config_of(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "proxy.toml"
    path.write_text(text)
    return path


def exported(tmp_path: Path, *arguments: str, data: str = "data") -> Result:
    """``export`` of the data directory *data* to ``bundle``, beside the proxy that works on it."""
    line = ["export", *arguments, "-o", tmp_path / "bundle", "--force", "-d", tmp_path / data, "-c", config_of(tmp_path)]
    return CliRunner().invoke(main, [str(each) for each in line])


async def perform(proxy: Running, operation: str, **arguments: Any) -> Any:
    return await proxy.service.administration.perform(operation, **arguments)


async def imported(proxy: Running, bundle: Path, index: str | None = None) -> dict[str, Any]:
    descriptor = os.open(bundle, os.O_RDONLY)
    found: dict[str, Any] = await perform(proxy, "import", descriptor=descriptor, index=index)
    return found


async def filled_group(serve: Start, public: FakeUpstream) -> Running:
    """The hosted index has acme-app and acme-tool, and a lib that is held; six and lib are cached of the public one."""
    for each in (SIX, LIB):
        public.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    proxy = await serve(public, indexes=indexes())
    for each in (SIX, LIB):
        assert (await proxy.get(await proxy.link(each.project, each.filename))).status == 200
    for each in (APP, APP2, TOOL, OURS):
        assert await upload(proxy.service.receiving["internal"], each, by="user:alice") is Uploaded.NEW
    return proxy


def made(path: Path, *files: tuple[Distribution, dict[str, Any]], kind: str = "hosted") -> Path:
    """A bundle that nobody has exported: *files* of the hosted index ``theirs``, with changes to what is noted of each."""
    out = io.BytesIO()
    sections = (Section("theirs", kind),)
    writer = MemberWriter(out, 1.0)
    manifest = encode(Manifest(FORMAT, VERSION, "theirs", 1.0, sections))
    writer.add(MANIFEST, io.BytesIO(manifest), len(manifest))
    writer.add_bytes(Kind.SECTION.value, encode(sections[0]))
    for each, changes in files:
        stated: dict[str, Any] = {"sha256": each.sha256, "size": len(each.data), "mtime_ns": 0, "upload_time": TIME}
        project = changes.pop("project", each.project)
        file = HostedFile(changes.pop("filename", each.filename), Note(**(stated | changes)))
        writer.add_bytes(f"{Kind.HOSTED.value}/{project}", encode(file))
        writer.add_bytes(Kind.FILE.value, each.data)
    writer.add_bytes(Kind.END.value, encode(End(0, len(files))))
    writer.close()
    path.write_bytes(out.getvalue())
    return path


@pytest_twisted.ensureDeferred
async def test_private_projects_are_carried_over_as_they_are(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(), IndexSettings(name="pypi", offline=True)))
    receiving = proxy.service.receiving["internal"]
    for each in (APP, APP2, TOOL):
        assert await upload(receiving, each, by="user:alice", attestations='[{"version": 1}]') is Uploaded.NEW
    await perform(proxy, "yank", index="internal", project="acme-app", which="2.0", reason="loses data")
    await perform(proxy, "status", index="internal", project="acme-app", status="archived", reason="use acme-tool")
    note = tmp_path / "data/hosted/internal/acme-app" / f"{APP.filename}.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "approved_by": "bob"}))
    before = {project: await listed(proxy, project) for project in ("acme-app", "acme-tool")}

    said = exported(tmp_path, "--all", "--index", "internal")
    assert (said.exit_code, "0 pages and 3 files" in said.output) == (0, True), said.output
    there = await serve(indexes=(hosted("corp"),), data="there")
    first = await imported(there, tmp_path / "bundle")
    assert (first["files"], first["problems"]) == (3, [])
    assert {project: await listed(there, project) for project in before} == before
    assert {each["yanked"] for each in (await listed(there, "acme-app")).values()} == {False, "loses data"}
    page = await there.page("acme-app")
    assert page["project-status"] == {"status": "archived", "reason": "use acme-tool"}
    moved = json.loads((tmp_path / "there/hosted/corp/acme-app" / f"{APP.filename}.json").read_text())
    assert (moved["uploader"], moved["attestations"], moved["approved_by"]) == ("user:alice", [{"version": 1}], "bob")
    claims = {(each["index"], each["project"], each["by"]) for each in await perform(there, "claims")}
    assert {("corp", "acme-app", "user:alice"), ("corp", "acme-tool", "user:alice")} <= claims

    again = await imported(there, tmp_path / "bundle")
    assert (again["files"], again["files_there"], again["problems"]) == (0, 3, [])
    # What was yanked since is yanked there too.
    await perform(proxy, "yank", index="internal", project="acme-tool", which="1.0")
    assert exported(tmp_path, "acme-tool", "--index", "internal").exit_code == 0
    assert (await imported(there, tmp_path / "bundle"))["files_there"] == 1
    assert [each["yanked"] for each in (await listed(there, "acme-tool")).values()] == [True]


@pytest_twisted.ensureDeferred
async def test_what_a_group_serves_is_carried_over_to_the_members_of_another_group(
    upstream: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    proxy = await filled_group(serve, upstream)
    (tmp_path / "data/hosted/internal/acme-app/acme_app-9.tar.gz").write_bytes(b"no archive")
    said = exported(tmp_path, "--all")
    assert said.exit_code == 1
    assert "acme_app-9.tar.gz: index internal does not serve it, it stays here" in said.output
    assert "2 pages and 5 files" in said.output
    there = await serve(indexes=indexes("corp", offline=True), data="there")
    taken = await imported(there, tmp_path / "bundle")
    assert (taken["index"], taken["pages"], taken["files"]) == ("all", 2, 5), taken
    for project in ("acme-app", "acme-tool"):
        assert await listed(there, project) == await listed(proxy, project)
    assert list(await listed(there, "six")) == [SIX.filename]
    # Of the name that is held, the public project was served, and is now.
    assert (await listed(there, "lib"))[LIB.filename]["hashes"]["sha256"] == LIB.sha256
    assert await listed(there, "lib", "/index/corp") == {}
    assert {each["name"] for each in (await there.get("/index/corp/simple/", Accept=JSON)).json["projects"]} == {
        "acme-app",
        "acme-tool",
    }
    claims = {(each["index"], each["project"]): each["state"] for each in await perform(there, "claims")}
    assert claims == {("corp", "acme-app"): "claimed", ("corp", "acme-tool"): "claimed", ("corp", "lib"): "held"}

    # One project, of the member that it comes from; and one that nobody has.
    said = exported(tmp_path, "acme-tool", "six", "missing")
    assert (said.exit_code, "1 page and 2 files" in said.output) == (1, True), said.output
    assert "missing: index pypi has no page of it" in said.output
    # A bundle of a proxy index goes into the proxy index of a group.
    (tmp_path / "old").write_bytes(bundle_of(filled()))
    assert (await imported(there, tmp_path / "old"))["pages"] == 1
    assert len(await listed(there, "app")) == 2


@pytest_twisted.ensureDeferred
async def test_a_bundle_gets_nothing_that_an_upload_would_not(upstream: FakeUpstream, serve: Start, tmp_path: Path) -> None:
    for each in (SIX, LIB):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata)
    proxy = await serve(upstream, indexes=indexes())
    await listed(proxy, "lib")
    assert await upload(proxy.service.receiving["internal"], APP) is Uploaded.NEW
    other = wheel("acme-app", "1.0", size=5_000)
    broken = Distribution("acme-app", "acme_app-3.0-py3-none-any.whl", b"no zip file", b"")
    bundle = made(
        tmp_path / "made",
        (other, {}),
        (broken, {}),
        (TOOL, {"project": "six"}),
        (OURS, {}),
        (APP2, {"sha256": APP2.sha256}),
    )
    taken = await imported(proxy, bundle, "internal")
    said = "\n".join(taken["problems"])
    assert taken["files"] == 2
    assert f"{other.filename}: acme_app-1.0-py3-none-any.whl is, or was, on index internal" in said
    assert f"{broken.filename}: " in said
    assert f"{TOOL.filename}: {TOOL.filename} is a file of acme-tool" in said
    assert {each["hashes"]["sha256"] for each in (await listed(proxy, "acme-app")).values()} == {APP.sha256, APP2.sha256}
    # A name that another member is known to serve is held, whatever the bundle says.
    claims = {(each["index"], each["project"]): each["state"] for each in await perform(proxy, "claims")}
    assert claims == {("internal", "acme-app"): "claimed", ("internal", "lib"): "held"}
    assert (await listed(proxy, "lib"))[LIB.filename]["hashes"]["sha256"] == LIB.sha256

    taken = await imported(proxy, bundle, "pypi")
    assert (taken["files"], taken["pages"]) == (0, 0)
    assert "the hosted index theirs is left out, for pypi has none: import it with --index" in taken["problems"][0]
    with pytest.raises(BadBundle, match="is followed by another file"):
        await imported(proxy, made(tmp_path / "made", (SIX, {"sha256": LIB.sha256})), "internal")
    with pytest.raises(BadBundle, match="no file of a hosted index"):
        await imported(proxy, made(tmp_path / "made", (SIX, {"filename": "../six.whl"})), "internal")
    limited = await serve(indexes=(hosted(max_files=1),), data="limited")
    with pytest.raises(ProxyError, match="max_files"):
        await imported(limited, made(tmp_path / "made", (APP, {}), (APP2, {})), "internal")
    assert list(await listed(limited, "acme-app")) == [APP.filename]
    await limited.stop()
    assert not list((tmp_path / "limited/partial").iterdir())


@pytest_twisted.ensureDeferred
async def test_files_stay_that_may_not_be_seen_or_are_nobodys(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),))
    for each in (APP, APP2, TOOL):
        await upload(proxy.service.receiving["internal"], each)
    await perform(proxy, "status", index="internal", project="acme-tool", status="quarantined", reason="looks bad")
    # A JSON file that somebody else has written names bytes that this index never had.
    note = tmp_path / "data/hosted/internal/acme-app" / f"{APP.filename}.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": TOOL.sha256, "size": len(TOOL.data)}))
    said = exported(tmp_path, "acme-app", "acme-tool", "acme-none", "--index", "internal")
    assert said.exit_code == 1
    assert "acme-tool: it is quarantined" in said.output
    assert f"{APP.filename}: index internal does not serve it, it stays here" in said.output
    assert "acme-none: index internal has no files of it" in said.output
    assert "0 pages and 1 file" in said.output
    said = exported(tmp_path, "acme-none", "--index", "internal")
    assert (said.exit_code, "nothing that was asked for is stored in index internal" in said.output) == (1, True)


@pytest_twisted.ensureDeferred
async def test_bytes_that_a_hosted_index_alone_has_stay_whatever_a_public_page_states(
    upstream: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    beside = {"core-metadata": {"sha256": hashlib.sha256(APP.metadata).hexdigest()}}
    upstream.add_file("six", SIX.filename, SIX.data)
    upstream.add_file("six", "six-2.0-py3-none-any.whl", APP.data, metadata=APP.metadata, entry=beside)
    pypi, other = (IndexSettings(name=name, upstreams=("up0",), prefetch=False) for name in ("pypi", "other"))
    proxy = await serve(upstream, indexes=(hosted(), pypi, other))
    assert await upload(proxy.service.receiving["internal"], APP) is Uploaded.NEW
    other_url = (await listed(proxy, "six", index="/index/other"))[SIX.filename]["url"]
    assert (await proxy.get(urljoin("/index/other/simple/six/", other_url))).body == SIX.data
    assert len((await proxy.page("six", index="/index/pypi"))["files"]) == 2
    config = CONFIG.replace("offline = true", 'upstreams = ["up"]') + '[upstream.up]\nurl = "http://127.0.0.1:1/simple/"\n'
    config_of(tmp_path, config)
    line = [
        "export",
        "six",
        "--index",
        "pypi",
        "-o",
        tmp_path / "bundle",
        "-d",
        tmp_path / "data",
        "-c",
        tmp_path / "proxy.toml",
    ]
    said = CliRunner().invoke(main, [str(each) for each in line])
    assert (said.exit_code, "1 page and 1 file with" in said.output) == (0, True), said.output

    # What another proxy index had fetched is there for the one of the bundle, also where these have different readers.
    grants = (GrantSettings(role="reader", principals=("anonymous",), indexes=("pypi",)),)
    offline = tuple(IndexSettings(name=name, default=name == "pypi", offline=True) for name in ("pypi", "other"))
    there = await serve(indexes=offline, grants=grants, data="there")
    assert (await imported(there, tmp_path / "bundle", "pypi"))["files"] == 1
    assert list(await listed(there, "six")) == [SIX.filename]
    assert (await there.get(await there.link("six", SIX.filename))).body == SIX.data
    assert not any(APP.data == each.read_bytes() for each in (tmp_path / "there" / "files").rglob("*") if each.is_file())


@pytest_twisted.ensureDeferred
async def test_requirements_are_resolved_through_a_group_and_imported_where_no_proxy_runs(
    upstream: FakeUpstream, serve: Start, tmp_path: Path
) -> None:
    proxy = await filled_group(serve, upstream)
    before = upstream.count()
    asked = tmp_path / "requirements.txt"
    asked.write_text("acme-app==1.0\n")
    operator = Operator(tmp_path, tmp_path / "data", ("--config", str(config_of(tmp_path))))
    hosted_files = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/hosted").rglob("*")}
    ended = await operator.run("export", "-r", str(asked), "--python", "3.12", "-o", str(tmp_path / "bundle"))
    assert (ended.status, "1 page and 2 files" in ended.output) == (0, True), ended
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data/hosted").rglob("*")} == hosted_files
    assert upstream.count() == before
    await proxy.stop()

    operator = Operator(tmp_path, tmp_path / "there", ("--config", str(config_of(tmp_path))))
    ended = await operator.run("import", str(tmp_path / "bundle"))
    assert (ended.status, "lib is held: index pyp" in ended.output) == (1, True), ended
    assert "1 page and 2 files with" in ended.output
    there = await serve(indexes=indexes(offline=True), data="there")
    assert list(await listed(there, "acme-app")) == [APP.filename]
    assert list(await listed(there, "lib")) == [LIB.filename]
    assert await listed(there, "six") == {}
