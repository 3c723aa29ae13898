"""Bundles: what one proxy holds is carried to another, verified, and installed from there by real clients."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
from collections.abc import Callable, Collection
from copy import copy
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_twisted
import zstandard
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from proxy.bundle.cache import CarriedClaims, IndexCache
from proxy.bundle.exporting import together, write_bundle
from proxy.bundle.format import Entry, Kind, entry_of
from proxy.bundle.importing import Imported, open_bundle
from proxy.bundle.writing import BundleWriter
from proxy.cache.claims import ClaimBook
from proxy.cache.ledger import Ledger
from proxy.cache.pinned import PinnedBook
from proxy.cache.records import PAGES, HeadedRecords
from proxy.cli import main
from proxy.commands import asking
from proxy.commands.directory import index_cache
from proxy.errors import BadBundle, StorageFailed
from proxy.host import datadir
from proxy.mechanism.offload import Inline, completed
from proxy.model import Head, LedgerEntry, Record, body_digest
from proxy.policy.policy import Policy
from proxy.repository.claiming import Claims, Kept, Neighbours, neighbourhood
from proxy.settings import IndexSettings
from proxy.storage.lists import ListFiles
from proxy.storage.memory import MemoryFiles, MemoryRecords, MemoryVersioned
from proxy.storage.partial import LocalPartial
from tests.inprocess import Start
from tests.support import wire
from tests.support.clients import pip_install, uv_pip_install
from tests.support.content import JSON_TYPE
from tests.support.fake_upstream import FakeUpstream
from tests.support.larger_than import LargerThan
from tests.support.operator import Operator
from tests.support.process import ROOT, Ended, ProxyProcess, Running, environment
from tests.support.wheels import sdist, seeded, wheel
from tests.test_gate import NotNamed

reactor: Any = default_reactor

OFFLINE = (IndexSettings(name="pypi", default=True, offline=True),)
APP = wheel("app", "1.0", requires=["lib>=2"])
LIB, OTHER = sdist("lib", "2.1"), wheel("lib", "2.0")


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


async def fill(serve: Start, upstream: FakeUpstream, *downloads: str, data: str = "a") -> None:
    """A proxy with its data in *data* is asked for the pages of app and lib, and for the files *downloads*."""
    for each in (APP, LIB, OTHER):
        upstream.add_file(each.project, each.filename, each.data, metadata=each.metadata if "whl" in each.filename else None)
    proxy = await serve(upstream, data=data)
    for project in ("app", "lib"):
        for file in (await proxy.page(project))["files"]:
            if file["filename"] in downloads:
                path = await proxy.link(project, file["filename"])
                assert (await proxy.get(path)).status == 200
                assert (await proxy.get(path + ".metadata")).status in (200, 404)
    await proxy.stop()


# -- from end to end ----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("install", [pip_install, uv_pip_install])
async def test_what_was_carried_over_is_installed_without_upstream(
    serve: Start, upstream: FakeUpstream, tmp_path: Path, install: Callable[..., Any]
) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename)
    bundle = tmp_path / "bundle.tar.zst"
    exported = command("export", "--all", "-o", bundle, "--data-dir", tmp_path / "a")
    assert exported.exit_code == 0, exported.output
    assert "2 pages and 3 files" in exported.output

    imported = command("import", bundle, "--data-dir", tmp_path / "b")
    assert imported.exit_code == 0, imported.output
    assert "2 pages and 3 files" in imported.output
    for quiet in (("export", "--all", "-o", bundle, "--force", "-q"), ("import", bundle, "--quiet")):
        said = command(*quiet, "--data-dir", tmp_path / "a")
        assert (said.exit_code, said.output) == (0, "")

    await upstream.close()
    before = upstream.count()
    proxy = await serve(indexes=OFFLINE, data="b")
    scratch = await install(tmp_path, f"http://127.0.0.1:{proxy.port}/simple/", "app")
    assert scratch.installed == {"app": "1.0", "lib": "2.1"}
    assert upstream.count() == before


@pytest_twisted.ensureDeferred
async def test_an_import_may_be_done_again_and_writes_nothing_then(
    serve: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename)
    bundle = tmp_path / "bundle.tar.zst"
    assert command("export", "app", "lib", "-o", bundle, "-d", tmp_path / "a").exit_code == 0
    assert command("import", bundle, "-d", tmp_path / "b").exit_code == 0
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "b" / "files").rglob("*")}
    again = command("import", bundle, "-d", tmp_path / "b")
    assert again.exit_code == 0
    assert "0 pages and 0 files with 0 bytes taken into index pypi; 2 pages and 3 files were there" in again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "b" / "files").rglob("*")} == stored


@pytest_twisted.ensureDeferred
async def test_what_is_not_kept_is_named_and_the_rest_is_exported(serve: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    await fill(serve, upstream, APP.filename)
    bundle = tmp_path / "bundle.tar.zst"
    exported = command("export", "flask", "App", "lib", "-o", bundle, "-d", tmp_path / "a")
    assert exported.exit_code == 1
    assert "flask: index pypi has no page of it; fetch it first: pypiproxy warm flask\n" in exported.output
    assert "lib: none of its files is stored; fetch those you need first: pypiproxy warm lib\n" in exported.output
    assert "1 page and 2 files" in exported.output
    assert command("import", bundle, "-d", tmp_path / "b").exit_code == 0


@pytest_twisted.ensureDeferred
async def test_an_export_of_what_is_not_stored_writes_no_bundle_and_leaves_an_earlier_one(
    serve: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await fill(serve, upstream, APP.filename)
    bundle = tmp_path / "bundle.tar.zst"
    exported = command("export", "flask", "lib", "-o", bundle, "-d", tmp_path / "a")
    assert (exported.exit_code, list(tmp_path.glob("bundle*"))) == (1, []), exported.output
    assert "flask: index pypi has no page of it" in exported.output
    assert f"{bundle}: nothing that was asked for is stored in index pypi; no bundle was written" in exported.output
    bundle.write_bytes(b"an earlier one")
    assert command("export", "flask", "-o", bundle, "--force", "-d", tmp_path / "a").exit_code == 1
    assert bundle.read_bytes() == b"an earlier one"
    assert command("export", "flask", "-o", "-", "-d", tmp_path / "a").exit_code == 1


@pytest_twisted.ensureDeferred
async def test_an_export_replaces_no_file_unless_it_is_told_to(serve: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    await fill(serve, upstream, APP.filename)
    bundle = tmp_path / "bundle.tar.zst"
    bundle.write_bytes(b"mine")
    refused = command("export", "app", "-o", bundle, "-d", tmp_path / "a")
    assert (refused.exit_code, bundle.read_bytes()) == (1, b"mine")
    assert f"{bundle}: it exists; name another file, or replace it with --force" in refused.output
    assert command("export", "app", "-o", bundle, "--force", "-d", tmp_path / "a").exit_code == 0
    assert members(bundle.read_bytes())


@pytest_twisted.ensureDeferred
async def test_a_stored_project_without_a_page_is_named_by_an_export_of_all(
    serve: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename)
    with index_cache(None, tmp_path / "a", None) as there:
        completed(there.pages.forget("lib"))
    exported = command("export", "--all", "-o", tmp_path / "bundle.tar.zst", "-d", tmp_path / "a")
    assert exported.exit_code == 1
    assert "lib: index pypi has no page of it; fetch it first: pypiproxy warm lib\n" in exported.output
    assert "1 page and 2 files" in exported.output


@pytest_twisted.ensureDeferred
async def test_an_export_of_all_names_and_counts_what_it_leaves_out(
    serve: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename)
    upstream.project("lib").keys["project-status"] = {"status": "quarantined"}
    proxy = await serve(upstream, data="a")
    await deferToThread(asking.ask, tmp_path / "a", "refresh", {"project": "lib"}, lambda said: None)
    await proxy.stop()
    (tmp_path / "a" / "files" / APP.sha256[:2] / APP.sha256).unlink()
    exported = command("export", "--all", "-o", tmp_path / "bundle.tar.zst", "-d", tmp_path / "a")
    hidden, absent, written = exported.stderr.splitlines()
    assert exported.exit_code == 1
    assert hidden == "lib: it is quarantined upstream, its files stay here"
    assert absent == f"1 file recorded and not stored (evicted, lost or damaged), not exported: {APP.filename}"
    assert written.endswith("1 page and 0 files with 0 bytes of index pypi; 1 left out")


@pytest_twisted.ensureDeferred
async def test_while_a_proxy_runs_on_the_directory_it_says_to_stop_it(serve: Start, tmp_path: Path) -> None:
    claim = datadir.claim(tmp_path / "a")
    bundle = tmp_path / "bundle.tar.zst"
    bundle.write_bytes(b"")
    result = command("import", bundle, "-d", tmp_path / "a")
    assert result.exit_code == 1
    assert f"a: a proxy runs on it (process id {os.getpid()}); stop it, and do this again" in result.output
    claim.release()
    assert bundle.read_bytes() == b""


@pytest_twisted.ensureDeferred
async def test_what_is_stored_is_exported_beside_the_running_proxy(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    upstream.add_file(LIB.project, LIB.filename, LIB.data, metadata=LIB.metadata)
    proxy = await make_proxy(upstream.url).started()
    page = (await wire.fetch(proxy.port, "/simple/lib/", Accept=JSON_TYPE)).json
    assert (await wire.fetch(proxy.port, urljoin("/simple/lib/", page["files"][0]["url"]))).status == 200
    result = command("export", "--all", "-o", tmp_path / "bundle.tar.zst", "-d", proxy.data_dir)
    assert (result.exit_code, "1 page and 1 file" in result.output) == (0, True), result.output


@pytest_twisted.ensureDeferred
async def test_what_a_file_asks_for_is_exported_beside_the_running_proxy_and_changes_nothing_there(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    for each in (APP, LIB, OTHER):
        upstream.add_file(each.project, each.filename, each.data)
    # Without metadata in the store: the resolver has it read out of the stored wheel.
    config = f'[upstream.up]\nurl = "{upstream.url}"\n[[index]]\nname = "pypi"\nupstreams = ["up"]\nprefetch = false\n'
    proxy = await make_proxy(config=config).started()
    for each in (APP, LIB):
        page = (await wire.fetch(proxy.port, f"/simple/{each.project}/", Accept=JSON_TYPE)).json
        (url,) = [file["url"] for file in page["files"] if file["filename"] == each.filename]
        assert (await wire.fetch(proxy.port, urljoin(f"/simple/{each.project}/", url))).status == 200
    (tmp_path / "requirements.txt").write_text("app\n")
    (proxy.data_dir / "partial" / "in-progress").write_bytes(b"of the proxy")
    folders = [proxy.data_dir, proxy.data_dir / "partial"]

    def there() -> dict[Path, int]:
        files = [path for folder in folders for path in folder.iterdir() if path.is_file() or path.is_socket()]
        return {path: path.stat().st_mtime_ns for path in (*files, *proxy.data_dir.glob("files/*/*"))}

    before, asked = there(), upstream.count()
    bundle = tmp_path / "bundle.tar.zst"
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))
    ended = await operator.run("export", "-r", "requirements.txt", "-o", str(bundle))
    assert (ended.status, "2 pages and 2 files" in ended.output) == (0, True), ended
    inside = {member.name for member, _ in members(bundle.read_bytes())}
    assert {f"files/{each.sha256}" for each in (APP, LIB)} <= inside
    after = there()
    assert (after.keys(), upstream.count()) == (before.keys(), asked)
    # A file that is held against its digest is marked by a few nanoseconds.
    assert all(abs(after[path] - moment) < 1000 for path, moment in before.items())
    assert (await operator.run("stats")).status == 0
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_an_interrupted_export_leaves_nothing(
    serve: Start, upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(serve, upstream, APP.filename)
    (tmp_path / "bundle.tar.zst").write_bytes(b"an earlier one")

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BundleWriter, "end", interrupted)
    result = command("export", "app", "-o", tmp_path / "bundle.tar.zst", "--force", "-d", tmp_path / "a")
    assert (result.exit_code, "bundle.tar.zst was not written" in result.output) == (130, True), result.output
    assert (tmp_path / "bundle.tar.zst").read_bytes() == b"an earlier one"
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("export", "-o", "x"), 2, "name projects, or files with -r, or say --pinned; or else --all"),
        (("export", "--all", "app", "-o", "x"), 2, "name projects, or files with -r, or say --pinned; or else --all"),
        (("export", "a/b", "-o", "x"), 2, "'a/b' is no project name"),
        (("export", "app", "-o", "x", "-d", "nowhere"), 1, "nowhere: there is no such directory"),
        (("export", "app", "-o", "x", "-d", ".", "--index", "corp"), 1, "has no such index, only pypi"),
        (
            ("export", "--all", "-o", "no/such/place", "-d", "."),
            1,
            "no/such/place: No such file or directory; nothing was written",
        ),
        (("import", "nowhere.zst", "-d", "."), 1, "nowhere.zst: No such file or directory; expected a bundle"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o700)
    result = command(*arguments)
    assert (result.exit_code, said in result.output) == (status, True), result.output
    assert not Path("x").exists()
    assert not list(tmp_path.glob("*.unfinished"))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["requirements.txt", "pylock.toml"])
async def test_what_a_file_asks_for_is_exported_with_all_it_needs_and_nothing_else(
    serve: Start, upstream: FakeUpstream, tmp_path: Path, name: str
) -> None:
    old = wheel("app", "0.9")
    upstream.add_file("app", old.filename, old.data)
    await fill(serve, upstream, APP.filename, old.filename, LIB.filename, OTHER.filename)
    lock = "".join(
        f'[[packages]]\nname = "{each.project}"\nversion = "{version}"\n{kind} '
        f'url = "https://files.example/{each.filename}", hashes = {{ sha256 = "{each.sha256}" }} }}{end}\n'
        for each, version, kind, end in ((APP, "1.0", "wheels = [{", "]"), (LIB, "2.1", "sdist = {", ""))
    )
    text = {"requirements.txt": "app\n", "pylock.toml": f'lock-version = "1.0"\ncreated-by = "a test"\n{lock}'}
    (tmp_path / name).write_text(text[name])
    before = upstream.count()
    exported = await export_process(tmp_path, "-r", name, "-o", "bundle.tar.zst")
    assert (exported.status, upstream.count()) == (0, before), exported.output
    assert "2 pages and 3 files" in exported.output
    stored = {member.name for member, _ in members((tmp_path / "bundle.tar.zst").read_bytes())}
    assert {f"files/{each.sha256}" for each in (APP, LIB)} <= stored
    assert not {f"files/{each.sha256}" for each in (old, OTHER)} & stored


@pytest_twisted.ensureDeferred
async def test_what_is_pinned_is_exported_with_what_is_named(serve: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename, OTHER.filename)
    with index_cache(None, tmp_path / "a", None) as there:
        assert completed(there.pinned.pin("pypi", "lib", "2.0")) == [OTHER.filename]
    bundle = tmp_path / "bundle.tar.zst"
    for arguments, made in ((("--pinned",), {OTHER}), (("--pinned", "app"), {APP, OTHER}), (("--pinned", "lib"), {LIB, OTHER})):
        exported = command("export", *arguments, "-o", bundle, "--force", "-d", tmp_path / "a")
        assert exported.exit_code == 0, exported.output
        inside = {member.name for member, _ in members(bundle.read_bytes())}
        assert {each for each in (APP, LIB, OTHER) if f"files/{each.sha256}" in inside} == made


@pytest_twisted.ensureDeferred
async def test_what_of_a_file_is_not_stored_is_named_and_the_rest_is_exported(
    serve: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await fill(serve, upstream, APP.filename, LIB.filename)
    (tmp_path / "requirements.txt").write_text("app\nflask\n")
    exported = await export_process(tmp_path, "-r", "requirements.txt", "-r", "no.txt", "-o", "bundle.tar.zst")
    assert exported.status == 1
    assert "nothing of flask is stored. To do: fetch it first, with pypiproxy warm flask" in exported.output
    assert "no.txt: cannot be read: No such file or directory" in exported.output
    assert "2 pages and 3 files" in exported.output


async def export_process(folder: Path, *arguments: str) -> Ended:
    """``pypiproxy export`` as a process of its own, for it runs a reactor."""
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "export", "-d", "a", *arguments]
    return await Running().spawn(command, environment(folder, PYTHONPATH=str(ROOT)), folder).end()


@pytest_twisted.ensureDeferred
async def test_a_bundle_goes_through_a_pipe(serve: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    await fill(serve, upstream, APP.filename)
    exported = command("export", "app", "-o", "-", "-d", tmp_path / "a")
    imported = CliRunner().invoke(main, ["import", "-", "-d", str(tmp_path / "b")], input=exported.stdout_bytes)
    assert "1 page and 2 files" in imported.output


# -- bundles that are not as they should be -----------------------------------------------------------------------------------


def cache(name: str = "pypi", hosted: Collection[str] = ("internal",)) -> IndexCache:
    """An empty one, in memory; the *hosted* indexes are in a group with it."""
    records, offload = MemoryRecords(), Inline()
    precious = MemoryVersioned()
    pins, store = Ledger(precious, 2**20, offload), MemoryFiles()
    pages = HeadedRecords(PAGES, name, records, offload)
    return IndexCache(name, pages, pins, PinnedBook(precious, pins, store), store, offload, claims=carried(pages, hosted))


def carried(pages: HeadedRecords, hosted: Collection[str]) -> CarriedClaims:
    """No claims yet; a name of which there is one of *pages* will be held."""
    book = ClaimBook(MemoryVersioned(), dict.fromkeys(hosted, ()))
    lists = ListFiles(Path("nowhere"), Inline(), lambda folder: None)
    beside = neighbourhood([((*hosted, pages.index), ())], hosted)
    neighbours = Neighbours(beside, lambda index: Kept(pages, pages, lists), Inline())
    return CarriedClaims(book, Claims(book, neighbours, lambda: 1234.5), hosted)


def claims(there: IndexCache) -> list[tuple[str, str, str]]:
    """Index, project and state of the claims that there are."""
    assert there.claims is not None
    return [(each.index, each.project, each.state.value) for each in there.claims.book.all()]


def claim(there: IndexCache, *projects: str) -> None:
    assert there.claims is not None
    for project in projects:
        completed(there.claims.claims.claim("internal", project, "ann"))


def files(there: IndexCache) -> dict[str, bytes]:
    store: Any = there.files
    return dict(store.files)


def head(body: bytes, **more: Any) -> Head:
    url = "https://pypi.example/simple/app/"
    return Head(True, "pypi", url, **{"checked_at": 1000.0, **more}, digest=body_digest(body), content_type="text/html")


def put(there: IndexCache, data: bytes) -> str:
    async def commit() -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        partial = await there.files.begin(f"sha256-{sha256}", resume=False)
        partial.write(data)
        partial.commit(sha256)
        partial.close()
        return sha256

    return completed(commit())


def filled(size: int = 10, **more: Any) -> IndexCache:
    """The page of app with two files of *size* bytes, both stored and pinned."""
    there = cache()
    bodies = [seeded(number).randbytes(size) for number in (1, 2)]
    names = {f"app-{number}.0.tar.gz": put(there, data) for number, data in enumerate(bodies)}
    body = "".join(f'<a href="{name}#sha256={sha256}">{name}</a>' for name, sha256 in names.items()).encode()
    completed(there.pages.keep("app", Record(head(body, **more), body), None))
    pins = {name: LedgerEntry(sha256, size, {"sha256": sha256}, "", 0.0) for name, sha256 in names.items()}
    completed(there.ledger.add_all("pypi", "app", pins))
    return there


def bundle_of(there: IndexCache) -> bytes:
    out = io.BytesIO()
    exported = completed(write_bundle(there, None, out, lambda: 1234.5))
    assert exported.problems == []
    return out.getvalue()


def take(bundle: bytes, there: IndexCache) -> Imported:
    return completed(completed(open_bundle(io.BytesIO(bundle), there)).run())


def members(bundle: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(bundle)).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]  # all of them are files


def packed(content: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for member, data in content:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return zstandard.ZstdCompressor().compress(plain.getvalue())


def named(data: bytes, kind: Kind, project: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member as the format wants it."""
    return tarfile.TarInfo(str(Entry(kind, project, hashlib.sha256(data).hexdigest()))), data


