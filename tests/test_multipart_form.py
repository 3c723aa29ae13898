"""The form of an upload: what is in it arrives whatever its order and however it is cut up, and nothing else does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.upload_forms import CONTENT, KEPT
from proxy.errors import BadUpload, ContentTooLarge
from proxy.web.multipart_form import MOST_BESIDE, MultipartForm
from tests.support.any_form import CONTENT_TYPE, check, outcome, pieces, read
from tests.support.forms import BOUNDARY, Form, distutils_body, upload_of
from tests.support.process import ROOT
from tests.support.wheels import sdist, wheel

SIX = wheel("six", "1.0")
#: Bytes that look like the end of something.
PARTS = (b"\r\n", b"--", b"\r", b"\n", BOUNDARY.encode(), b"\r\n--" + BOUNDARY[:-1].encode(), b"a", b"\x00", b"\xff", b"=")
values = st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join).filter(lambda value: BOUNDARY.encode() not in value)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"%\\'), max_size=10).filter(
    lambda name: name != CONTENT and name not in KEPT
)
others = st.lists(st.tuples(names, st.none() | st.just("a.txt"), values), max_size=6)
cuts = st.lists(st.integers(0, 2000), max_size=12)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """*body*, cut at those of *places* that are in it."""
    edges = sorted({0, len(body), *(place for place in places if place < len(body))})
    return [body[start:stop] for start, stop in pairwise(edges)]


@given(values, others, st.randoms(use_true_random=False), cuts)
def test_fields_in_any_order_and_the_bytes_of_the_file_arrive(
    content: bytes, besides: list[tuple[str, str | None, bytes]], chance: Random, places: list[int]
) -> None:
    sent = upload_of(SIX).with_file(data=content)
    sent = Form((*sent.fields, *besides))
    order = list(range(len(sent.fields)))
    chance.shuffle(order)
    form, found = read(cut(sent.in_order(order).body, places))
    assert found == content
    assert form.filename == SIX.filename
    assert form.fields == {name: value.decode() for name, _, value in upload_of(SIX).fields if name in KEPT}


@pytest.mark.parametrize("body", [upload_of(SIX).body, distutils_body(sdist("six"))[1]], ids=["requests", "distutils"])
def test_a_form_may_be_cut_at_every_byte(body: bytes) -> None:
    boundary = body.lstrip(b"\r\n").partition(b"\r\n")[0].removeprefix(b"--").decode()
    content_type = f"multipart/form-data; boundary={boundary}"
    whole = read([body], content_type)
    for place in range(1, len(body)):
        form, content = read([body[:place], body[place:]], content_type)
        assert (form.fields, form.filename, content) == (whole[0].fields, whole[0].filename, whole[1])
    form, content = read(pieces(body, 1), content_type)
    assert (form.fields, form.filename, content) == (whole[0].fields, whole[0].filename, whole[1])


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_a_form_that_ends_early_is_never_taken(length: int, step: int) -> None:
    body = upload_of(SIX).body.removesuffix(b"--\r\n")
    with pytest.raises(BadUpload):
        read(pieces(body[:length], step))


@given(
    st.binary(max_size=1).filter(bool),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 40), values | st.binary(max_size=8)), max_size=4),
)
@example(b"\x00", [(0, 0, b"xx")])
@example(b"\x05", [(40, 1, b"a\nb")])
def test_a_form_that_was_changed_is_read_alike_however_it_is_cut_up(step: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    body = upload_of(SIX, md5_digest="", blake2_256_digest="").body
    for place, length, new in changes:
        body = body[:place] + new + body[place + length :]
    check(step + body)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_form_are_refused(data: bytes) -> None:
    check(data)
    assert outcome([data] if data else []) is None


def test_of_fields_that_do_not_count_nothing_is_held() -> None:
    form = MultipartForm(CONTENT_TYPE, KEPT, CONTENT)
    form.take(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="description"\r\n\r\n'.encode())
    block = b"x" * 65_536
    for _ in range(MOST_BESIDE // len(block) - 1):
        assert form.take(block) == b""
    with pytest.raises(ContentTooLarge, match="beside the file"):
        form.take(block)
    assert form.fields == {}


def test_what_follows_the_form_is_read_over_and_bounded() -> None:
    form = MultipartForm(CONTENT_TYPE, KEPT, CONTENT)
    content = form.take(upload_of(SIX).body) + form.take(b"\r\n\r\nepilogue")
    form.end()
    assert content == SIX.data
    form = MultipartForm(CONTENT_TYPE, KEPT, CONTENT)
    form.take(upload_of(SIX).body)
    with pytest.raises(ContentTooLarge):
        form.take(b"x" * MOST_BESIDE)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed (it is not for every Python): pip install '.[fuzz]'",
)
def test_atheris_finds_no_form_that_is_read_in_two_ways(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, body in enumerate((upload_of(SIX).body, upload_of(SIX, attestations="[]", requires_python=">=3").body)):
        (seeds / str(number)).write_bytes(b"\x10" + body)
    command = [
        sys.executable,
        "-m",
        "tests.support.fuzz_forms",
        "-runs=3000",
        "-max_len=6000",
        f"-artifact_prefix={tmp_path}/",
        str(seeds),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Done 3000 runs" in ended.stderr
