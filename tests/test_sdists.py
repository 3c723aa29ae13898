"""PKG-INFO out of source archives of every kind, whole, damaged and hostile."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sdists import is_reliable, is_sdist, read_pkg_info
from proxy.core.wheels import SparseFile, Unreadable

PKG_INFO = b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\n"


def file_of(data: bytes) -> SparseFile:
    parts = SparseFile(len(data))
    parts.add(0, data)
    return parts


def tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


MEMBERS = [
    ("demo-1.0/README", b"read me"),
    ("demo-1.0/demo.egg-info/PKG-INFO", b"another"),
    ("demo-1.0/PKG-INFO", PKG_INFO),
    ("demo-1.0/tests/PKG-INFO", b"a third"),
]
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
    "a.tar": lambda data: data,
}


@pytest.mark.parametrize("name", KINDS)
def test_the_pkg_info_of_the_archive_itself_is_found(name: str) -> None:
    assert is_sdist(name)
    assert read_pkg_info(file_of(KINDS[name](tar(*MEMBERS))), name) == PKG_INFO
    assert read_pkg_info(file_of(KINDS[name](tar(("./demo-1.0/PKG-INFO", PKG_INFO)))), name) == PKG_INFO


def test_it_is_found_in_a_zip_archive() -> None:
    assert read_pkg_info(file_of(zipped(*MEMBERS)), "a.zip") == PKG_INFO
    assert not is_sdist("a.whl")


@pytest.mark.parametrize("name", [*KINDS, "a.zip"])
@pytest.mark.parametrize("data", [b"", b"<html>", b"PK\x03\x04", b"\x1f\x8b\x08\x00", bytes(2000)])
def test_what_is_no_archive_is_unreadable(name: str, data: bytes) -> None:
    with pytest.raises(Unreadable):
        read_pkg_info(file_of(data), name)


def test_archives_without_it_cut_off_or_too_large_are_unreadable() -> None:
    with pytest.raises(Unreadable, match="no PKG-INFO"):
        read_pkg_info(file_of(gzip.compress(tar(("demo-1.0/README", b"")))), "a.tar.gz")
    with pytest.raises(Unreadable, match="no PKG-INFO"):
        read_pkg_info(file_of(zipped(("README", b""))), "a.zip")
    with pytest.raises(Unreadable):
        read_pkg_info(file_of(gzip.compress(tar(*MEMBERS))[:-200]), "a.tar.gz")
    large = ("a/PKG-INFO", bytes(2**24 + 1))
    for archive, name in ((gzip.compress(tar(large)), "a.tar.gz"), (zipped(large), "a.zip")):
        with pytest.raises(Unreadable, match="16,777,217 bytes"):
            read_pkg_info(file_of(archive), name)


def test_little_that_unpacks_to_very_much_is_given_up() -> None:
    bomb = gzip.compress(tar(("demo-1.0/zeros", bytes(2**28)), *MEMBERS), 1)
    with pytest.raises(Unreadable, match="unpacks to more"):
        read_pkg_info(file_of(bomb), "a.tar.gz")


@given(st.binary(max_size=600), st.sampled_from([*KINDS, "a.zip"]))
def test_any_bytes_are_read_or_unreadable(data: bytes, name: str) -> None:
    with suppress(Unreadable):
        read_pkg_info(file_of(data), name)


@pytest.mark.parametrize(
    ("text", "reliable"),
    [
        ("Metadata-Version: 2.2\nName: a\n", True),
        ("Metadata-Version: 2.4\nName: a\n", True),
        ("Metadata-Version: 2.1\nName: a\n", False),
        ("Metadata-Version: 2.2\nName: a\nDynamic: Requires-Dist\n", False),
        ("Metadata-Version: two\n", False),
        ("Name: a\n", False),
        ("", False),
    ],
)
def test_only_what_leaves_nothing_to_the_build_is_reliable(text: str, reliable: bool) -> None:
    assert is_reliable(text.encode()) is reliable