def test_all_that_is_there_comes_out_as_it_went_in() -> None:
    there, other = filled(), cache()
    imported = take(bundle_of(there), other)
    assert (imported.pages, imported.files, imported.size, imported.problems) == (1, 2, 20, [])
    assert files(other) == files(there)
    assert completed(other.ledger.of("pypi", "app")) == completed(there.ledger.of("pypi", "app"))
    known = completed(other.pages.head("app"))
    assert known == completed(there.pages.head("app"))
    assert known is not None
    assert completed(other.pages.body("app", known)) == completed(there.pages.body("app", known))


def test_the_order_is_manifest_pages_pins_files_end() -> None:
    names = [member.name.partition("/")[0] for member, _ in members(bundle_of(filled()))]
    assert names == ["manifest.json", "heads", "pages", "pins", "files", "files", "end"]
    manifest = json.loads(members(bundle_of(filled()))[0][1])
    assert manifest == {"format": "pypiproxy-bundle", "version": 1, "index": "pypi", "created": 1234.5}


def test_claims_go_into_a_bundle_first_and_out_of_it_first() -> None:
    there, other = filled(), cache()
    claim(there, "acme-app", "acme-tool")
    bundle = bundle_of(there)
    (manifest, data), (first, _), *_ = members(bundle)
    assert (manifest.name, json.loads(data)["version"], first.name.partition("/")[0]) == ("manifest.json", 2, "claims")
    imported = take(bundle, other)
    assert (imported.claims, imported.pages, imported.problems) == (2, 1, [])
    assert claims(other) == claims(there) == [("internal", "acme-app", "claimed"), ("internal", "acme-tool", "claimed")]
    assert take(bundle, other).claims == 0


