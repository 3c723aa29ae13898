"""Every kind of upstream that is out there, as its product really serves, through the service to a client's page and file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted

from proxy.settings import IndexSettings, PageLimits
from tests.inprocess import JSON, Running, upstream_settings
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import wheel

SIX = wheel("six", "1.16.0", size=5000)
SHA256 = SIX.sha256
MD5 = hashlib.md5(SIX.data, usedforsecurity=False).hexdigest()
HTML = "text/html"

Serve = Callable[..., Awaitable[Running]]
Make = Callable[..., FakeUpstream]


def put(upstream: FakeUpstream, path: str, **headers: str) -> None:
    """Have the bytes of SIX under *path*."""
    upstream.add_path(path, SIX.data, "application/octet-stream", ranges=True, **headers)


def page_of(upstream: FakeUpstream, body: str, content_type: str = HTML) -> None:
    upstream.project("six").raw = (content_type, body.encode())


def anchors(*links: str) -> str:
    return "<!DOCTYPE html><html><head><title>Links for six</title></head><body><h1>Links for six</h1>" + "".join(links)


def link(href: str, text: str = SIX.filename, **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<a href="{href}"{more}>{text}</a><br/>'


async def installs(proxy: Running, filename: str = SIX.filename, index: str = "") -> Any:
    """The file's entry on the page, once the file was fetched cold and hot, and asked for by HEAD and in parts."""
    page = await proxy.page("six", index)
    (entry,) = [each for each in page["files"] if each["filename"] == filename]
    assert entry["url"].startswith("../../files/six/"), entry
    path = f"{index}/files/" + entry["url"].removeprefix("../../files/")
    head = await proxy.head(path)
    assert (head.status, head.headers.get("content-length", str(len(SIX.data)))) == (200, str(len(SIX.data)))
    part = await proxy.get(path, Range="bytes=100-199")
    assert part.body in (SIX.data[100:200], SIX.data)
    for _ in range(2):
        reply = await proxy.get(path)
        assert (reply.status, reply.complete, reply.body == SIX.data) == (200, True, True)
    return entry


@pytest_twisted.ensureDeferred
async def test_a_bandersnatch_static_mirror_in_html(upstream: FakeUpstream, serve: Serve) -> None:
    upstream.content.serials = False
    page_of(
        upstream,
        '<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0"></head><body>'
        + link(f"../../packages/ab/{SIX.filename}#sha256={SHA256}", data_requires_python="&gt;=2.7")
        + "</body></html>\n<!--SERIAL 11863544-->",
    )
    put(upstream, f"/packages/ab/{SIX.filename}")
    proxy = await serve(upstream)
    entry = await installs(proxy)
    assert entry["requires-python"] == ">=2.7"
    assert (await proxy.get("/simple/six/")).headers["x-pypi-last-serial"] == "11863544"


@pytest_twisted.ensureDeferred
async def test_a_bandersnatch_static_mirror_in_json_that_nobody_negotiates(upstream: FakeUpstream, serve: Serve) -> None:
    document = {
        "files": [
            {
                "filename": SIX.filename,
                "hashes": {"sha256": SHA256},
                "requires-python": "",
                "size": len(SIX.data),
                "upload-time": "",
                "url": f"../../packages/ab/{SIX.filename}",
                "yanked": False,
            }
        ],
        "meta": {"_last-serial": "11863544", "api-version": "1.1"},
        "name": "six",
        "versions": ["1.16.0"],
    }
    # nginx with "index index.v1_json" calls it what it calls any ending it does not know.
    page_of(upstream, json.dumps(document), "application/octet-stream")
    put(upstream, f"/packages/ab/{SIX.filename}")
    entry = await installs(await serve(upstream))
    assert "upload-time" not in entry


@pytest_twisted.ensureDeferred
async def test_devpi(upstream: FakeUpstream, serve: Serve) -> None:
    document = {
        "meta": {"api-version": "1.0"},
        "name": "six",
        "files": [{"filename": SIX.filename, "url": f"../../+f/ab/{SIX.filename}", "hashes": {"sha256": SHA256}}],
    }
    upstream.add_path("/team/pypi/+simple/six/", json.dumps(document).encode(), JSON, X_PYPI_LAST_SERIAL="7")
    put(upstream, f"/team/pypi/+f/ab/{SIX.filename}")
    await installs(await serve(upstream_settings(f"{upstream.base}/team/pypi/+simple/")))


