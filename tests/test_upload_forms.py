"""What the form of an upload states: names that agree, digests in either spelling, and nothing that is not parsed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.upload_forms import check_filename, upload_form
from proxy.errors import BadUpload
from proxy.names import normalize

SIX = {":action": "file_upload", "name": "six", "version": "1.0"}
WHEEL = "six-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [
        (WHEEL, "six", "1.0"),
        (WHEEL, "Six", "1"),
        ("six-1.0-1-py2.py3-none-any.whl", "six", "1.0.0"),
        ("acme_app-1.0+cpu.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "acme.app", "1.0+cpu.1"),
        ("Acme.App-1.0-py3-none-any.whl", "acme-app", "1.0"),
        ("acme_app-1.0.tar.gz", "acme-app", "1.0"),
        ("acme-app-1.0.tar.gz", "acme.app", "1.0"),
        ("acme-app-1.0.zip", "acme_app", "1.0"),
        ("acme-2-1.0.tar.gz", "acme-2", "1.0"),
        ("acme-1.0-beta.tar.gz", "acme", "1.0b0"),
        ("acme-1.0-1.tar.gz", "acme", "1.0.post1"),
    ],
)
def test_a_file_is_named_after_its_release_in_any_spelling(filename: str, name: str, version: str) -> None:
    form = upload_form({**SIX, "name": name, "version": version}, filename)
    assert (form.filename, form.project, form.name, form.version) == (filename, normalize(name), name, version)


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [
        ("acme-2-1.0.tar.gz", "acme", "1.0"),
        ("acme-1.0.tar.gz", "acme-1.0", "1.0"),
        ("acme-1.0-1.tar.gz", "acme", "1.0"),
        ("acme.tar.gz", "acme", "1.0"),
        ("1.0.tar.gz", "acme", "1.0"),
        ("six-1.0-py3-none-any.whl", "six-1.0", "3"),
        ("six-1.0-x-py3-none-any.whl", "six", "1.0"),
        ("six__x-1.0-py3-none-any.whl", "six-x", "1.0"),
        ("six-1.0-py3-none-any.whl", "six", "1.0+local"),
    ],
)
def test_a_file_of_another_release_is_refused(filename: str, name: str, version: str) -> None:
    with pytest.raises(BadUpload):
        upload_form({**SIX, "name": name, "version": version}, filename)


@given(st.binary(min_size=32, max_size=32), st.booleans(), st.booleans(), st.booleans())
def test_digests_are_in_hex_or_in_base64(digest: bytes, upper: bool, in_base64: bool, padded: bool) -> None:
    def written(value: bytes) -> str:
        if in_base64:
            text = base64.urlsafe_b64encode(value).decode()
            return text if padded else text.rstrip("=")
        return value.hex().upper() if upper else value.hex()

    fields = {"sha256_digest": written(digest), "md5_digest": written(digest[:16]), "blake2_256_digest": written(digest)}
    form = upload_form({**SIX, **fields}, WHEEL)
    assert form.digests == {"sha256": digest.hex(), "md5": digest[:16].hex(), "blake2b_256": digest.hex()}


def test_digests_may_be_missing_and_the_long_one_of_distutils_is_left_out() -> None:
    assert upload_form({**SIX, "md5_digest": "", "blake2_256_digest": "a" * 128}, WHEEL).digests == {}


@given(st.text(max_size=300) | st.text("asdf.-_/\\~+! \x00\u0131\uff0e", max_size=30).map(lambda text: f"{text}.whl"))
def test_what_is_taken_as_a_file_name_is_one_segment_of_plain_ascii(name: str) -> None:
    try:
        check_filename(name)
    except BadUpload as error:
        assert len(str(error)) < 600  # noqa: PT017  # most names are refused
    else:
        assert name.isascii()
        assert not set(name) & set("/\\\x00 %")
        assert not name.startswith((".", "-", "~"))
        assert 0 < len(name) <= 255


@given(
    st.dictionaries(st.sampled_from(sorted({*SIX, "requires_python", "filetype", "attestations", "sha256_digest"})), st.text())
)
def test_whatever_fields_say_they_are_parsed_or_refused(fields: dict[str, str]) -> None:
    try:
        form = upload_form({**SIX, **fields}, WHEEL)
    except BadUpload:
        return
    assert form.project == "six"
    assert form.requires_python is None or form.requires_python.isprintable()


@pytest.mark.parametrize("text", ["", "UNKNOWN"])
def test_an_unknown_requirement_is_none(text: str) -> None:
    assert upload_form({**SIX, "requires_python": text}, WHEEL).requires_python is None


@pytest.mark.parametrize("text", [">=3\n", "\x00", ">=3\r\nX: y", "three", ">=3,,<", "\u2265 3"])
def test_a_requirement_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadUpload, match="which is no version specifier"):
        upload_form({**SIX, "requires_python": text}, WHEEL)