def test_a_claim_to_a_name_that_is_known_to_be_served_is_held_where_it_is_imported() -> None:
    there, other = filled(), filled()
    claim(there, "acme-app")
    assert there.claims is not None
    completed(there.claims.book.assign("internal", ["app"], "an operator", 0.0))
    imported = take(bundle_of(there), other)
    assert claims(other) == [("internal", "acme-app", "claimed"), ("internal", "app", "held")]
    (problem,) = imported.problems
    assert problem.startswith("app is held: index pypi serves a project of that name")


def test_claims_of_an_index_that_is_not_there_are_kept_and_told() -> None:
    there, other = filled(), cache(hosted=())
    claim(there, "acme-app")
    imported = take(bundle_of(there), other)
    assert claims(other) == [("internal", "acme-app", "claimed")]
    assert imported.problems == [
        "1 name claimed by internal, which is no hosted index here: no group with a hosted index serves it; pypiproxy claims "
        "add INDEX --from internal gives it to one"
    ]


def test_a_bundle_can_go_into_an_index_of_another_name() -> None:
    other = cache("air")
    take(bundle_of(filled()), other)
    assert len(completed(other.ledger.of("air", "app"))) == 2


def test_only_the_files_that_are_asked_for_go_in() -> None:
    there, out = filled(), io.BytesIO()
    exported = completed(write_bundle(there, {"app": {"app-0.0.tar.gz", "app-9.0.tar.gz"}}, out, lambda: 0.0))
    assert exported.problems == ["app-9.0.tar.gz: index pypi has no such file of app; ask the proxy for it first"]
    other = cache()
    take(out.getvalue(), other)
    assert list(completed(other.ledger.of("pypi", "app"))) == ["app-0.0.tar.gz"]
    assert len(files(other)) == 1


