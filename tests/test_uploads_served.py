"""Uploads over HTTP into a hosted index: seen by the very next request, whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from proxy.settings import AccessSettings, GrantSettings, IndexSettings, PageLimits
from tests.hosting import hosted, listed, standing
from tests.inprocess import JSON, Running, Start
from tests.support import wire
from tests.support.clients import Scratch
from tests.support.counter import Doorkeeper, post
from tests.support.fake_upstream import FakeUpstream
from tests.support.forms import Form, distutils_body, upload_of
from tests.support.logins import write_users
from tests.support.open_uploads import UploadsProcess
from tests.support.process import can_mount
from tests.support.publishers import PASSWORD, USER, Publisher
from tests.support.wheels import Distribution, sdist, seeded, wheel
from tests.test_upload import attestation

MIB = 1 << 20


async def send(port: int, form: Form, path: str = "/index/internal/legacy/") -> wire.Reply:
    return await post(port, path, form.body, form.content_type)


async def see(port: int, made: Distribution, version: str, root: str = "/index/internal") -> None:
    """Check that *made* is on every route."""
    page = await wire.fetch(port, f"{root}/simple/{made.project}/", Accept=JSON)
    (file,) = [each for each in page.json["files"] if each["filename"] == made.filename]
    assert file["hashes"]["sha256"] == made.sha256
    url = urljoin(f"{root}/simple/{made.project}/", file["url"])
    assert (await wire.fetch(port, url)).body == made.data
    if made.filename.endswith(".whl"):
        assert (await wire.fetch(port, f"{url}.metadata")).body == made.metadata
    names = await wire.fetch(port, f"{root}/simple/", Accept=JSON)
    assert made.project in [each["name"] for each in names.json["projects"]]
    of_project = (await wire.fetch(port, f"{root}/pypi/{made.project}/json")).json
    of_release = (await wire.fetch(port, f"{root}/pypi/{made.project}/{version}/json")).json
    for files in (of_project["releases"][version], of_release["urls"]):
        assert made.filename in [each["filename"] for each in files]


@pytest_twisted.ensureDeferred
async def test_the_very_next_request_sees_the_upload_100_times_of_100(serve: Start) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    for number in range(100):
        version = f"{number // 2}.0"
        made = (sdist if number % 2 else wheel)(f"app{number % 7}", version)
        assert (await send(proxy.port, upload_of(made))).status == 200
        await see(proxy.port, made, version)


@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_before_is_not_remembered_as_missing(serve: Start) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    made = wheel("app", "1.0")
    for path in ("/simple/app/", "/pypi/app/json", "/pypi/app/1.0/json"):
        for _ in range(3):
            assert (await proxy.get(path, Accept=JSON)).status == 404
    page = await proxy.get("/simple/", Accept=JSON)
    assert (await send(proxy.port, upload_of(made), "/")).status == 200
    await see(proxy.port, made, "1.0", root="")
    assert (await proxy.get("/simple/", Accept=JSON, If_None_Match=page.headers["etag"])).status == 200


@pytest_twisted.ensureDeferred
async def test_pip_and_uv_with_their_caches_install_what_was_just_uploaded(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    scratch = Scratch(tmp_path)
    for number in range(3):
        assert (await send(proxy.port, upload_of(wheel("app", f"{number}.0")), "/")).status == 200
        assert (await scratch.caching_pip(proxy.url, "--upgrade", "app")).status == 0
        assert scratch.installed["app"] == f"{number}.0"
        assert (await send(proxy.port, upload_of(wheel("app", f"{number}.1")), "/")).status == 200
        assert (await scratch.caching_uv(proxy.url, "--upgrade", "app")).status == 0
        assert scratch.installed["app"] == f"{number}.1"


@pytest.mark.parametrize("tool", ["twine", "uv"])
@pytest_twisted.ensureDeferred
async def test_a_tool_uploads_and_an_installer_installs(serve: Start, tmp_path: Path, tool: str) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    publish: Any = getattr(Publisher(tmp_path), tool)
    ended = await publish(f"{proxy.base}/legacy/", wheel("app"), sdist("app"))
    assert ended.status == 0, ended.output
    scratch = Scratch(tmp_path)
    assert (await scratch.uv(proxy.url, "app")).status == 0
    assert scratch.installed == {"app": "1.0"}


@pytest_twisted.ensureDeferred
async def test_uv_publish_with_a_check_url_skips_what_is_there_and_names_other_bytes(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    publisher = Publisher(tmp_path)
    url, made = f"{proxy.base}/legacy/", wheel("app")
    assert (await publisher.uv(url, made, check_url=proxy.url)).status == 0
    again = await publisher.uv(url, made, sdist("app"), check_url=proxy.url)
    assert again.status == 0, again.output
    assert f"{made.filename} already exists, skipping" in again.output
    other = await publisher.uv(url, wheel("app", size=10), check_url=proxy.url)
    assert other.status != 0
    assert set(await listed(proxy, "app")) == {made.filename, sdist("app").filename}


@pytest_twisted.ensureDeferred
async def test_uv_publish_checks_a_restricted_index_with_the_credential_that_it_uploads_with(
    serve: Start, tmp_path: Path
) -> None:
    file = write_users(tmp_path / "users", **{USER: PASSWORD})
    uploader = GrantSettings(role="uploader", principals=(f"user:{USER}",))
    reader = GrantSettings(role="reader", principals=("authenticated",))
    access = AccessSettings(users_file=file)
    proxy = await serve(indexes=(hosted(default=False),), access=access, grants=(uploader, reader))
    publisher, made = Publisher(tmp_path), (wheel("app"), sdist("app"))
    root = f"{proxy.base}/index/internal/"
    assert (await publisher.uv_by_name("internal", root, *made)).status == 0
    # uv may take the credential from its configuration, or from the URL; it sends none of the files again.
    again = await publisher.uv_by_name("internal", root, *made)
    login = f"{quote(USER)}:{quote(PASSWORD)}@"
    (tmp_path / "uv.toml").unlink()
    of_url = await publisher.uv(f"{root}legacy/", *made, check_url=f"{root}simple/".replace("://", f"://{login}"))
    for ended in (again, of_url):
        assert ended.status == 0, ended
        assert all(f"{each.filename} already exists, skipping" in ended.output for each in made), ended
        assert "Uploading" not in ended.output


@pytest_twisted.ensureDeferred
async def test_attestations_are_served_as_provenance(serve: Start) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    made = wheel("app")
    stated = attestation(made.sha256)
    reply = await send(proxy.port, upload_of(made, attestations=json.dumps([stated])), "/")
    assert reply.status == 200, reply
    page = await proxy.page("app")
    url = urljoin("/simple/app/", page["files"][0]["url"])
    served = (await proxy.get(f"{url}.provenance")).json
    assert [each for bundle in served["attestation_bundles"] for each in bundle["attestations"]] == [stated]


@pytest_twisted.ensureDeferred
async def test_what_setuptools_sends_is_served(serve: Start) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    made = sdist("app")
    content_type, body = distutils_body(made)
    assert (await post(proxy.port, "/", body, content_type)).status == 200
    await see(proxy.port, made, "1.0", root="")


@pytest_twisted.ensureDeferred
async def test_of_eight_rivals_for_one_name_one_wins_and_is_served(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    rivals = [wheel("app", "1.0", size=100_000, seed=seed) for seed in range(8)]
    replies = await gatherResults([Deferred.fromCoroutine(send(proxy.port, upload_of(each))) for each in rivals])
    (winner,) = [each for each, reply in zip(rivals, replies, strict=True) if reply.status == 200]
    assert {reply.status for reply in replies} == {200, 400}
    words = f"File already exists: {winner.filename} is, or was, on index internal"
    assert all(reply.reason.startswith(words) for reply in replies if reply.status == 400)
    await see(proxy.port, winner, "1.0")
    assert list(standing(tmp_path / "data" / "hosted" / "internal").values()) == [winner.sha256]
    assert list((tmp_path / "data" / "partial").iterdir()) == []


WRONG = {
    "no zip": (b"PK but no zip", "app-1.0-py3-none-any.whl is refused"),
    "empty": (b"", "app-1.0-py3-none-any.whl is refused: it is empty"),
    "cut off": (wheel("app", size=5000).data[:-40], "app-1.0-py3-none-any.whl is refused"),
    "another project": (wheel("other").data, "app-1.0-py3-none-any.whl is refused"),
    "another version": (wheel("app", "2.0").data, "app-1.0-py3-none-any.whl is refused"),
    "a path that leads out": (wheel("app", files={"../evil.py": b""}).data, "app-1.0-py3-none-any.whl is refused"),
    "an absolute path": (wheel("app", files={"/etc/evil.py": b""}).data, "app-1.0-py3-none-any.whl is refused"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest_twisted.ensureDeferred
async def test_a_file_that_is_wrong_is_refused_in_words_and_leaves_nothing(serve: Start, tmp_path: Path, name: str) -> None:
    data, words = WRONG[name]
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    made = Distribution("app", "app-1.0-py3-none-any.whl", data, b"")
    reply = await send(proxy.port, upload_of(made))
    assert reply.status == 400, reply
    assert words in reply.reason
    assert (await proxy.get("/simple/app/")).status == 404
    for folder in ("hosted", "partial", "files"):
        assert [each for each in (tmp_path / "data" / folder).rglob("*") if each.is_file()] == []


@pytest_twisted.ensureDeferred
async def test_uploads_that_are_cut_off_leave_nothing(serve: Start, tmp_path: Path) -> None:
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper())
    form = upload_of(wheel("app", size=500_000))
    chance = seeded("cut off")
    for _ in range(20):
        client = await wire.connect(proxy.port)
        client.ask("/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
        client.transport.write(form.body[: chance.randrange(len(form.body))])
        await proxy.get("/-/live")
        await client.close()
    assert (await send(proxy.port, form)).json["outcome"] == "new"
    await proxy.stop()
    assert list((tmp_path / "data" / "partial").iterdir()) == []
    assert len(standing(tmp_path / "data" / "hosted" / "internal")) == 1


@pytest_twisted.ensureDeferred
async def test_uploads_and_evictions_at_once_keep_what_was_uploaded(upstream: FakeUpstream, serve: Start) -> None:
    others = [wheel(f"other{number}", size=200_000, seed=number) for number in range(12)]
    for each in others:
        upstream.add_file(each.project, each.filename, each.data)
    pypi = IndexSettings(name="pypi", upstreams=("up0",), default=True, limits=PageLimits(soft_deadline=0.1), prefetch=False)
    proxy = await serve(upstream, indexes=(pypi, hosted(default=False)), rights=Doorkeeper(), max_size=1_500_000)
    mine = [wheel(f"mine{number}", size=100_000, seed=100 + number) for number in range(8)]

    async def fetch(each: Distribution) -> None:
        assert (await proxy.get(await proxy.link(each.project, each.filename))).body == each.data

    async def upload(each: Distribution) -> None:
        assert (await send(proxy.port, upload_of(each))).status == 200

    work = [fetch(each) for each in others] + [upload(each) for each in mine] + [fetch(each) for each in others]
    await gatherResults([Deferred.fromCoroutine(each) for each in work])
    for each in mine:
        await see(proxy.port, each, "1.0")


# -- real processes

MakeProcess = Callable[..., UploadsProcess]


@pytest.fixture
def uploads_process(_clean_reactor: None, tmp_path: Path) -> Iterator[MakeProcess]:
    """Starts processes, one after the other, on one data directory; takes what `UploadsProcess` takes after it."""
    made: list[UploadsProcess] = []

    def make(**options: Any) -> UploadsProcess:
        made.append(UploadsProcess(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.end(signal.SIGKILL)))


@pytest_twisted.ensureDeferred
async def test_killed_in_mid_upload_a_name_is_whole_or_free(uploads_process: MakeProcess) -> None:
    chance = seeded("killed in mid-upload")
    for number in range(6):
        process = await uploads_process().started()
        assert [each for each in process.left if each.startswith("partial/")] == []
        made = wheel("app", f"{number}.0", size=2 * MIB, seed=number)
        form = upload_of(made)
        client = await wire.connect(process.port)
        client.ask("/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
        cut = chance.choice([len(form.body), chance.randrange(len(form.body))])
        client.transport.write(form.body[:cut])
        if cut == len(form.body) and number % 2:
            assert (await client.reply()).status == 200
        answered = b"HTTP/1.1 200 " in client.received
        assert "Traceback" not in await process.end(signal.SIGKILL)
        await client.close()
        process = await uploads_process().started()
        page = await wire.fetch(process.port, "/simple/app/", Accept=JSON)
        there = made.filename in ([each["filename"] for each in page.json["files"]] if page.status == 200 else [])
        assert there or not answered
        reply = await send(process.port, form, "/")
        assert (reply.status, reply.json["outcome"]) == (200, "same" if there else "new")
        await see(process.port, made, f"{number}.0", root="")
        assert "Traceback" not in await process.end()


@pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
@pytest_twisted.ensureDeferred
async def test_on_a_full_disk_uploads_are_refused_in_words_and_the_server_continues(uploads_process: MakeProcess) -> None:
    process = await uploads_process(disk=12 * MIB).started()
    taken: list[Distribution] = []
    refused = []
    for number in range(8):
        made = wheel("app", f"{number}.0", size=MIB, seed=number)
        reply = await send(process.port, upload_of(made), "/")
        if reply.status == 200:
            taken.append(made)
        else:
            refused.append(reply)
    assert taken
    assert {(reply.status, reply.json["code"]) for reply in refused} == {(503, "storage-failed")}
    assert all("No space left on device" in reply.reason for reply in refused)
    names = {each.filename for each in taken}
    page = await wire.fetch(process.port, "/simple/app/", Accept=JSON)
    assert {each["filename"] for each in page.json["files"]} == names
    assert {Path(each).name for each in process.left} == names | {f"{name}.json" for name in names}
    for made in taken:
        await see(process.port, made, made.filename.split("-")[1], root="")
    assert "Traceback" not in await process.end()


@pytest_twisted.ensureDeferred
async def test_memory_does_not_grow_with_what_is_uploaded(uploads_process: MakeProcess) -> None:
    process = await uploads_process().started()
    assert (await send(process.port, upload_of(wheel("warm-up", size=MIB)), "/")).status == 200
    before = process.status("VmHWM")
    made = wheel("app", size=96 * MIB)
    assert (await send(process.port, upload_of(made), "/")).status == 200
    assert process.status("VmHWM") - before < 20 * MIB
    assert "Traceback" not in await process.end()


@pytest_twisted.ensureDeferred
async def test_200_slow_uploads_at_once_leave_room_for_readers_and_for_other_uploads(serve: Start, tmp_path: Path) -> None:
    proxy: Running = await serve(indexes=(hosted(),), rights=Doorkeeper())
    form = upload_of(wheel("app", size=100_000))
    slow = [await wire.connect(proxy.port) for _ in range(200)]
    for client in slow:
        client.ask("/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
        client.transport.write(form.body[:90_000])
    made = wheel("other")
    assert (await send(proxy.port, upload_of(made), "/")).status == 200
    for _ in range(5):
        await see(proxy.port, made, "1.0", root="")
    for client in slow[:100]:
        await client.close()
    for client in slow[100:]:
        client.transport.write(form.body[90_000:])
    assert {(await client.reply()).json["outcome"] for client in slow[100:]} == {"new", "same"}
    for client in slow[100:]:
        await client.close()
    await proxy.stop()
    assert list((tmp_path / "data" / "partial").iterdir()) == []
