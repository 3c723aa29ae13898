"""``pypiproxy hosted import``: projects are taken over from another index, or from a directory, as they were there."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from proxy.errors import BadRequest, NotFound, StorageFailed, TooMuch
from proxy.settings import GroupSettings, IndexSettings
from tests.hosting import hosted, listed, standing, upload
from tests.inprocess import JSON, Running, Start
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.operator import Operator
from tests.support.process import ProxyProcess
from tests.support.wheels import Distribution, sdist, wheel

THEN = "2014-05-06T07:08:09.123456Z"
APP, OLD, LIB, BIG = wheel("app", "2.0"), sdist("app", "1.0"), wheel("lib", "1.0"), wheel("big", "1.0", size=3_000_000)
ALL = (APP, OLD, LIB, BIG)
CONFIG = '[[index]]\nname = "internal"\nkind = "hosted"\ndefault = true\n'


@pytest.fixture
def elsewhere(upstream: FakeUpstream) -> FakeUpstream:
    """The index that is moved from."""
    for each in ALL:
        upstream.add_file(each.project, each.filename, each.data, upload_time=THEN)
    upstream.add_file("app", OLD.filename, OLD.data, upload_time=THEN, yanked="broken & bad")
    upstream.project("lib").keys["project-status"] = {"status": "archived", "reason": "moved"}
    return upstream


async def imported(proxy: Running, source: object, *projects: str, **arguments: Any) -> tuple[dict[str, int], list[Any]]:
    """The sums of an import, and what it said on its way."""
    said: list[Any] = []
    operation = proxy.service.administration.operations["hosted_import"]
    tally: Any = await operation(said.append, index="internal", source=str(source), projects=projects, **arguments)
    return tally, said


def failures(said: list[Any]) -> dict[str, str]:
    done = [each["done"] for each in said if "done" in each]
    return {each["filename"]: each["why"] for each in done if each["state"] == "failed"}


async def require_moved(proxy: Running, *moved: Distribution) -> None:
    for each in moved:
        file = (await listed(proxy, each.project))[each.filename]
        assert (file["hashes"], file["size"]) == ({"sha256": each.sha256}, len(each.data))
        reply = await proxy.get(await proxy.link(each.project, each.filename))
        assert reply.body == each.data


@pytest.mark.parametrize("html", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_index_is_taken_over_as_it_is(serve: Start, elsewhere: FakeUpstream, html: bool) -> None:
    elsewhere.content.json = not html
    proxy = await serve(indexes=(hosted(),))
    tally, _ = await imported(proxy, elsewhere.url)
    assert (tally["projects"], tally["imported"], tally["there"], tally["failed"]) == (3, 4, 0, 0)
    assert tally["bytes"] == sum(len(each.data) for each in ALL)
    await require_moved(proxy, *ALL)
    files = await listed(proxy, "app")
    assert {name: file["yanked"] for name, file in files.items()} == {APP.filename: False, OLD.filename: "broken & bad"}
    if not html:  # which states no times
        assert {file["upload-time"] for file in files.values()} == {THEN}
        assert (await proxy.page("lib"))["project-status"] == {"status": "archived", "reason": "moved"}
    before = elsewhere.count("*.whl") + elsewhere.count("*.tar.gz")
    again, _ = await imported(proxy, elsewhere.url)
    assert (again["imported"], again["there"], again["failed"], again["bytes"]) == (0, 4, 0, 0)
    assert elsewhere.count("*.whl") + elsewhere.count("*.tar.gz") == before


@pytest_twisted.ensureDeferred
async def test_without_an_upload_time_that_of_the_file_counts(serve: Start, elsewhere: FakeUpstream) -> None:
    elsewhere.content.json = False
    elsewhere.script("*.whl", Fault(headers={"Last-Modified": "Tue, 06 May 2014 07:08:09 GMT"}))
    proxy = await serve(indexes=(hosted(),))
    await imported(proxy, elsewhere.url, "Lib")
    assert (await listed(proxy, "lib"))[LIB.filename]["upload-time"] == "2014-05-06T07:08:09.000000Z"
    assert (await proxy.get("/simple/app/")).status == 404


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_taken_is_told_and_the_rest_is_taken(
    serve: Start, elsewhere: FakeUpstream, tmp_path: Path
) -> None:
    elsewhere.add_file("lib", "lib-0.1-py2.7.egg", b"an egg")
    bad = wheel("lib", "3.0")
    elsewhere.add_file("lib", bad.filename, bad.data, hashes={"sha256": "0" * 64})
    elsewhere.add_file("lib", wheel("lib", "4.0").filename, b"no zip")
    proxy = await serve(indexes=(hosted(),))
    rival = wheel("app", "2.0", size=1000)
    await upload(proxy.service.receiving["internal"], rival)
    tally, said = await imported(proxy, elsewhere.url, "app", "lib", "gone")
    assert (tally["imported"], tally["failed"]) == (2, 5)
    why = failures(said)
    assert why.keys() == {"lib-0.1-py2.7.egg", bad.filename, wheel("lib", "4.0").filename, APP.filename, "gone"}
    assert why[APP.filename] == "the index has other bytes under this name"
    assert why["gone"] == "the source has no project gone"
    await require_moved(proxy, OLD, LIB, rival)
    assert not list((tmp_path / "data" / "partial").iterdir())


@pytest_twisted.ensureDeferred
async def test_a_run_that_broke_off_is_gone_on_with(serve: Start, elsewhere: FakeUpstream) -> None:
    proxy = await serve(indexes=(hosted(max_files=2),))
    with pytest.raises(TooMuch, match="max_files"):
        await imported(proxy, elsewhere.url, jobs=1)
    await proxy.stop()
    proxy = await serve(indexes=(hosted(),))
    elsewhere.script("*big*.whl", Fault(cut_after=1_000_000), times=1)
    tally, said = await imported(proxy, elsewhere.url, jobs=1)
    assert (tally["imported"], tally["there"], failures(said)) == (2, 2, {})
    await require_moved(proxy, *ALL)


@pytest_twisted.ensureDeferred
async def test_names_that_a_lower_member_serves_are_listed_first_and_held(serve: Start, elsewhere: FakeUpstream) -> None:
    public = FakeUpstream().start()
    public.add_file("lib", wheel("lib", "9.0").filename, wheel("lib", "9.0").data)
    try:
        proxy = await serve(
            public,
            indexes=(
                hosted("internal", default=False),
                IndexSettings(name="pypi", upstreams=("up0",), prefetch=False),
                IndexSettings(name="all", kind="group", default=True, group=GroupSettings(members=("internal", "pypi"))),
            ),
        )
        assert (await proxy.get("/index/pypi/simple/lib/", Accept=JSON)).status == 200
        dry, said = await imported(proxy, elsewhere.url, dry=True)
        assert (dry["imported"], dry["collisions"], list(said[0])) == (4, 1, ["collision"])
        assert said[0]["collision"]["project"] == "lib"
        assert await listed(proxy, "app", "/index/internal") == {}
        tally, said = await imported(proxy, elsewhere.url)
        assert (tally["imported"], tally["collisions"]) == (4, 1)
        assert "collision" in said[0]
        assert list(await listed(proxy, "app")) == [OLD.filename, APP.filename]
        assert list(await listed(proxy, "lib")) == [wheel("lib", "9.0").filename]
    finally:
        await public.close()


@pytest_twisted.ensureDeferred
async def test_directories_of_other_products_are_taken_over(serve: Start, tmp_path: Path) -> None:
    flat, devpi = tmp_path / "flat", tmp_path / "export"
    for each in (APP, OLD):
        flat.mkdir(exist_ok=True)
        (flat / each.filename).write_bytes(each.data)
        os.utime(flat / each.filename, (1_400_000_000, 1_400_000_000))
    path = devpi / "bob" / "dev" / "lib" / "1.0" / LIB.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(LIB.data)
    files = [
        {
            "relpath": f"bob/dev/lib/1.0/{LIB.filename}",
            "entrymapping": {"hash_spec": f"sha256={LIB.sha256}"},
            "log": [{"what": "upload", "who": "bob", "when": [2014, 5, 6, 7, 8, 9], "dst": "bob/dev"}],
        }
    ]
    (devpi / "dataindex.json").write_text(json.dumps({"indexes": {"bob/dev": {"files": files}}}))
    proxy = await serve(indexes=(hosted(),))
    assert (await imported(proxy, flat))[0]["imported"] == 2
    assert (await imported(proxy, devpi / "bob" / "dev"))[0]["imported"] == 1
    await require_moved(proxy, APP, OLD, LIB)
    assert (await listed(proxy, "app"))[APP.filename]["upload-time"] == "2014-05-13T16:53:20.000000Z"
    assert (await listed(proxy, "lib"))[LIB.filename]["upload-time"] == "2014-05-06T07:08:09.000000Z"
    noted = json.loads((tmp_path / "data/hosted/internal/lib" / f"{LIB.filename}.json").read_text())
    assert noted["uploader"] == "bob"
    # and our own, with all that it says of its files
    await proxy.service.administration.perform("yank", index="internal", project="app", which="1.0", reason="old")
    await proxy.service.administration.perform("status", index="internal", project="lib", status="deprecated")
    await proxy.stop()
    shutil.copytree(tmp_path / "data/hosted/internal", tmp_path / "copy")
    other = await serve(indexes=(hosted(),), data="other")
    assert (await imported(other, tmp_path / "copy"))[0]["imported"] == 3
    assert (await listed(other, "app"))[OLD.filename]["yanked"] == "old"
    assert (await listed(other, "lib"))[LIB.filename]["upload-time"] == "2014-05-06T07:08:09.000000Z"
    assert (await other.page("lib"))["project-status"] == {"status": "deprecated"}
    with pytest.raises(StorageFailed, match="cannot be read by the proxy: No such file"):
        await imported(other, tmp_path / "nowhere")
    with pytest.raises(BadRequest, match="is no URL of an index"):
        await imported(other, "ftp://host/")
    with pytest.raises(NotFound):
        await other.service.administration.perform("hosted_import", index="odd", source=str(flat))


@pytest_twisted.ensureDeferred
async def test_operators_import_with_and_without_a_proxy_and_no_password_is_shown(
    elsewhere: FakeUpstream, tmp_path: Path
) -> None:
    proxy = ProxyProcess(tmp_path, config=CONFIG)
    operator = Operator(tmp_path, proxy.data_dir)
    options = ("--data-dir", str(proxy.data_dir), "--config", str(tmp_path / "pypiproxy.toml"))
    url = elsewhere.url.replace("//", "//bob@")
    proxy.data_dir.mkdir(mode=0o700)
    line = ("hosted", "import", *options, "internal", "--from", url)
    ended = await operator.without_directory(*line)
    assert (
        ended.status,
        "no password for bob at 127.0.0.1: put it into PYPIPROXY_IMPORT_PASSWORD or netrc" in ended.output,
    ) == (
        1,
        True,
    ), ended
    ended = await operator.without_directory("hosted", "import", *options, "internal", "--from", url.replace("bob@", "bob:x@"))
    assert (ended.status, "can see a password on the command line" in ended.output) == (2, True), ended
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login bob password s3cret\n")
    ended = await operator.without_directory(*line, "lib")
    assert ended.output.splitlines()[-1].startswith("1 project: 1 file imported"), ended
    await proxy.started()
    try:
        ended = await operator.without_directory(*line)
        assert (ended.status, "3 projects: 3 files imported" in ended.output, "1 there already" in ended.output) == (
            0,
            True,
            True,
        )
        assert "s3cret" not in ended.output + proxy.log
    finally:
        await proxy.stop()
    sent = {request.headers.get("authorization") for request in elsewhere.asked}
    assert sent == {"Basic " + base64.b64encode(b"bob:s3cret").decode()}
    assert len(standing(proxy.data_dir / "hosted/internal")) == 4
