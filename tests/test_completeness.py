"""What can be told of a file that no digest vouches for."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.completeness import Incomplete, check, is_metadata_of, named_by
from proxy.core.wheels import SparseFile
from tests.support.wheels import data_of, sdist, wheel

SIGN_IN = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Your session has ended.</body></html>\n" * 40


def tar(size: int = 30_000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (("big-1.0/PKG-INFO", b"Name: big\n"), ("big-1.0/noise", data_of(size))):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(*names: str, stored: bytes = b"print()\n" * 500) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, stored)
    return out.getvalue()


WHOLE: dict[str, bytes] = {
    "big-1.0-py3-none-any.whl": wheel("big", size=20_000).data,
    "big-1.0.zip": zipped("big-1.0/setup.py", "big-1.0/PKG-INFO"),
    "big-1.0-py2.7.egg": b"#!/bin/sh\nexec python $0\n" + zipped("EGG-INFO/PKG-INFO", "big.py"),
    "big-1.0.tar.gz": sdist("big").data,
    "big-1.0.tgz": gzip.compress(tar()),
    "big-1.0.tar.bz2": bz2.compress(tar()),
    "big-1.0.tar.xz": lzma.compress(tar()),
    "big-1.0.tar": tar(),
    "BIG-1.0.ZIP": zipped("big-1.0/setup.py"),
}


def file_of(data: bytes) -> SparseFile:
    file = SparseFile(len(data))
    file.add(0, data)
    return file


def verdict(filename: str, data: bytes) -> str | None:
    """Why *data* is not the whole of *filename*, ``None`` if it can be."""
    try:
        check(filename, file_of(data))
    except Incomplete as incomplete:
        return str(incomplete)
    return None


@pytest.mark.parametrize("filename", WHOLE)
def test_a_whole_archive_of_each_kind_passes(filename: str) -> None:
    assert check(filename, file_of(WHOLE[filename])) is True


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True))
def test_an_archive_that_ends_anywhere_early_is_refused(filename: str, share: float) -> None:
    whole = WHOLE[filename].rstrip(b"\0") if filename.endswith(".tar") else WHOLE[filename]
    assert verdict(filename, whole[: int(share * len(whole))]) is not None


@given(st.sampled_from(sorted(WHOLE)), st.binary(min_size=0, max_size=3000))
def test_other_bytes_are_refused_whatever_they_are(filename: str, data: bytes) -> None:
    assert verdict(filename, data) is not None


@pytest.mark.parametrize(
    "filename", [*WHOLE, "big-1.0.exe", "big-1.0.msi", "big-1.0.rpm", "big-1.0.tar.Z", "big-1.0.dmg", "big"]
)
@pytest.mark.parametrize("body", [b"", SIGN_IN, b"  \n<html lang=en>", b"\xef\xbb\xbf<HTML>"])
def test_nothing_and_a_sign_in_page_are_no_file_of_any_kind(filename: str, body: bytes) -> None:
    assert verdict(filename, body) is not None


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("big-1.0.win32.exe", b"MZ" + data_of(100)),
        ("big-1.0.tar.Z", b"\x1f\x9d" + data_of(100)),
        ("big-1.0.dmg", data_of(100)),
        ("big-1.0", b"anything"),
        ("big-1.0.tar.gz.asc", b"-----BEGIN PGP SIGNATURE-----"),
    ],
)
def test_of_other_kinds_only_what_can_be_no_file_is_refused(filename: str, data: bytes) -> None:
    assert check(filename, file_of(data)) is False


def test_a_zip_archive_that_ends_right_after_another_one_inside_it_is_refused() -> None:
    """The directory of the inner one is then where that of the outer one would be."""
    inner = zipped("a.py")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("first.py", b"print()\n")
        archive.writestr("inner.zip", inner)
        archive.writestr("last.py", b"print()\n")
    whole = out.getvalue()
    assert verdict("big-1.0.zip", whole) is None
    assert verdict("big-1.0.zip", whole[: whole.index(inner) + len(inner)]) is not None


@given(st.integers(0, 19_999), st.integers(1, 255))
def test_a_wrong_byte_in_a_member_of_a_wheel_is_seen(position: int, mask: int) -> None:
    name = "big-1.0-py3-none-any.whl"
    data = bytearray(WHOLE[name])
    at = data.index(data_of(20_000)[:20]) + position
    data[at] ^= mask
    assert verdict(name, bytes(data)) is not None


def test_what_is_after_a_gzip_stream_is_ignored_as_gzip_does() -> None:
    assert verdict("big-1.0.tar.gz", WHOLE["big-1.0.tar.gz"] + bytes(512)) is None
    assert verdict("big-1.0.tar.gz", WHOLE["big-1.0.tar.gz"] + b"trailing") is None


def test_an_archive_under_the_name_of_another_kind_is_refused() -> None:
    assert verdict("big-1.0.tar.gz", tar()) is not None
    assert verdict("big-1.0.tar.gz", gzip.compress(SIGN_IN)) is not None
    assert verdict("big-1.0-py3-none-any.whl", WHOLE["big-1.0.tar.gz"]) is not None


def test_a_zip_archive_whose_members_cannot_be_read_here_is_held_against_its_directory_alone() -> None:
    data = bytearray(zipped("big-1.0/setup.py"))
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    for at in (local + 8, central + 10):
        data[at : at + 2] = (97).to_bytes(2, "little")  # WavPack
    assert verdict("big-1.0.zip", bytes(data)) is None


METADATA = b"Metadata-Version: 2.1\nName: Big.Thing\nVersion: 1.0\nSummary: x\n  y\n\nText: no field\n"


@pytest.mark.parametrize(
    "variant",
    [
        lambda data: data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"Name:", b"NAME :"),
        lambda data: data + b"\xff\xfe",
        lambda data: data.partition(b"\n\n")[0],
    ],
)
def test_metadata_names_its_project(variant: Callable[[bytes], bytes]) -> None:
    assert named_by(variant(METADATA)) == "big-thing"
    assert is_metadata_of("big_thing", variant(METADATA))
    assert not is_metadata_of("other", variant(METADATA))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        SIGN_IN,
        b'{"Metadata-Version": "2.1", "Name": "big"}',
        b"Name: big\nVersion: 1.0\n",
        b"Metadata-Version: 2.1\nVersion: 1.0\n\nName: big\n",
        b"Metadata-Version: 2.1\nName:\n",
        b"\nMetadata-Version: 2.1\nName: big\n",
        b"<Error><Code>AccessDenied</Code></Error>",
        b"PK\x03\x04 Metadata-Version: 2.1",
    ],
)
def test_what_is_no_metadata_names_nothing(data: bytes) -> None:
    assert named_by(data) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_read_as_metadata_without_an_error(data: bytes) -> None:
    named_by(data)