@pytest_twisted.ensureDeferred
async def test_artifactory_redirects_to_http_without_the_slash(tmp_path: Any, make_upstream: Make, serve: Serve) -> None:
    upstream = make_upstream(tls=certs.server_context())
    authority, _ = certs.authority().write(tmp_path, "ca")
    upstream.add_path("/artifactory/api/pypi/pypi/simple/six", anchors(link(f"../../packages/{SIX.filename}")).encode())
    put(upstream, f"/artifactory/api/pypi/packages/{SIX.filename}")
    plain = upstream.base.replace("https:", "http:")
    upstream.script("*/simple/six/", Fault(status=302, redirect=f"{plain}/artifactory/api/pypi/pypi/simple/six"))
    await installs(await serve(upstream_settings(f"{upstream.base}/artifactory/api/pypi/pypi/simple/", ca_file=authority)))


@pytest_twisted.ensureDeferred
async def test_nexus(upstream: FakeUpstream, serve: Serve) -> None:
    body = anchors(link(f"../../packages/six/1.16.0/{SIX.filename}#sha256={SHA256}", rel="internal"))
    upstream.add_path("/repository/pypi/simple/six/", body.encode())
    put(upstream, f"/repository/pypi/packages/six/1.16.0/{SIX.filename}")
    await installs(await serve(upstream_settings(f"{upstream.base}/repository/pypi/simple/")))


@pytest_twisted.ensureDeferred
async def test_gitlab_sends_unknown_names_to_the_public_index(make_upstream: Make, serve: Serve) -> None:
    gitlab, public = make_upstream(), make_upstream()
    own = wheel("own")
    gitlab.content.json = False
    gitlab.add_file("own", own.filename, own.data)
    gitlab.script("/simple/six/", Fault(status=302, redirect=f"{public.url}six/"))
    public.content.relative = True
    public.add_file("six", SIX.filename, SIX.data)
    secret = {"username": "__token__", "password": "for gitlab alone"}
    proxy = await serve(upstream_settings(gitlab.url, **secret))
    await installs(proxy)
    assert (await proxy.get(await proxy.link("own", own.filename))).body == own.data
    assert all("authorization" in request.headers for request in gitlab.asked)
    assert not any("authorization" in request.headers for request in public.asked)


@pytest_twisted.ensureDeferred
async def test_codeartifact_links_relative_to_a_slashed_url(upstream: FakeUpstream, serve: Serve) -> None:
    body = anchors(link(f"1.16.0/{SIX.filename}#sha256={SHA256}", data_gpg_sig="false"))
    upstream.add_path("/pypi/store/simple/six/", body.encode())
    put(upstream, f"/pypi/store/simple/six/1.16.0/{SIX.filename}")
    settings = upstream_settings(f"{upstream.base}/pypi/store/simple/", username="aws", password="short-lived")
    await installs(await serve(settings))


@pytest_twisted.ensureDeferred
async def test_azure_knows_no_head_and_no_hashes_and_sends_files_to_a_cdn(make_upstream: Make, serve: Serve) -> None:
    azure, cdn = make_upstream(), make_upstream()
    page_of(azure, anchors(link(f"../../download/{SIX.filename}")))
    azure.script("HEAD *", Fault(status=405))
    azure.script(
        "/download/*",
        Fault(status=303, redirect=f"{cdn.base}/blob/{SIX.filename}?sig=a%2Fb", headers={"Cache-Control": "no-store"}),
    )
    put(cdn, f"/blob/{SIX.filename}")
    proxy = await serve(upstream_settings(azure.url, token="secret"))
    entry = await installs(proxy)
    assert entry["hashes"] == {}
    assert all(request.path.endswith("?sig=a%2Fb") for request in cdn.asked)
    assert not any("authorization" in request.headers for request in cdn.asked)


@pytest_twisted.ensureDeferred
async def test_google_artifact_registry_says_nothing_of_ranges_to_head(upstream: FakeUpstream, serve: Serve) -> None:
    body = anchors(link(f"{upstream.base}/project/repo/six/{SIX.filename}#sha256={SHA256}"))
    upstream.add_path("/project/repo/simple/six/", body.encode())
    put(upstream, f"/project/repo/six/{SIX.filename}")
    upstream.script("HEAD *", Fault(headers={"Accept-Ranges": None, "Content-Length": None}))
    await installs(await serve(upstream_settings(f"{upstream.base}/project/repo/simple/", token="secret")))


@pytest_twisted.ensureDeferred
async def test_presigned_urls_are_made_anew_for_each_request(make_upstream: Make, serve: Serve) -> None:
    index, s3 = make_upstream(), make_upstream()
    page_of(index, anchors(link(f"{index.base}/files/{SIX.filename}#sha256={SHA256}")))
    for number in range(9):
        # A URL is signed for one method: the one for GET refuses HEAD, and the other way round.
        index.script("HEAD /files/*", Fault(redirect=f"{s3.base}/head-{number}"), times=1)
        index.script("GET /files/*", Fault(redirect=f"{s3.base}/get-{number}"), times=1)
        put(s3, f"/head-{number}")
        put(s3, f"/get-{number}")
    s3.script("GET /head-*", Fault(status=403))
    s3.script("HEAD /get-*", Fault(status=403))
    await installs(await serve(index))
    paths = [request.path for request in s3.asked]
    assert len(paths) == len(set(paths))


