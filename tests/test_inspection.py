"""What is taken into a hosted index: wheels and source archives of every honest kind, and nothing that is not what it says."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadUpload
from proxy.hosted.inspection import Inspected, distribution_name, inspect
from proxy.hosted.members import STANDARD_LIMITS, ArchiveLimits
from tests.support.wheels import sdist, wheel

DEMO = wheel("demo", "1.0", requires=["six>=1"], requires_python=">=3.8")
SOURCE = sdist("demo", "1.0", requires_python=">=3.8")
INFO = "demo-1.0.dist-info"
METADATA = b"Metadata-Version: 2.1\nName: Demo\nVersion: 1.0\n"
WHEEL = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
TIGHT = ArchiveLimits(entries=20, unpacked=300_000, names=2_000, ratio=50, harmless=100_000)


def inspected(data: bytes, filename: str, limits: ArchiveLimits = STANDARD_LIMITS) -> Inspected:
    descriptor = os.memfd_create("it")
    try:
        os.write(descriptor, data)
        return inspect(descriptor, len(data), filename, limits)
    finally:
        os.close(descriptor)


def members(**changes: bytes | None) -> dict[str, bytes]:
    """The members of a wheel, with *changes* (``None``: without it); its RECORD is right unless it is changed."""
    found = {"demo.py": b"x = 1\n", f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL}
    found |= {name: data for name, data in changes.items() if data is not None}
    found = {name: data for name, data in found.items() if changes.get(name, b"") is not None}
    record = f"{INFO}/RECORD"
    if changes.get(record, b"") is not None:
        found.setdefault(record, "".join(f'"{name}",,\n' for name in (*found, record) if not name.endswith("/")).encode())
    return found


def packed(content: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def tarred(*entries: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for each in entries:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
            else:
                entry = tarfile.TarInfo(each[0])
                entry.size = len(each[1])
                archive.addfile(entry, io.BytesIO(each[1]))
    return gzip.compress(out.getvalue(), mtime=0)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


PKG_INFO = ("demo-1.0/PKG-INFO", METADATA)


class Unseekable(io.RawIOBase):
    """What is written to a pipe."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]  # a buffer
        self.data += piece
        return len(piece)


def streamed() -> bytes:
    """A wheel whose writer could not go back: sizes stand after the data."""
    out = Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members().items():
            archive.writestr(name, data)
    return bytes(out.data)


