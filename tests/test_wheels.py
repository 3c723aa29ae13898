"""METADATA out of wheels of which only parts are there."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.wheels import Absent, SparseFile, Unreadable, read_metadata
from tests.support.wheels import wheel

NAME = "big-1.0-py3-none-any.whl"


def whole(data: bytes) -> SparseFile:
    parts = SparseFile(len(data))
    parts.add(0, data)
    return parts


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return out.getvalue()


def read_or_gap(parts: SparseFile, filename: str) -> bytes | Absent:
    try:
        return read_metadata(parts, filename)
    except Absent as absent:
        return absent


@given(step=st.integers(50, 5000), tail=st.integers(0, 3000), size=st.integers(0, 20_000), members=st.integers(0, 60))
def test_asking_for_what_is_absent_finds_the_metadata_whatever_comes_at_a_time(
    step: int, tail: int, size: int, members: int
) -> None:
    made = wheel("big", size=size, files={f"big/{number}.py": b"pass" for number in range(members)})
    parts = SparseFile(len(made.data))
    parts.add(len(made.data) - min(tail, len(made.data)), made.data[len(made.data) - min(tail, len(made.data)) :])
    gap = read_or_gap(parts, made.filename)
    while isinstance(gap, Absent):
        assert 0 <= gap.start < gap.stop <= len(made.data)
        parts.add(gap.start, made.data[gap.start : gap.start + step])
        gap = read_or_gap(parts, made.filename)
    assert gap == made.metadata


def test_a_wheel_with_its_metadata_near_the_end_needs_little_of_a_large_one() -> None:
    made = wheel("big", size=3_000_000)
    parts = SparseFile(len(made.data))
    start = len(made.data) - 32_768
    parts.add(start, made.data[start:])
    assert read_metadata(parts, made.filename) == made.metadata


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cannot be unpacked"),
        (b"PK no archive", "cannot be unpacked"),
        (archive({"big.py": b""}), "no .dist-info/METADATA"),
        (archive({"deep/big-1.0.dist-info/METADATA": b"x"}), "no .dist-info/METADATA"),
        (archive({"a-1.dist-info/METADATA": b"x", "b-1.dist-info/METADATA": b"x"}), "no .dist-info/METADATA"),
        (archive({"big-1.0.dist-info/METADATA": bytes(17 << 20)}), "its METADATA has 17,825,792 bytes"),
    ],
    ids=["empty", "no archive", "no metadata", "not at the top", "of others", "a bomb"],
)
def test_what_cannot_be_read_says_why(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read_metadata(whole(data), NAME)


def test_of_several_projects_in_one_wheel_the_files_own_counts() -> None:
    data = archive({"vendored-2.dist-info/METADATA": b"no", "Big-1.0.dist-info/METADATA": b"yes"})
    assert read_metadata(whole(data), NAME) == b"yes"


@given(st.integers(0, 2000), st.integers(1, 255))
def test_damage_is_unreadable_or_harmless_and_never_another_error(position: int, flip: int) -> None:
    made = bytearray(wheel("big", size=500).data)
    made[position % len(made)] ^= flip
    with contextlib.suppress(Unreadable):
        read_metadata(whole(bytes(made)), NAME)


@pytest.mark.parametrize(
    "compression",
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
    ids=["stored", "deflated", "bzip2", "lzma"],
)
def test_damage_anywhere_is_unreadable_or_harmless_whatever_the_wheel_is_packed_with(compression: int) -> None:
    sound = archive({"big-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: big\nVersion: 1.0\n" * 3}, compression)
    for position in range(len(sound)):
        for flip in (1, 4, 255):
            made = bytearray(sound)
            made[position] ^= flip
            with contextlib.suppress(Unreadable):
                read_metadata(whole(bytes(made)), NAME)


def test_a_directory_that_claims_to_be_huge_is_not_fetched() -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 100_000_000, 0, 0)
    parts = SparseFile(100_000_000 + len(end))
    parts.add(99_000_000, bytes(1_000_000) + end)
    with pytest.raises(Unreadable, match="100,000,000 bytes of it are needed at once"):
        read_metadata(parts, NAME)