@pytest_twisted.ensureDeferred
async def test_a_mirror_that_knows_only_normalised_names_and_no_metadata(make_upstream: Make, serve: Serve) -> None:
    tuna, public = make_upstream(), make_upstream()
    for each in (tuna, public):
        each.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata)
    tuna.script("*.metadata", Fault(status=404))
    tuna.script(lambda request: request.path.lower() != request.path, Fault(status=404))
    proxy = await serve(tuna, public)
    path = await proxy.link("six", SIX.filename)
    assert (await proxy.get("/simple/SIX/")).status == 307
    assert (await proxy.get(f"{path}.metadata")).body == SIX.metadata
    await installs(proxy)


@pytest_twisted.ensureDeferred
async def test_aliyun_has_relative_links_and_no_hashes(upstream: FakeUpstream, serve: Serve) -> None:
    page_of(upstream, anchors(link(f"../../packages/ab/{SIX.filename}")))
    put(upstream, f"/packages/ab/{SIX.filename}")
    entry = await installs(await serve(upstream))
    assert entry["url"] == f"../../files/six/none/{SIX.filename}"


@pytest_twisted.ensureDeferred
async def test_a_flat_download_page_with_files_on_another_host_and_local_versions(make_upstream: Make, serve: Serve) -> None:
    index, host = make_upstream(), make_upstream()
    filename = "six-1.16.0+cpu-cp311-cp311-linux_x86_64.whl"
    quoted = filename.replace("+", "%2B")
    index.add_path("/whl/cpu/six/", anchors(link(f"{host.base}/whl/cpu/{quoted}#sha256={SHA256}", filename)).encode())
    put(host, f"/whl/cpu/{filename}")
    pytorch = IndexSettings(name="pytorch", upstreams=("pytorch",))
    pypi = IndexSettings(name="pypi", upstreams=("pypi",), default=True)
    proxy = await serve(
        upstream_settings(f"{index.base}/whl/cpu/", "pytorch"), upstream_settings(index.url), indexes=(pypi, pytorch)
    )
    entry = await installs(proxy, filename, "/index/pytorch")
    for plus in ("+", "%2B", "%2b"):
        path = f"/index/pytorch/files/six/sha256-{SHA256}/{filename.replace('+', plus)}"
        assert (await proxy.get(path)).body == SIX.data
    assert entry["url"].endswith(filename)
    assert (await proxy.get("/simple/six/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_page_without_an_end_tag_and_without_a_length(upstream: FakeUpstream, serve: Serve) -> None:
    page_of(upstream, anchors(link(f"../../f/{SIX.filename}")), "text/html, text/html")
    put(upstream, f"/f/{SIX.filename}")
    upstream.script("/simple/six/", Fault(no_content_length=True, close=True))
    await installs(await serve(upstream))


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_cut_off_inside_a_link_is_no_page_whatever_its_type(upstream: FakeUpstream, serve: Serve) -> None:
    page = anchors(link(f"../../f/{SIX.filename}"), link("../../f/six-1.zip", "six-1.zip"))
    proxy = await serve(upstream)
    for number, content_type in enumerate(("text/html", "", "text/plain", "text/html, text/html")):
        project = f"six-{number}"
        upstream.project(project).raw = (content_type, page.encode())
        upstream.script(
            f"/simple/{project}/", Fault(no_content_length=True, close=True, cut_after=page.rindex("six-1.zip</a>"))
        )
        reply = await proxy.get(f"/simple/{project}/")
        assert (reply.status, "cut off" in reply.reason) == (503, True), reply


@pytest_twisted.ensureDeferred
async def test_a_file_server_that_knows_no_type_of_html(upstream: FakeUpstream, serve: Serve) -> None:
    page_of(upstream, anchors(link(f"../../f/{SIX.filename}")), "application/octet-stream")
    put(upstream, f"/f/{SIX.filename}")
    proxy = await serve(upstream)
    assert "size" not in (await proxy.page())["files"][0]
    await installs(proxy)
    page = await proxy.page()
    assert (page["meta"]["api-version"], page["files"][0]["size"]) == ("1.1", len(SIX.data)), "learned with the download"


@pytest_twisted.ensureDeferred
async def test_json_that_hardly_says_what_it_is(upstream: FakeUpstream, serve: Serve) -> None:
    file = {"filename": SIX.filename, "url": f"/f/{SIX.filename}", "hashes": {"sha256": SHA256}}
    put(upstream, f"/f/{SIX.filename}")
    for number, page in enumerate(({"files": [file]}, {"meta": {"api-version": 1.0}, "name": None, "files": [None, 7, file]})):
        page_of(upstream, json.dumps(page), JSON)
        await installs(await serve(upstream, data=str(number)))


@pytest_twisted.ensureDeferred
async def test_an_object_store_takes_a_plus_in_a_link_for_a_space(upstream: FakeUpstream, serve: Serve) -> None:
    filename = "six-1.16.0+cpu-cp311-cp311-linux_x86_64.whl"
    put(upstream, f"/whl/{filename}")
    upstream.script("*+*", Fault(status=403))
    for href in (f"../../whl/{filename}", f"{upstream.base}/whl/{filename}", f"../../whl/{filename}?a=b"):
        page_of(upstream, anchors(link(href, filename)))
        await installs(await serve(upstream, data=f"data-{href.count('?')}-{len(href)}"), filename)
    document = {"meta": {"api-version": "1.0"}, "name": "six", "files": [{"filename": filename, "url": f"/whl/{filename}"}]}
    page_of(upstream, json.dumps(document), JSON)
    await installs(await serve(upstream, data="json"), filename)


@pytest_twisted.ensureDeferred
async def test_a_plain_directory_listing(upstream: FakeUpstream, serve: Serve) -> None:
    listing = (
        "<html><head><title>Index of /simple/six/</title></head><body><h1>Index of /simple/six/</h1><hr><pre>"
        f'<a href="../">../</a>\n<a href="{SIX.filename}">six-1.16.0-py3-none..&gt;</a> 01-Jan-2024 10:00 11053\n'
        '<a href="README.txt">README.txt</a>\n</pre><hr></body></html>'
    )
    upstream.add_path("/wheels/six/", listing.encode())
    put(upstream, f"/wheels/six/{SIX.filename}")
    await installs(await serve(upstream_settings(f"{upstream.base}/wheels/")))


@pytest_twisted.ensureDeferred
async def test_a_listing_without_a_distribution_hides_no_other_upstream_and_replaces_no_page(
    make_upstream: Make, serve: Serve
) -> None:
    mirror, public = make_upstream(), make_upstream()
    public.add_file("six", SIX.filename, SIX.data)
    page_of(mirror, anchors(link(f"../../f/{SIX.filename}")))
    put(mirror, f"/f/{SIX.filename}")
    limits = PageLimits(ttl=0.0, soft_deadline=5.0)
    warm = await serve(mirror, limits=limits)
    await installs(warm)
    title = "<title>Index of /simple/six/</title><h1>Index of /simple/six/</h1>"
    page_of(mirror, f"<html>{title}<pre><a href='../'>../</a>\n<a href='index.html'>index.html</a>\n</pre></html>")
    assert [file["filename"] for file in (await warm.page())["files"]] == [SIX.filename]
    await installs(await serve(mirror, public, data="both"))
    cold = await (await serve(mirror, data="cold")).get("/simple/six/")
    assert (cold.status, "listing of a folder" in cold.reason) == (503, True)


@pytest_twisted.ensureDeferred
async def test_another_pypiproxy(upstream: FakeUpstream, serve: Serve) -> None:
    upstream.add_file("six", SIX.filename, SIX.data, metadata=SIX.metadata, requires_python=">=3.8")
    inner = await serve(upstream, data="inner")
    outer = await serve(upstream_settings(f"http://127.0.0.1:{inner.port}/simple/"), data="outer")
    entry = await installs(outer)
    assert entry["requires-python"] == ">=3.8"
    assert (await outer.get(f"{await outer.link('six', SIX.filename)}.metadata")).body == SIX.metadata
    assert upstream.count("/simple/six/") == 1


@pytest_twisted.ensureDeferred
async def test_two_proxies_that_ask_each_other_say_which_setting_is_wrong(
    upstream: FakeUpstream, make_upstream: Make, serve: Serve
) -> None:
    spare = make_upstream()
    await spare.down()  # its port is free now, and known to the first proxy
    first = await serve(upstream_settings(spare.url, "second"), data="first")
    await spare.close()
    second = await serve(
        upstream_settings(f"http://127.0.0.1:{first.port}/simple/", "first"),
        data="second",
        listen=(f"tcp:{spare.port}:interface=127.0.0.1",),
    )
    reply = await second.get("/simple/six/")
    assert reply.status == 508
    assert "points back at this proxy" in reply.reason
    assert "upstream.first.url" in reply.reason