def large() -> bytes:
    """A wheel with the fields that large archives have."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members().items():
            with archive.open(name, "w", force_zip64=True) as entry:
                entry.write(data)
    return out.getvalue()


# -- what is taken ------------------------------------------------------------------------------------------------------------


def test_a_wheel_is_taken_with_what_it_says_of_itself() -> None:
    found = inspected(DEMO.data, DEMO.filename)
    assert found == Inspected(DEMO.filename, "demo", "demo", "1.0", True, ">=3.8", DEMO.metadata)


def test_a_source_archive_is_taken_with_what_it_says_of_itself() -> None:
    found = inspected(SOURCE.data, SOURCE.filename)
    assert found == Inspected(SOURCE.filename, "demo", "demo", "1.0", False, ">=3.8", SOURCE.metadata)


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("demo-1.0-py3-none-any.whl", packed(members())),
        ("demo-1.0-py3-none-any.whl", packed(members(), zipfile.ZIP_STORED)),
        ("demo-1.0-py3-none-any.whl", packed(members(**{"pkg/": b"", "größe.py": b""}))),
        ("demo-1.0-1-py3-none-any.whl", streamed()),
        ("Demo-1.0-py3-none-any.whl", large()),
        ("demo-1.0.zip", packed({"demo-1.0/PKG-INFO": METADATA, "demo-1.0/setup.py": b"", "demo-1.0/": b""})),
        ("demo-1.0.tar.gz", tarred(PKG_INFO, ("demo-1.0/a/" + "long/" * 60 + "name", b"x"), form=tarfile.GNU_FORMAT)),
        ("demo-1.0.tar.gz", tarred(PKG_INFO, ("demo-1.0/" + "long/" * 60 + "größe", b"x" * 3_000))),
        ("demo-1.0.tar.gz", tarred(special("./demo-1.0", tarfile.DIRTYPE), ("./demo-1.0/PKG-INFO", METADATA))),
        (
            "demo-1.0.tar.gz",
            tarred(
                PKG_INFO,
                special("demo-1.0/a/b", tarfile.SYMTYPE, "../PKG-INFO"),
                special("demo-1.0/c", tarfile.LNKTYPE, "demo-1.0/PKG-INFO"),
            ),
        ),
        ("demo-1.0.tar.gz", (whole := tarred(PKG_INFO)) + bytes(700)),
        ("demo-1.0.tar.gz", gzip.compress(gzip.decompress(whole)[:700]) + gzip.compress(gzip.decompress(whole)[700:])),
    ],
)
def test_honest_archives_of_every_writer_are_taken(filename: str, data: bytes) -> None:
    assert inspected(data, filename).metadata == METADATA


@pytest.mark.parametrize("version", ["1.0", "1.0.0", "1.0+local.1", "1!2.0rc1", "2024.1.post2.dev3"])
@pytest.mark.parametrize("spelling", ["my-demo", "My.Demo", "MY_demo"])
def test_names_and_versions_may_be_spelt_in_any_way_that_means_the_same(spelling: str, version: str) -> None:
    folder = f"my_demo-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {spelling}\nVersion: {version}\n".encode()
    content = {f"{folder}/METADATA": metadata, f"{folder}/WHEEL": WHEEL}
    content[f"{folder}/RECORD"] = "".join(f"{name},,\n" for name in content).encode()
    found = inspected(packed(content), f"my_demo-{version}-py3-none-any.whl")
    assert (found.project, found.name) == ("my-demo", spelling)


# -- what is refused ----------------------------------------------------------------------------------------------------------


def linked_wheel() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members(link=b"/etc/passwd").items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, (0o120777 if name == "link" else 0o100644) << 16
            archive.writestr(entry, data)
    return out.getvalue()


def doubled_wheel() -> bytes:
    return packed(members(**{"evil.py": b"evil"})).replace(b"evil.py", b"demo.py")


def commented_wheel(comment: bytes) -> bytes:
    out = io.BytesIO(packed(members()))
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = comment
    return out.getvalue()


def with_gap() -> bytes:
    """A wheel with bytes between its last entry and its directory."""
    data = packed(members())
    at = data.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<L", data, at + 16)
    moved = struct.pack("<L", offset + 5)
    return data[:offset] + b"extra" + data[offset : at + 16] + moved + data[at + 20 :]


def replaced(old: bytes, new: bytes, count: int = -1) -> bytes:
    data = packed(members())
    assert old in data
    return data.replace(old, new, count)


WHEELS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing": ("it is empty", lambda: b""),
    "a page": ("no end mark", lambda: b"<html>sign in</html>" * 9),
    "half": ("no end mark", lambda: DEMO.data[: len(DEMO.data) // 2]),
    "appended": ("bytes after its end", lambda: DEMO.data + b"x"),
    "prepended": ("directory", lambda: b"#!/bin/sh\n" + DEMO.data),
    "twice": ("directory", lambda: DEMO.data + packed(members())),
    "with an end in its comment": ("directory is not where", lambda: commented_wheel(b"PK\x05\x06" + bytes(18))),
    "with bytes of no entry": ("belong to no entry", with_gap),
    "with another name in a header": ("contradicts", lambda: replaced(b"demo.py", b"evil.py", 1)),
    "damaged": ("damaged", lambda: DEMO.data.replace(b"version = ", b"version : ", 1)),
    "with a name twice": ("two entries", doubled_wheel),
    "with a link": ("link or a device", linked_wheel),
    "bzip2": ("packed in a way", lambda: packed(members(), zipfile.ZIP_BZIP2)),
    "climbing": ("no path inside", lambda: packed(members(**{"../evil.py": b""}))),
    "absolute": ("no path inside", lambda: packed(members(**{"/evil.py": b""}))),
    "of another system": ("no path inside", lambda: packed(members(**{"a\\evil.py": b""}))),
    "on a drive": ("no path inside", lambda: packed(members(**{"C:evil.py": b""}))),
    "with a dot": ("no path inside", lambda: packed(members(**{"a/./b": b""}))),
    "without dist-info": ("no .dist-info folder", lambda: packed({"demo.py": b""})),
    "with two dist-infos": ("more than one .dist-info", lambda: packed(members(**{"other-1.0.dist-info/METADATA": METADATA}))),
    "of another project": ("is not that of demo 1.0", lambda: replaced(b"demo-1.0.dist", b"demi-1.0.dist")),
    "of another version": ("is not that of demo 1.0", lambda: replaced(b"demo-1.0.dist", b"demo-1.1.dist")),
    "without METADATA": (f"no {INFO}/METADATA", lambda: packed(members(**{f"{INFO}/METADATA": None}))),
    "without WHEEL": (f"no {INFO}/WHEEL", lambda: packed(members(**{f"{INFO}/WHEEL": None}))),
    "without RECORD": (f"no {INFO}/RECORD", lambda: packed(members(**{f"{INFO}/RECORD": None}))),
    "with a file that RECORD lacks": ("RECORD does not list", lambda: packed(members(**{f"{INFO}/RECORD": b"demo.py,,\n"}))),
    "with a RECORD of more": ("which is not in it", lambda: packed(members(**{f"{INFO}/RECORD": b"other.py,,\n"}))),
    "of a wheel to come": ("wheel version 2.0", lambda: packed(members(**{f"{INFO}/WHEEL": b"Wheel-Version: 2.0\n"}))),
    "of no wheel version": ("no Wheel-Version", lambda: packed(members(**{f"{INFO}/WHEEL": b"Root: 1\n"}))),
}


@pytest.mark.parametrize("case", WHEELS)
def test_a_wheel_is_refused_that_is(case: str) -> None:
    why, make = WHEELS[case]
    with pytest.raises(BadUpload, match=why) as refusal:
        inspected(make(), "demo-1.0-py3-none-any.whl")
    assert str(refusal.value).startswith("demo-1.0-py3-none-any.whl is refused: ")


SOURCES: dict[str, tuple[str, bytes]] = {
    "a page": ("no whole gzip", b"<html>sign in</html>"),
    "half": ("cut off", SOURCE.data[: len(SOURCE.data) // 2]),
    "appended": ("after its end", SOURCE.data + b"x"),
    "appended inside": ("after its end", gzip.compress(gzip.decompress(SOURCE.data) + b"x" * 512)),
    "without PKG-INFO": ("no demo-1.0/PKG-INFO", tarred(("demo-1.0/setup.py", b""))),
    "with PKG-INFO elsewhere": ("no demo-1.0/PKG-INFO", tarred(("demo-1.0/a/PKG-INFO", METADATA))),
    "with two PKG-INFO": ("two PKG-INFO", tarred(PKG_INFO, PKG_INFO)),
    "with two folders": ("more than one top folder", tarred(PKG_INFO, ("demo-2.0/setup.py", b""))),
    "with a file beside": ("more than one top folder", tarred(PKG_INFO, ("setup.py", b""))),
    "climbing": ("no path inside", tarred(PKG_INFO, ("demo-1.0/../../evil", b""))),
    "absolute": ("no path inside", tarred(PKG_INFO, ("/etc/passwd", b""))),
    "with a link out": ("leads out", tarred(PKG_INFO, special("demo-1.0/a", tarfile.SYMTYPE, "../../etc/passwd"))),
    "with an absolute link": ("leads out", tarred(PKG_INFO, special("demo-1.0/a", tarfile.SYMTYPE, "/etc/passwd"))),
    "with a hard link out": ("leads out", tarred(PKG_INFO, special("demo-1.0/a", tarfile.LNKTYPE, "../etc/passwd"))),
    "with a link over a link": (
        "leads out",
        tarred(
            PKG_INFO, special("demo-1.0/a/b", tarfile.SYMTYPE, "../c"), special("demo-1.0/d", tarfile.SYMTYPE, "a/b/../../x")
        ),
    ),
    "with a file below a link": (
        "below a link",
        tarred(PKG_INFO, special("demo-1.0/a", tarfile.SYMTYPE, "b"), ("demo-1.0/a/evil", b"")),
    ),
    "with a device": ("is a device", tarred(PKG_INFO, special("demo-1.0/a", tarfile.CHRTYPE))),
    "with a pipe": ("is a device", tarred(PKG_INFO, special("demo-1.0/a", tarfile.FIFOTYPE))),
    "empty": ("empty", gzip.compress(bytes(10_240))),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_archive_is_refused_that_is(case: str) -> None:
    why, data = SOURCES[case]
    with pytest.raises(BadUpload, match=why):
        inspected(data, "demo-1.0.tar.gz")


@pytest.mark.parametrize(
    ("why", "content"),
    [
        ("more than one top folder", {"demo-1.0/PKG-INFO": METADATA, "other/PKG-INFO": METADATA}),
        ("no demo-1.0/PKG-INFO", {"demo-1.0/setup.py": b""}),
        ("more than one top folder", {"demo-1.0/PKG-INFO": METADATA, "setup.py": b""}),
    ],
)
def test_a_zipped_source_archive_is_refused(why: str, content: Mapping[str, bytes]) -> None:
    with pytest.raises(BadUpload, match=why):
        inspected(packed(content), "demo-1.0.zip")


@pytest.mark.parametrize(
    ("why", "metadata"),
    [
        ("of version None", b""),
        ("of version 3.0", METADATA.replace(b"2.1", b"3.0")),
        ("name the project Demi", METADATA.replace(b"Demo", b"Demi")),
        ("name the project None", METADATA.replace(b"Name", b"Title")),
        ("state the version 2.0", METADATA.replace(b"1.0", b"2.0")),
        ("state name more than once", METADATA + b"Name: other\n"),
        ("Requires-Python", METADATA + b"Requires-Python: 3 or so\n"),
        ("its requirement", METADATA + b"Requires-Dist: six (and more\n"),
    ],
)
def test_metadata_must_be_those_of_the_file(why: str, metadata: bytes) -> None:
    for data, filename in (
        (packed(members(**{f"{INFO}/METADATA": metadata})), "demo-1.0-py3-none-any.whl"),
        (tarred(("demo-1.0/PKG-INFO", metadata)), "demo-1.0.tar.gz"),
    ):
        with pytest.raises(BadUpload, match=why):
            inspected(data, filename)


@pytest.mark.parametrize(
    "filename",
    [
        *("demo-1.0-py3.8.egg", "demo-1.0.exe", "demo-1.0.tar.bz2", "demo-1.0.tgz", "demo.tar.gz", "demo-1.0.txt", ".whl"),
        *("../demo-1.0.tar.gz", "a/demo-1.0.tar.gz", "demo-1.0-py3-none.whl", "demo-x-py3-none-any.whl", ".demo-1.0.tar.gz"),
        *("dеmo-1.0.tar.gz", "demo-1.0.tar.gz\n", "demo-1.0 .tar.gz", "x" * 250 + "-1.0.tar.gz", "demo-1.0.WHL", "-1.0.tar.gz"),  # noqa: RUF001  # a look-alike
    ],
)
def test_a_name_that_is_no_distributions_is_refused(filename: str) -> None:
    with pytest.raises(BadUpload):
        distribution_name(filename)


# -- limits -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "content"),
    [
        ("entries", {f"f{number}": b"" for number in range(30)}),
        ("names of its entries", {"n" * 1_200: b"", "m" * 1_200: b""}),
        ("times its size", {"zeros": bytes(200_000)}),
        ("unpacks to more than 300,000", {f"noise{number}": os.urandom(40_000) for number in range(10)}),
    ],
)
def test_an_archive_has_limits(why: str, content: dict[str, bytes]) -> None:
    for data, filename in (
        (packed(members(**content)), "demo-1.0-py3-none-any.whl"),
        (
            packed({"demo-1.0/PKG-INFO": METADATA, **{f"demo-1.0/{name}": data for name, data in content.items()}}),
            "demo-1.0.zip",
        ),
        (tarred(PKG_INFO, *((f"demo-1.0/{name}", data) for name, data in content.items())), "demo-1.0.tar.gz"),
    ):
        with pytest.raises(BadUpload, match=why):
            inspected(data, filename, TIGHT)


def test_an_entry_that_unpacks_to_more_than_it_says_is_refused_before_it_is_unpacked() -> None:
    data = packed(members(zeros=bytes(5_000_000)))
    lying = data.replace(struct.pack("<L", 5_000_000), struct.pack("<L", 10))
    with pytest.raises(BadUpload, match="damaged"):
        inspected(lying, "demo-1.0-py3-none-any.whl")


def test_a_header_of_a_source_archive_is_bounded() -> None:
    entry = tarfile.TarInfo("demo-1.0/a")
    entry.pax_headers = {"comment": "x" * 3_000_000}
    with pytest.raises(BadUpload, match="header of one of its entries"):
        inspected(tarred(PKG_INFO, entry), "demo-1.0.tar.gz")


# -- whatever comes -----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_wheel_that_is_changed_anywhere_is_refused_or_read_alike_by_others(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([packed(members()), streamed(), large(), DEMO.data]))
    wheel = bytearray(kind)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wheel) - 1))
        match data.draw(st.sampled_from(["set", "cut", "add", "copy"])):
            case "set":
                wheel[at] = data.draw(st.integers(0, 255))
            case "cut":
                del wheel[at : at + data.draw(st.integers(1, 40))]
            case "add":
                wheel[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case _:
                wheel += wheel[at : at + 200]
        wheel = wheel or bytearray(b"x")
    try:
        found = inspected(bytes(wheel), "demo-1.0-py3-none-any.whl")
    except BadUpload:
        return
    with zipfile.ZipFile(io.BytesIO(bytes(wheel))) as archive:
        assert archive.testzip() is None
        assert archive.read(f"{INFO}/METADATA") == found.metadata


@given(st.data())
def test_a_source_archive_that_is_changed_anywhere_is_refused_or_read_alike_by_others(data: st.DataObject) -> None:
    plain = bytearray(gzip.decompress(data.draw(st.sampled_from([SOURCE.data, tarred(PKG_INFO, special("demo-1.0/a", b"5"))]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(plain) - 1))
        plain[at] = data.draw(st.integers(0, 255))
    archive = gzip.compress(bytes(plain))
    try:
        found = inspected(archive, "demo-1.0.tar.gz")
    except BadUpload:
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as other:
        member = other.extractfile("demo-1.0/PKG-INFO")
        assert member is not None
        assert member.read() == found.metadata


@given(st.binary(max_size=300), st.sampled_from(["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz", "demo-1.0.zip"]))
def test_noise_is_refused(noise: bytes, filename: str) -> None:
    with pytest.raises(BadUpload):
        inspected(noise, filename)
