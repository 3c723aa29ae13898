"""Uploads over real sockets, in front of an index in memory: who may, what is taken, and what each refusal says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent

from proxy.access.rights import Access
from proxy.errors import RightsUnknown
from proxy.web.patience import Patience
from tests.shelf import Shelf
from tests.support import wire
from tests.support.counter import Counter, Doorkeeper, post
from tests.support.forms import BOUNDARY, Form, distutils_body, upload_of
from tests.support.receiving import Shop
from tests.support.wheels import sdist, wheel

reactor: Any = default_reactor

SIX, SDIST = wheel("six", "1.0", size=300_000), sdist("six", "1.0")
Open = Callable[..., Counter]


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def counter(_clean_reactor: None) -> Iterator[Open]:
    """Opens counters; takes what `Counter` takes."""
    opened: list[Counter] = []

    def opens(*shops: Shop, **options: Any) -> Counter:
        opened.append(Counter(*shops, **options).open())
        return opened[-1]

    yield opens
    for each in opened:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


async def turns(until: Callable[[], bool]) -> None:
    """Let the reactor work until a condition holds."""
    for _ in range(2000):
        if until():
            return
        await deferLater(reactor, 0.002)
    raise TimeoutError("the condition does not come to hold")


# -- what is taken


@pytest.mark.parametrize("made", [SIX, SDIST], ids=lambda made: made.filename)
@pytest.mark.parametrize("path", ["/index/internal/", "/index/internal", "/index/internal/legacy/", "/index/internal/legacy"])
@pytest_twisted.ensureDeferred
async def test_an_upload_is_taken_at_the_root_of_the_index_and_at_legacy(
    counter: Open, shop: Shop, path: str, made: Any
) -> None:
    reply = await counter(shop).send(upload_of(made, requires_python=">=3.8"), path)
    assert (reply.status, reply.json["outcome"]) == (200, "new"), reply
    assert shop.files == {made.filename: made.data}
    assert shop.sent_by == {made.filename: "anonymous"}
    form = shop.forms[made.filename]
    assert (form.project, form.name, form.version, form.requires_python) == ("six", "six", "1.0", ">=3.8")
    assert form.digests.keys() == {"sha256", "md5", "blake2b_256"}
    assert shop.under_way == []


@pytest_twisted.ensureDeferred
async def test_what_an_uploader_should_know_is_in_the_reason_phrase_of_the_success(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    assert (await site.send(upload_of(SDIST))).reason == "OK"
    shop.remarks["six"] = "six is held:\nsay \N{SNOWMAN} so"
    reply = await site.send(upload_of(SIX))
    assert (reply.status, reply.reason, reply.json["remark"]) == (200, "OK, but six is held: say   so", shop.remarks["six"])


@pytest.mark.parametrize("path", ["/", "/legacy/", "/legacy"])
@pytest_twisted.ensureDeferred
async def test_the_default_index_takes_uploads_at_the_root(counter: Open, shop: Shop, path: str) -> None:
    site = counter(shop, default="internal")
    assert (await site.send(upload_of(SIX), path)).status == 200
    assert shop.files == {SIX.filename: SIX.data}


@pytest_twisted.ensureDeferred
async def test_the_same_file_again_is_a_200_and_other_bytes_are_a_400_that_tools_know(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    outcomes = [(await site.send(upload_of(SIX))).json["outcome"] for _ in range(2)]
    assert outcomes == ["new", "same"]
    reply = await site.send(upload_of(wheel("six", "1.0", size=10)))
    assert (reply.status, reply.json["code"]) == (400, "file-exists")
    assert reply.reason.startswith("File already exists: ")
    assert shop.files == {SIX.filename: SIX.data}


@pytest_twisted.ensureDeferred
async def test_what_setuptools_sends_is_taken(counter: Open, shop: Shop) -> None:
    content_type, body = distutils_body(SDIST)
    reply = await post(counter(shop).port, "/index/internal/", body, content_type)
    assert reply.status == 200, reply
    assert shop.files == {SDIST.filename: SDIST.data}
    assert shop.forms[SDIST.filename].requires_python is None


@pytest_twisted.ensureDeferred
async def test_a_body_in_chunks_is_taken_and_the_connection_goes_on(counter: Open, shop: Shop) -> None:
    form = upload_of(SIX)
    client = await wire.connect(counter(shop).port)
    for _ in range(2):
        client.ask("/index/internal/", "POST", Content_Type=form.content_type, Transfer_Encoding="chunked")
        for start in range(0, len(form.body), 50_000):
            piece = form.body[start : start + 50_000]
            client.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.transport.write(b"0\r\n\r\n")
        assert (await client.reply()).status == 200
    client.ask("/index/internal/simple/here/")
    assert (await client.reply()).status == 200
    await client.close()


@pytest_twisted.ensureDeferred
async def test_the_file_may_come_first_and_other_fields_and_signatures_are_read_over(counter: Open, shop: Shop) -> None:
    form = upload_of(SIX, description="x" * 2_000_000)
    form = form.in_order(range(len(form.fields) - 1, -1, -1))
    form = Form(
        (*form.fields, ("gpg_signature", f"{SIX.filename}.asc", b"-----BEGIN"), ("", None, b""), ("Ünknown", None, b"\xff"))
    )
    assert (await counter(shop).send(form)).status == 200
    assert shop.files == {SIX.filename: SIX.data}


# -- who may


@pytest_twisted.ensureDeferred
async def test_who_may_not_upload_is_told_before_the_body_is_asked_for(counter: Open, shop: Shop) -> None:
    form = upload_of(SIX)
    for access, status in ((Access.LOGIN, 401), (Access.HIDDEN, 404)):
        site = counter(shop, rights=Doorkeeper(access))
        client = await wire.connect(site.port)
        client.ask(
            "/index/internal/", "POST", Content_Type=form.content_type, Content_Length="900000000", Expect="100-continue"
        )
        reply = await client.reply()
        assert reply.status == status
        assert reply.headers.get("www-authenticate") == ('Basic realm="pypiproxy"' if status == 401 else None)
        assert reply.headers["connection"] == "close"
        await client.close()
        assert site.rights.asked == [("internal", None)]
    assert shop.begun == []


@pytest_twisted.ensureDeferred
async def test_who_may_upload_is_asked_for_the_body_once_the_index_has_room(counter: Open, shop: Shop) -> None:
    form = upload_of(SIX)
    client = await wire.connect(counter(shop).port)
    head = {"Content_Type": form.content_type, "Expect": "100-continue"}
    client.ask("/index/internal/", "POST", Content_Length=str(len(form.body)), **head)
    await client.until(lambda: bytes(client.received) == b"HTTP/1.1 100 Continue\r\n\r\n")
    assert shop.begun == [(None, len(form.body))]
    client.received.clear()
    client.transport.write(form.body)
    assert (await client.reply()).status == 200
    shop.largest = 1000
    client.ask("/index/internal/", "POST", Content_Length="1001", **head)
    reply = await client.reply()
    assert (reply.status, reply.reason) == (413, "Too much: the index internal may have 1000 bytes")
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_project_that_is_not_ones_own_is_refused_before_its_file_comes(counter: Open, shop: Shop) -> None:
    for access, status in ((Access.LOGIN, 401), (Access.HIDDEN, 404)):
        rights = Doorkeeper(of_project={"acme-x": access})
        form = upload_of(wheel("Acme.X", "1.0", size=300_000))
        client = await wire.connect(counter(shop, rights=rights).port)
        client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
        client.transport.write(form.body[:5000])  # the fields, and the beginning of the file
        assert (await client.reply()).status == status
        await client.close()
        assert rights.asked == [("internal", None), ("internal", "acme-x")]
        # the file comes before the name
        assert (await counter(shop, rights=rights).send(form.in_order(range(len(form.fields) - 1, -1, -1)))).status == status
    assert (shop.files, shop.under_way) == ({}, [])


@pytest_twisted.ensureDeferred
async def test_while_rights_are_not_known_nothing_is_taken(counter: Open, shop: Shop) -> None:
    class Unknown(Doorkeeper):
        def may(self, *args: Any) -> Access:
            raise RightsUnknown("the file of users cannot be read")

    reply = await counter(shop, rights=Unknown()).send(upload_of(SIX))
    assert (reply.status, reply.json["code"]) == (503, "rights-unknown")
    assert shop.begun == []


# -- where uploads go


@pytest_twisted.ensureDeferred
async def test_an_index_that_takes_none_says_where_uploads_go(counter: Open, shop: Shop) -> None:
    group, pypi = Shelf("dev"), Shelf("pypi")
    group.leaves = ("internal", "pypi")
    site = counter(shop, Shop("other"), Shop("closed", takes_uploads=False), shelves=(group, pypi), default="pypi")
    internal, other = (f"http://proxy.example/index/{name}/legacy/" for name in ("internal", "other"))
    for path, allow, reason in (
        ("/index/dev/", "GET, HEAD", f"the index dev takes no uploads: they go to {internal}"),
        ("/index/dev", "GET, HEAD", f"the index dev takes no uploads: they go to {internal}"),
        ("/index/dev/legacy/", "", f"the index dev takes no uploads: they go to {internal}"),
        ("/", "GET, HEAD", f"the index pypi takes no uploads: they go to {internal} or {other}"),
        ("/legacy/", "", f"the index pypi takes no uploads: they go to {internal} or {other}"),
        ("/index/closed/", "GET, HEAD", f"the index closed takes no uploads: they go to {internal} or {other}"),
        ("/index/internal/simple/", "GET, HEAD", f"/index/internal/simple/ takes no uploads: they go to {internal}"),
        ("/index/", "GET, HEAD", f"/index/ takes no uploads: they go to {internal} or {other}"),
    ):
        reply = await site.send(upload_of(SIX), path)
        assert (reply.status, reply.headers["allow"]) == (405, allow), path
        assert reply.reason == f"Method not allowed: {reason}"
    reply = await site.send(upload_of(SIX), "/index/wrong/")
    assert reply.status == 404
    assert f"they go to {internal} or {other}" in reply.reason
    assert shop.begun == []


@pytest_twisted.ensureDeferred
async def test_the_default_index_is_named_by_its_short_url_and_without_any_the_kind_is(counter: Open, shop: Shop) -> None:
    reply = await counter(shop, shelves=(Shelf("pypi"),), default="internal").send(upload_of(SIX), "/index/pypi/")
    assert reply.reason.endswith("they go to http://proxy.example/legacy/")
    reply = await counter(shelves=(Shelf("pypi"),)).send(upload_of(SIX), "/index/pypi/")
    assert reply.reason.endswith("no index of this proxy takes any (one of the kind hosted does)")
    reply = await counter(shop).send(upload_of(SIX), "/")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert reply.reason.endswith("they go to http://proxy.example/index/internal/legacy/")


@pytest_twisted.ensureDeferred
async def test_each_path_names_the_methods_that_it_answers(counter: Open, shop: Shop) -> None:
    site = counter(shop, shelves=(Shelf("pypi"),))
    for method, path, status, allow in (
        ("PUT", "/index/internal/", 405, "GET, HEAD, POST"),
        ("DELETE", "/index/internal", 405, "GET, HEAD, POST"),
        ("OPTIONS", "/index/internal/legacy/", 405, "POST"),
        ("GET", "/index/internal/legacy/", 405, "POST"),
        ("HEAD", "/index/internal/legacy", 405, "POST"),
        ("PUT", "/index/pypi/", 405, "GET, HEAD"),
        ("PUT", "/index/internal/simple/", 405, "GET, HEAD"),
        ("POST", "/index/internal/simple/", 405, "GET, HEAD"),
        ("GET", "/index/pypi/legacy/", 404, None),
    ):
        reply = await wire.fetch(site.port, path, method)
        assert (reply.status, reply.headers.get("allow")) == (status, allow), (method, path)


@pytest_twisted.ensureDeferred
async def test_an_installer_whose_index_url_lacks_simple_finds_the_project_legacy(counter: Open, shop: Shop) -> None:
    reply = await wire.fetch(counter(shop).port, "/index/internal/legacy/", User_Agent="pip/26.3")
    assert (reply.status, reply.headers["location"]) == (307, "../simple/legacy/")


@pytest_twisted.ensureDeferred
async def test_bodies_of_what_is_no_upload_are_refused_as_ever(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    for method, path in (("POST", "/index/internal/simple/six/"), ("PUT", "/index/internal/"), ("GET", "/index/internal/")):
        client = await wire.connect(site.port)
        client.ask(path, method, Content_Length="1000000000")
        assert (await client.reply()).status == 413
        await client.close()


# -- what is refused


def bad(**values: str) -> Form:
    return upload_of(SIX, **values)


REFUSED: dict[str, tuple[Form, int, str]] = {
    "no action": (bad().without(":action"), 400, "Bad upload: the form's field :action is '': an upload says file_upload"),
    "an action that never was": (bad(_action="remove"), 400, "the form's field :action is 'remove'"),
    "to register": (bad(_action="submit").without("content"), 410, "Gone: :action=submit: projects need not be registered"),
    "to verify": (bad(_action="verify").without("content"), 410, "projects need not be registered"),
    "documentation": (bad(_action="doc_upload"), 410, "this index holds no documentation"),
    "another protocol": (bad(protocol_version="2"), 400, "protocol_version is '2'"),
    "no file": (bad().without("content"), 400, "the form has no file in a field content"),
    "no name": (bad().without("name"), 400, "the form's field name is ''"),
    "no version": (bad().without("version"), 400, "the form's field version is ''"),
    "no such version": (bad(version="1.0 or so"), 400, "which is no version (PEP 440)"),
    "another version": (bad(version="1.1"), 400, f"{SIX.filename} is not named after version 1.1 of six"),
    "another project": (bad(name="seven"), 400, f"{SIX.filename} is not named after version 1.0 of seven"),
    "a path as name": (bad(name="../six"), 400, "which is no name of a project"),
    "a name that looks like it": (bad(name="s\u0456x"), 400, "which is no name of a project"),  # a Cyrillic letter
    "a name that normalises to it": (bad(name="\uff53ix"), 400, "which is no name of a project"),  # full width
    "an overlong name": (bad(name="a" * 247), 400, "which is no name of a project"),
    "a name longer than any": (bad(name="a" * 5000), 413, "the form's field name has more than 1,024 bytes"),
    "two names": (Form((*bad().fields, ("name", None, b"seven"))), 400, "the form has more than one field name"),
    "two files": (Form((*bad().fields, ("content", SIX.filename, b"x"))), 400, "the form has more than one field content"),
    "a file without a name": (bad().with_file(""), 400, "the form's field content has no file name"),
    "a wheel that is called a source archive": (bad(filetype="sdist"), 400, "field filetype is 'sdist'"),
    "an egg": (bad(filetype="bdist_egg").with_file("six-1.0-py3.11.egg"), 400, "neither a wheel (.whl) nor a source archive"),
    "an old archive": (bad(filetype="sdist").with_file("six-1.0.tar.bz2"), 400, "neither a wheel (.whl) nor a source archive"),
    "a wheel without tags": (bad().with_file("six-1.0.whl"), 400, "six-1.0.whl is no name of a wheel (PEP 427)"),
    "a path": (bad().with_file("../six-1.0-py3-none-any.whl"), 400, "is no file name"),
    "a path, quoted": (bad().with_file("..%2Fsix-1.0-py3-none-any.whl"), 400, "is no file name"),
    "an absolute path": (bad().with_file("/etc/six-1.0-py3-none-any.whl"), 400, "is no file name"),
    "a hidden file": (bad().with_file(".six-1.0-py3-none-any.whl"), 400, "is no file name"),
    "a letter that looks like one": (bad().with_file("s\u0456x-1.0-py3-none-any.whl"), 400, "is no file name"),
    "an overlong file name": (bad().with_file(f"six-1.0-py3-none-{'a' * 250}.whl"), 400, "is no file name"),
    "a wrong sha256": (bad(sha256_digest="0" * 64), 400, f"{SIX.filename} has the sha256 {SIX.sha256}"),
    "a wrong md5": (bad(md5_digest="0" * 32), 400, "has the md5"),
    "a wrong blake2": (bad(blake2_256_digest="0" * 64), 400, "has the blake2b_256"),
    "a short digest": (bad(sha256_digest="abcd"), 400, "sha256_digest is 'abcd', which is no digest of 32 bytes"),
    "a digest that is none": (bad(md5_digest="g!" * 16), 400, "which is no digest of 16 bytes"),
    "a wrong specifier": (bad(requires_python="three"), 400, "requires_python is 'three', which is no version specifier"),
    "no attestations": (bad(attestations="{}"), 400, "is no list of attestations (PEP 740)"),
    "deep attestations": (bad(attestations="[" * 100_000), 400, "is no list of attestations (PEP 740)"),
    "attestations without a digest": (bad(attestations="[]").without("sha256_digest"), 400, "and no sha256_digest"),
    "no UTF-8": (Form((("version", None, b"\xff"), *bad().without("version").fields)), 400, "field version is not in UTF-8"),
    "very many fields": (Form((*bad().fields, *([("x", None, b"")] * 5000))), 413, "Content too large: the form of the upload"),
    "very much beside the file": (bad(description="x" * (16 << 20)), 413, "more than 16,777,216 bytes beside the file"),
    "an overlong header": (Form((("x" * 5000, None, b""), *bad().fields)), 413, "Content too large: the form of the upload"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_refused_in_words_and_leaves_nothing(
    counter: Open, shop: Shop, logged: list[LogEvent], name: str
) -> None:
    form, status, words = REFUSED[name]
    reply = await counter(shop).send(form)
    assert reply.status == status, reply
    assert words in reply.reason, reply
    assert re.fullmatch(r"[\x20-\x7e]{1,300}", reply.reason)
    assert (shop.files, shop.under_way) == ({}, [])
    assert [each for each in logged if each["log_level"].name in ("error", "critical")] == []


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("application/x-www-form-urlencoded", b":action=file_upload", "is no form of the type multipart/form-data"),
        ("multipart/form-data", b"--x--", "is no form of the type multipart/form-data"),
        ("multipart/form-data; boundary=\xff", b"--x--", "is no form of the type multipart/form-data"),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x--", "is no form of the type multipart/form-data"),
        ("multipart/mixed; boundary=x", b"--x--", "is no form of the type multipart/form-data"),
        ("multipart/form-data; boundary=x", b"x", "the form of the upload ends early"),
        ("multipart/form-data; boundary=x", b"--x\r\n", "the form of the upload ends early"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: a/b\r\n\r\n", "the form of the upload is malformed"),
        (
            "multipart/form-data; boundary=x",
            b"--x\nContent-Disposition: form-data; name=a\n\n",
            "the form of the upload is malformed",
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "the form's field :action is ''"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_form_is_refused(counter: Open, shop: Shop, content_type: str, body: bytes, words: str) -> None:
    reply = await post(counter(shop).port, "/index/internal/", body, content_type)
    assert reply.status == 400, reply
    assert words in reply.reason
    assert shop.under_way == []


@pytest_twisted.ensureDeferred
async def test_a_request_without_a_body_is_refused(counter: Open, shop: Shop) -> None:
    reply = await wire.fetch(counter(shop).port, "/index/internal/", "POST")
    assert (reply.status, reply.reason) == (400, "Bad upload: the request has no body: an upload is a form with a file")


@pytest_twisted.ensureDeferred
async def test_a_disk_or_an_index_that_becomes_full_is_named(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    shop.room = 100_000
    reply = await site.send(upload_of(SIX))
    assert (reply.status, reply.json["code"]) == (503, "storage-failed")
    assert "No space left on device" in reply.reason
    shop.room, shop.largest = None, 200_000
    chunked = upload_of(SIX)
    client = await wire.connect(site.port)
    client.ask("/index/internal/", "POST", Content_Type=chunked.content_type, Transfer_Encoding="chunked")
    client.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunked.body), chunked.body))
    assert (await client.reply()).reason == "Too much: the index internal may have 200000 bytes"
    await client.close()
    assert (shop.files, shop.under_way) == ({}, [])


# -- attestations


def attestation(sha256: str) -> dict[str, Any]:
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "x", "digest": {"sha256": sha256}}]}
    encoded = base64.b64encode(json.dumps(statement).encode()).decode()
    return {
        "version": 1,
        "verification_material": {"certificate": "MIIC", "transparency_entries": [{"logIndex": "1"}]},
        "envelope": {"statement": encoded, "signature": "MEUC"},
    }


@pytest_twisted.ensureDeferred
async def test_attestations_of_the_file_are_passed_on_as_they_came(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    sent = json.dumps([attestation(SIX.sha256)])
    assert (await site.send(upload_of(SIX, attestations=sent))).status == 200
    assert shop.forms[SIX.filename].attestations == sent
    reply = await site.send(upload_of(SDIST, attestations=sent))
    assert reply.reason == "Bad upload: one of the attestations is for a file with another sha256 than the form states"


# -- clients that leave, stop, or send slowly


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9, 0.9999])
@pytest_twisted.ensureDeferred
async def test_an_upload_that_is_cut_off_leaves_nothing(counter: Open, shop: Shop, part: float) -> None:
    form = upload_of(SIX)
    site = counter(shop)
    client = await wire.connect(site.port)
    client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
    client.transport.write(form.body[: int(len(form.body) * part)])
    await turns(lambda: len(shop.under_way) == 1)
    await client.close()
    await turns(lambda: not shop.under_way)
    assert shop.files == {}
    assert (await site.send(form)).status == 200


@pytest.mark.parametrize(("stated", "status"), [(-1, 400), (-200, 400), (2, 200)])
@pytest_twisted.ensureDeferred
async def test_a_length_that_is_too_small_is_no_whole_form(counter: Open, shop: Shop, stated: int, status: int) -> None:
    form = upload_of(SIX)
    body = form.body.removesuffix(b"\r\n") + b"\r\n" * (stated > 0) + b"x" * stated
    client = await wire.connect(counter(shop).port)
    client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body) - 2 + stated))
    client.transport.write(body)
    assert (await client.reply()).status == status
    await client.close()
    assert (len(shop.files), shop.under_way) == (status == 200, [])


@pytest_twisted.ensureDeferred
async def test_while_the_disk_is_slow_little_is_read_from_the_client(counter: Open, shop: Shop) -> None:
    shop.writing = Deferred()
    large = wheel("six", "1.0", size=8_000_000)
    form = upload_of(large)
    client = await wire.connect(counter(shop).port)
    client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
    client.transport.write(form.body)
    await turns(lambda: len(shop.under_way) == 1)
    assert shop.files == {}
    go, shop.writing = shop.writing, None
    (arriving,) = shop.under_way
    go.callback(None)
    assert (await client.reply()).status == 200
    assert arriving.longest <= 256 * 1024
    assert shop.files == {large.filename: large.data}
    await client.close()


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_whole_is_added_though_its_client_leaves(counter: Open, shop: Shop) -> None:
    shop.adding = Deferred()
    form = upload_of(SIX)
    client = await wire.connect(counter(shop).port)
    client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
    client.transport.write(form.body)
    await turns(lambda: bool(shop.under_way) and shop.under_way[0].size == len(SIX.data))
    await client.close()
    shop.adding.callback(None)
    await turns(lambda: not shop.under_way)
    assert shop.files == {SIX.filename: SIX.data}


@pytest_twisted.ensureDeferred
async def test_of_two_uploads_of_one_name_one_wins(counter: Open, shop: Shop) -> None:
    site = counter(shop)
    forms = [upload_of(wheel("six", "1.0", size=300_000, seed=seed)) for seed in range(8)]
    replies = await gatherResults([Deferred.fromCoroutine(site.send(form)) for form in forms])
    assert sorted(reply.status for reply in replies) == [200, *[400] * 7]
    assert all("File already exists" in reply.reason for reply in replies if reply.status == 400)


@pytest_twisted.ensureDeferred
async def test_200_slow_uploads_leave_room_for_readers(counter: Open, shop: Shop) -> None:
    form = upload_of(SIX)
    site = counter(shop)
    slow = [await wire.connect(site.port) for _ in range(200)]
    for client in slow:
        client.ask("/index/internal/", "POST", Content_Type=form.content_type, Content_Length=str(len(form.body)))
        client.transport.write(form.body[:2000])
    await turns(lambda: len(shop.under_way) == 200)
    for _ in range(20):
        assert (await wire.fetch(site.port, "/index/internal/simple/here/")).status == 200
    assert (await site.send(upload_of(SDIST))).status == 200
    for client in slow:
        client.transport.write(form.body[2000:])
    assert {(await client.reply()).json["outcome"] for client in slow} == {"new", "same"}
    for client in slow:
        await client.close()
    assert shop.under_way == []


class Quiet:
    """A connection to a site without a socket, by a clock that the test moves."""

    def __init__(self, shop: Shop) -> None:
        self.clock = Clock()
        patience = Patience(stall_timeout=60.0, answer_within=12.0, work_within=100.0)
        site = Counter(shop, clock=self.clock, patience=patience).site
        self.transport = StringTransport()
        channel = site.buildProtocol(None)
        channel.makeConnection(self.transport)
        self.send = channel.dataReceived

    def ask(self, form: Form) -> None:
        head = ["POST /index/internal/ HTTP/1.1", "Host: x", f"Content-Type: {form.content_type}"]
        self.send("\r\n".join([*head, f"Content-Length: {len(form.body)}", "", ""]).encode())


def test_an_upload_that_moves_has_all_the_time_and_one_that_stops_is_a_408() -> None:
    shop = Shop()
    client, form = Quiet(shop), upload_of(wheel("six"))
    client.ask(form)
    for start in range(100):
        client.clock.advance(11)
        client.send(form.body[start : start + 1])
    assert client.transport.value() == b""
    client.clock.pump([1.0] * 25)
    assert client.transport.value().startswith(b"HTTP/1.1 408 ")
    assert (shop.files, shop.under_way) == ({}, [])


def test_the_check_of_a_large_file_may_take_longer_than_an_answer_otherwise() -> None:
    shop = Shop(adding=Deferred())
    client, form = Quiet(shop), upload_of(SIX)
    client.ask(form)
    client.send(form.body)
    client.clock.pump([1.0] * 90)
    assert client.transport.value() == b""
    assert shop.adding is not None
    shop.adding.callback(None)
    assert client.transport.value().startswith(b"HTTP/1.1 200 ")
    assert shop.files == {SIX.filename: SIX.data}


@pytest.mark.parametrize("whole", [True, False])
def test_a_disk_that_stands_still_is_a_503_and_what_came_whole_is_added_when_it_moves(whole: bool) -> None:
    shop = Shop(writing=Deferred())
    client, form = Quiet(shop), upload_of(SIX)
    client.ask(form)
    client.send(form.body if whole else form.body[:-1])
    client.clock.pump([1.0] * 99)
    assert client.transport.value() == b""
    client.clock.pump([1.0] * 15)
    assert client.transport.value().startswith(b"HTTP/1.1 503 Overloaded: what was sent is not stored after")
    writing, shop.writing = shop.writing, None
    assert writing is not None
    writing.callback(None)
    assert (list(shop.files), shop.under_way) == ([SIX.filename] if whole else [], [])


def test_boundaries_of_the_test_are_those_of_a_form() -> None:
    assert upload_of(SIX).body.count(BOUNDARY.encode()) == len(upload_of(SIX).fields) + 1