def test_wishes_for_one_project_add_up() -> None:
    assert together({"a": {"x"}, "b": None, "c": {"y"}}, {"a": {"z"}, "b": {"x"}, "d": None}) == {
        "a": {"x", "z"},
        "b": None,
        "c": {"y"},
        "d": None,
    }


def test_a_quarantined_project_goes_without_its_files() -> None:
    there, out = filled(status="quarantined"), io.BytesIO()
    exported = completed(write_bundle(there, None, out, lambda: 0.0))
    assert (exported.pages, exported.files) == (1, 0)
    assert exported.problems == ["app: it is quarantined upstream, its files stay here"]


def test_an_export_of_all_names_no_project_that_nothing_is_stored_of() -> None:
    there, out = filled(), io.BytesIO()
    metadata = put(there, b"metadata")
    gone = LedgerEntry(hashlib.sha256(b"evicted").hexdigest(), 7, {}, "", 0.0)
    lone = {"lone-1.0.tar.gz": gone, "sha256-0/lone-1.0.whl.metadata": LedgerEntry(metadata, 8, {}, "", 0.0)}
    completed(there.ledger.add_all("pypi", "lone", lone))
    completed(there.ledger.add_all("other", "app2", completed(there.ledger.of("pypi", "app"))))
    exported = completed(write_bundle(there, None, out, lambda: 0.0))
    assert (exported.pages, exported.files, exported.problems) == (1, 2, [])


def test_what_a_rule_hides_stays_where_it_is_and_is_told() -> None:
    there, out = filled(), io.BytesIO()
    hidden = replace(there, policy=Policy((LargerThan(0),)))
    exported = completed(write_bundle(hidden, {"app": {"app-0.0.tar.gz"}}, out, lambda: 0.0))
    assert (exported.pages, exported.files) == (0, 0)
    assert exported.problems == ["app-0.0.tar.gz: it is larger than 0 bytes, it stays here"]


def test_nothing_of_a_hidden_project_leaves_not_even_its_page() -> None:
    there, out = filled(), io.BytesIO()
    hidden = replace(there, policy=Policy((NotNamed("app", 0.0),)))
    exported = completed(write_bundle(hidden, {"app": None}, out, lambda: 0.0))
    assert (exported.pages, exported.files) == (0, 0)
    assert exported.problems == ["app: it is not for sale, it stays here"]


def test_a_stored_file_that_is_damaged_is_named_at_export_and_refused_at_import() -> None:
    there, out = filled(), io.BytesIO()
    store: Any = there.files
    damaged = next(iter(store.files))
    store.files[damaged] = b"something!"
    exported = completed(write_bundle(there, None, out, lambda: 0.0))
    (problem,) = exported.problems
    assert problem.startswith("app-0.0.tar.gz: the stored file is damaged")
    other = cache()
    imported = take(out.getvalue(), other)
    assert imported.problems == [
        f"files/{damaged}: its bytes are not those it is named by, it is left out; copy or export it again"
    ]
    assert (imported.files, set(files(other))) == (1, set(store.files) - {damaged})


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.7, 0.9, 0.999])
def test_of_a_bundle_that_was_cut_off_all_that_came_stays(cut: float) -> None:
    there, other = filled(size=300_000), cache()
    bundle = bundle_of(there)
    with pytest.raises(BadBundle, match=r"cut off on its way|it is no bundle"):
        take(bundle[: int(len(bundle) * cut)], other)
    assert all(hashlib.sha256(data).hexdigest() == sha256 for sha256, data in files(other).items())
    assert len(files(other)) == (0 if cut < 0.5 else 1)
    left: Any = other.files
    assert left.left == {}
    whole = take(bundle, other)
    assert whole.files + whole.files_there == 2
    assert files(other) == files(there)


def test_a_bundle_that_was_damaged_on_its_way_is_told_so() -> None:
    bundle = bytearray(bundle_of(filled(size=100)))
    bundle[len(bundle) // 2] ^= 0xFF
    with pytest.raises(BadBundle, match="copy it again"):
        take(bytes(bundle), cache())


@pytest.mark.parametrize(
    "what",
    [
        b"",
        b"nonsense",
        zstandard.compress(b""),
        zstandard.compress(b"nonsense" * 100),
        packed([]),
        packed([named(b"", Kind.FILE)]),
    ],
)
def test_what_is_no_bundle_is_refused(what: bytes) -> None:
    with pytest.raises(BadBundle):
        take(what, cache())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 4}, "it is a bundle of version 4, and this pypiproxy reads versions 1 to 3: use the same version"),
        ({"version": "1"}, "it is a bundle of version '1'"),
        ({"format": "other"}, "it is no bundle"),
        ({"index": 1}, "manifest.json cannot be understood"),
    ],
)
def test_a_manifest_that_is_not_known_is_refused(change: dict[str, Any], said: str) -> None:
    (manifest, data), *rest = members(bundle_of(filled()))
    other = cache()
    with pytest.raises(BadBundle, match=said):
        take(packed([(manifest, json.dumps({**json.loads(data), **change}).encode()), *rest]), other)
    assert files(other) == {}


def links() -> list[tarfile.TarInfo]:
    made = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        member = tarfile.TarInfo(f"files/{'0' * 64}")
        member.type, member.linkname = kind, "/etc/passwd"
        made.append(member)
    return made


@pytest.mark.parametrize("member", links(), ids=lambda member: str(member.type))
@pytest.mark.parametrize("first", [True, False])
def test_only_plain_files_are_looked_at(member: tarfile.TarInfo, first: bool) -> None:
    manifest, *rest = members(bundle_of(filled()))
    if first:
        member = copy(member)
        member.name = "manifest.json"
    with pytest.raises(BadBundle, match="is no plain file"):
        take(packed([(member, b""), *rest] if first else [manifest, (member, b""), *rest]), cache())


BAD_NAMES = [
    "/etc/passwd",
    "../../etc/passwd",
    f"files/../{'0' * 64}",
    f"/files/{'0' * 64}",
    f"./files/{'0' * 64}",
    f"files/{'0' * 63}",
    f"files/{'0' * 64}/",
    f"files/{'0' * 64}\n",
    f"files/{'A' * 64}",
    f"files/app/{'0' * 64}",
    f"pages/{'0' * 64}",
    f"pages/../{'0' * 64}",
    f"pages/Not_Normal/{'0' * 64}",
    f"pages/a/b/{'0' * 64}",
    f"heads//{'0' * 64}",
    f"other/{'0' * 64}",
    "",
    "manifest.json",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_of_the_formats_is_refused_and_nothing_after_it_taken(name: str) -> None:
    manifest, *rest = members(bundle_of(filled()))
    other = cache()
    with pytest.raises(BadBundle, match="no bundle has such a one"):
        take(packed([manifest, (tarfile.TarInfo(name or "-"), b"x"), *rest]), other)
    assert files(other) == {}


#: Names that are right, or nearly: an expression for them would have each digit of a digest chosen by itself.
_AROUND = st.just("") | st.text(max_size=3)
NEARLY_NAMES = st.builds(
    "{}{}/{}{}{}".format,
    _AROUND,
    st.sampled_from(["claims", "heads", "pages", "pins", "files", "end"]),
    st.just("") | st.text().map("{}/".format),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    _AROUND,
)


@given(st.text() | NEARLY_NAMES)
@example("files/" + "0" * 64 + "\n")
@example("pages/six/" + "0" * 64)
def test_a_name_is_refused_or_leads_nowhere_else(name: str) -> None:
    try:
        entry = entry_of(name)
    except BadBundle:
        return
    assert str(entry) == name
    parts = name.split("/")
    assert len(parts) == (2 if entry.kind in (Kind.CLAIMS, Kind.FILE, Kind.END) else 3)
    assert not {"", ".", ".."} & set(parts)
    assert "\0" not in name


def stated_claim(index: str, project: str) -> tuple[tarfile.TarInfo, bytes]:
    """A member with one claim."""
    claim = {"index": index, "project": project, "state": "claimed", "since": 1, "by": ""}
    return named(json.dumps([claim]).encode(), Kind.CLAIMS)


@pytest.mark.parametrize(
    ("at", "members_there", "said"),
    [
        (1, [named(b"{}", Kind.CLAIMS)], "cannot be understood"),
        (1, [stated_claim("a/b", "app")], "claims 'app'"),
        (1, [stated_claim("a", "App")], "claims 'App'"),
        (1, [named(b"{}", Kind.HEAD, "app")], "cannot be understood"),
        (1, [named(b"{}", Kind.PAGE, "app")], "is out of place"),
        (2, [], "is not followed by a page"),
        (2, [named(b"other", Kind.PAGE, "app")], "belongs to another page"),
        (3, [named(b"[1]", Kind.PINS, "app")], "cannot be understood"),
        (
            3,
            [named(b'{"../x": {"sha256":"","size":0,"stated":{},"url":"","committed_at":0}}', Kind.PINS, "app")],
            "records '../x'",
        ),
        (
            3,
            [named(b'{"x": {"sha256":"../x","size":0,"stated":{},"url":"","committed_at":0}}', Kind.PINS, "app")],
            "records 'x'",
        ),
        (5, [], "it lacks some of its 1 pages and 2 files"),
        (6, [], "cut off on its way"),
        (6, [named(b'{"pages": "x"}', Kind.END)], "cannot be understood"),
        (6, [(tarfile.TarInfo(f"end/{'0' * 64}"), b"{}")], "its end is damaged"),
    ],
)
def test_members_that_make_no_sense_are_refused(at: int, members_there: list[tuple[tarfile.TarInfo, bytes]], said: str) -> None:
    content = members(bundle_of(filled()))
    content[at : at + 1] = members_there
    with pytest.raises(BadBundle, match=said):
        take(packed(content), cache())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_page_or_pins_that_are_damaged_are_left_out_and_the_rest_is_taken(at: int) -> None:
    content = members(bundle_of(filled()))
    content[at] = content[at][0], content[at][1] + b" "
    other = cache()
    imported = take(packed(content), other)
    assert [problem.partition("/")[0] for problem in imported.problems] == [["heads", "pages", "pins"][at - 1]]
    assert imported.files == 2
    assert (completed(other.pages.head("app")) is None) == (at < 3)


class Full(MemoryFiles):
    """A store on a disk that takes no second file."""

    async def begin(self, key: str, *, resume: bool) -> Any:
        if self.files:
            raise OSError(errno.ENOSPC, "No space left on device", "/data/partial")
        return await super().begin(key, resume=resume)


def test_on_a_full_disk_what_was_taken_stays_and_the_rest_comes_later() -> None:
    other = replace(cache(), files=Full())
    importing = completed(open_bundle(io.BytesIO(bundle_of(filled())), other))
    with pytest.raises(StorageFailed, match=r"No space left on device \(/data/partial\); make room and import again"):
        completed(importing.run())
    assert (importing.imported.pages, importing.imported.files) == (1, 1)
    roomy = MemoryFiles()
    roomy.files = files(other)
    assert take(bundle_of(filled()), replace(other, files=roomy)).files_there == 1
    assert len(roomy.files) == 2


def test_a_bundle_that_cannot_be_read_on_is_told_so() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(BadBundle, match="it cannot be read on: Input/output error"):
        completed(open_bundle(Failing(), cache()))


def test_a_member_of_a_size_that_none_has_is_not_read_into_memory() -> None:
    manifest, *_ = members(bundle_of(filled()))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(manifest[0], io.BytesIO(manifest[1]))
        member = tarfile.TarInfo(str(Entry(Kind.HEAD, "app", "0" * 64)))
        member.size = 2**40
        plain.write(member.tobuf())
    with pytest.raises(BadBundle, match="has 1,099,511,627,776 bytes, more than any bundle has there"):
        take(zstandard.compress(plain.getvalue()), cache())


@pytest_twisted.ensureDeferred
async def test_an_import_that_is_killed_goes_on_at_the_next_one(tmp_path: Path) -> None:
    """The command as a process of its own; it is killed while it waits for the rest of a bundle on standard input."""
    bundle = bundle_of(filled(size=2_000_000))
    (tmp_path / "whole.tar.zst").write_bytes(bundle)
    os.mkfifo(tmp_path / "pipe")
    arguments = [sys.executable, "-c", "from proxy.cli import main; main()", "import", "-d", str(tmp_path / "b")]
    env = environment(tmp_path, PYTHONPATH=str(ROOT))
    killed = Running().spawn([*arguments, "pipe"], env, tmp_path)
    pipe = await deferToThread(open, tmp_path / "pipe", "wb", 0)
    with pipe:
        await deferToThread(pipe.write, bundle[: len(bundle) * 3 // 4])
        while not list((tmp_path / "b" / "files").glob("*/*")):
            assert killed.ended is None, killed.output
            await deferLater(reactor, 0.01)
        killed.signal(signal.SIGKILL)
        assert (await killed.end()).status == -signal.SIGKILL
    ended = await Running().spawn([*arguments, "whole.tar.zst"], env, tmp_path).end()
    assert ended.status == 0
    assert "0 pages and 1 file with 2,000,000 bytes taken into index pypi; 1 page and 1 file were there" in ended.output
    assert not list((tmp_path / "b" / "partial").iterdir())


def test_an_import_that_is_interrupted_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.tar.zst"
    bundle.write_bytes(bundle_of(filled()))

    def interrupted(self: object, sha256: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalPartial, "commit", interrupted)
    result = command("import", bundle, "-d", tmp_path / "b")
    assert result.exit_code == 130
    assert "so far 1 page and 0 files" in result.output
    assert result.output.endswith("interrupted: import it again to go on\n")
    monkeypatch.undo()
    assert command("import", bundle, "-d", tmp_path / "b").exit_code == 0


# -- beside a running proxy --------------------------------------------------------------------------------------------------

APP_FILE = "app-0.0.tar.gz"


async def offline_proxy(make_proxy: Callable[..., ProxyProcess]) -> ProxyProcess:
    return await make_proxy(config='[[index]]\nname = "pypi"\noffline = true\n').started()


async def app_file(proxy: ProxyProcess) -> wire.Reply:
    page = await wire.fetch(proxy.port, "/simple/app/", Accept=JSON_TYPE)
    if page.status != 200:
        return page
    (url,) = [file["url"] for file in page.json["files"] if file["filename"] == APP_FILE]
    return await wire.fetch(proxy.port, urljoin("/simple/app/", url))


def open_files(proxy: ProxyProcess) -> int:
    assert proxy.process is not None
    return len(os.listdir(f"/proc/{proxy.process.pid}/fd"))


@pytest_twisted.ensureDeferred
async def test_a_running_proxy_takes_a_bundle_in_and_serves_it_at_once(
    make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    (tmp_path / "old.zst").write_bytes(bundle_of(filled(size=500)))
    (tmp_path / "new.zst").write_bytes(bundle_of(filled(size=2_000_000, checked_at=2000.0)))
    proxy = await offline_proxy(make_proxy)
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))
    assert (await app_file(proxy)).status == 404
    ended = await operator.run("import", "old.zst")
    assert (ended.status, "1 page and 2 files with 1,000 bytes taken into index pypi" in ended.output) == (0, True), ended
    assert (await app_file(proxy)).body == seeded(1).randbytes(500)
    before = open_files(proxy)
    # A newer page takes the place of the one in memory; the names keep their bytes.
    ended = await operator.run("import", "new.zst")
    assert ended.status == 1
    assert f"{APP_FILE}: it is here with other bytes" in ended.output
    assert "1 page and 2 files with 4,000,000 bytes taken" in ended.output
    ended = await operator.run("import", "new.zst")
    assert "1 page and 2 files were there" in ended.output
    ended = await operator.run("import", "new.zst", "--index", "corp")
    assert (ended.status, "there is no index named 'corp' here; there is pypi" in ended.output) == (1, True)
    assert open_files(proxy) <= before + 1  # a thread's
    assert list((proxy.data_dir / "partial").iterdir()) == []
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_running_proxy_tells_how_far_it_came_in_a_bundle_that_was_cut_off(
    make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    whole = bundle_of(filled(size=2_000_000))
    (tmp_path / "cut.zst").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "none.zst").write_bytes(b"no bundle")
    proxy = await offline_proxy(make_proxy)
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))
    ended = await operator.run("import", "cut.zst")
    assert ended.status == 1
    assert "cut.zst: so far 1 page and 1 file with 2,000,000 bytes taken into index pypi" in ended.output
    assert "it ends too early: it was cut off on its way, copy it again" in ended.output
    assert (await app_file(proxy)).status == 200
    assert list((proxy.data_dir / "partial").iterdir()) == []
    ended = await operator.run("import", "none.zst")
    assert (ended.status, "none.zst: it is damaged, or not compressed with zstd" in ended.output) == (1, True)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_an_import_into_a_running_proxy_may_be_interrupted_and_done_again(
    make_proxy: Callable[..., ProxyProcess], tmp_path: Path, number: signal.Signals
) -> None:
    bundle = bundle_of(filled(size=2_000_000))
    (tmp_path / "whole.zst").write_bytes(bundle)
    os.mkfifo(tmp_path / "pipe")
    proxy = await offline_proxy(make_proxy)
    operator = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml")))
    interrupted = operator.start("import", "pipe")
    pipe = await deferToThread(open, tmp_path / "pipe", "wb", 0)
    with pipe:
        await deferToThread(pipe.write, bundle[: len(bundle) * 3 // 4])
        while not list((proxy.data_dir / "files").glob("*/*")):
            assert interrupted.ended is None, interrupted.output
            await deferLater(reactor, 0.01)
        interrupted.signal(number)
        ended = await interrupted.end()
        assert ended.status == (-number if number == signal.SIGKILL else 130), ended
        assert ("import it again to go on" in ended.output) is (number != signal.SIGKILL)
        # The proxy lets go of the pipe, and of what was arriving, although more could come.
        while list((proxy.data_dir / "partial").iterdir()):
            await deferLater(reactor, 0.01)
    ended = await operator.run("import", "whole.zst")
    assert "0 pages and 1 file with 2,000,000 bytes taken into index pypi; 1 page and 1 file were there" in ended.output
    assert (await app_file(proxy)).body == seeded(1).randbytes(2_000_000)
    assert await proxy.stop() == -signal.SIGTERM
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_proxy_stops_in_the_middle_of_an_import(make_proxy: Callable[..., ProxyProcess], tmp_path: Path) -> None:
    bundle = bundle_of(filled(size=2_000_000))
    os.mkfifo(tmp_path / "pipe")
    proxy = await offline_proxy(make_proxy)
    running = Operator(tmp_path, proxy.data_dir, ("--config", str(proxy.place / "pypiproxy.toml"))).start("import", "pipe")
    pipe = await deferToThread(open, tmp_path / "pipe", "wb", 0)
    with pipe:
        await deferToThread(pipe.write, bundle[: len(bundle) * 3 // 4])
        while not list((proxy.data_dir / "files").glob("*/*")):
            assert running.ended is None, running.output
            await deferLater(reactor, 0.01)
        assert await proxy.stop() == -signal.SIGTERM
    ended = await running.end()
    assert (ended.status, "broke off its answer" in ended.output) == (1, True), ended
    assert "Traceback" not in proxy.log


@pytest_twisted.ensureDeferred
async def test_a_descriptor_is_handed_over_and_never_named(make_proxy: Callable[..., ProxyProcess]) -> None:
    proxy = await offline_proxy(make_proxy)
    for arguments, said in (
        ({}, "expected the descriptor of an open file with the request"),
        ({"descriptor": 3}, "a descriptor is handed over, not named"),
    ):
        with pytest.raises(asking.OperationFailed, match=said):
            await deferToThread(asking.ask, proxy.data_dir, "import", arguments, lambda said: None)
    before = open_files(proxy)
    with open(os.devnull, "rb") as unwanted:  # an operation that takes none
        answer = await deferToThread(asking.ask, proxy.data_dir, "ls", {}, lambda said: None, handed=unwanted.fileno())
    assert answer == []
    while open_files(proxy) > before:
        await deferLater(reactor, 0.01)


# -- what is there already ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "came", "taken"),
    [
        ({"checked_at": 1000.0}, {"checked_at": 1000.0}, False),
        ({"checked_at": 1000.0}, {"checked_at": 999.0}, False),
        ({"checked_at": 1000.0}, {"checked_at": 1001.0}, True),
        ({"checked_at": 1000.0, "serial": 7}, {"checked_at": 2000.0, "serial": 6}, False),
        ({"checked_at": 1000.0, "serial": 7}, {"checked_at": 999.0, "serial": 8}, True),
        ({"checked_at": 1000.0, "serial": 7}, {"checked_at": 999.0}, False),
    ],
)
def test_an_older_page_never_replaces_a_newer_one(there: dict[str, Any], came: dict[str, Any], taken: bool) -> None:
    other = filled(size=20, **there)
    replaced: list[str] = []
    importing = completed(open_bundle(io.BytesIO(bundle_of(filled(size=10, **came))), other, replaced.append))
    before = completed(other.pages.head("app"))
    imported = completed(importing.run())
    assert (imported.pages, imported.pages_there) == (int(taken), int(not taken))
    assert (completed(other.pages.head("app")) != before) == taken
    assert replaced == ["app"] * taken


def test_a_404_of_another_time_is_replaced_and_a_later_one_stays() -> None:
    for checked_at, taken in ((500.0, 1), (2000.0, 0)):
        other = cache()
        missing = replace(head(b"", checked_at=checked_at), found=False)
        completed(other.pages.keep("app", Record(missing, b""), None))
        assert take(bundle_of(filled()), other).pages == taken


def test_a_page_that_is_damaged_here_is_replaced() -> None:
    other = cache()
    completed(other.pages.renew("app", head(b"its body is gone", checked_at=5000.0)))
    assert take(bundle_of(filled()), other).pages == 1


def test_a_name_that_is_here_with_other_bytes_keeps_them() -> None:
    other, mine = cache(), LedgerEntry("5" * 64, 1, {}, "", 0.0)
    completed(other.ledger.add("pypi", "app", "app-0.0.tar.gz", mine))
    imported = take(bundle_of(filled()), other)
    (problem,) = imported.problems
    assert problem.startswith(f"app-0.0.tar.gz: it is here with other bytes (sha256-{'5' * 64}), which stay; purge it")
    assert completed(other.ledger.of("pypi", "app"))["app-0.0.tar.gz"] == mine
