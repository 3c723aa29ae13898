"""Names of projects and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.names import (
    METADATA,
    PROVENANCE,
    are_plain,
    build_and_tags,
    companion_of,
    filename_of,
    is_distribution,
    is_filename,
    is_plain,
    is_project_name,
    is_wheel,
    kind_of,
    metadata_name,
    normalize,
    packing_of,
    tags_of,
    version_of,
)


@given(st.text())
def test_normalising_twice_changes_nothing_more(name: str) -> None:
    assert normalize(normalize(name)) == normalize(name)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True))
def test_the_normal_spelling_of_a_project_is_one_it_may_have(name: str) -> None:
    assert is_project_name(name)
    assert is_project_name(normalize(name))
    assert set(normalize(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_runs_of_separators_become_one_dash() -> None:
    assert normalize("Friendly-._.Bard") == "friendly-bard"


@pytest.mark.parametrize("name", ["", "-a", "a-", ".", "a b", "a/b", "a\n", "café", "\u017f", "\u212a"])
def test_what_pep_508_rules_out_is_no_project_name(name: str) -> None:
    assert not is_project_name(name)


@pytest.mark.parametrize("name", ["a-1.0+cpu.whl", "a-1!2.0.tar.gz", "a~b.zip", "ünï-1.0.zip", "a" * 255, "..a", " a"])
def test_odd_but_harmless_file_names_are_fine(name: str) -> None:
    assert is_filename(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", "a\x7f", "a\x85", "\ud800", "a" * 256, "ü" * 128])
def test_what_could_leave_the_directory_or_break_a_header_is_no_file_name(name: str) -> None:
    assert not is_filename(name)


@given(st.text(st.characters()))
def test_a_file_name_is_one_segment_that_can_be_encoded(name: str) -> None:
    if is_filename(name):
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name


#: A file name, and what it says: kind, packing, version, tags.
SAYING = [
    ("six-1.16.0-py2.py3-none-any.whl", "wheel", "zip", "1.16.0", "py2.py3-none-any"),
    ("big_thing-1!2.0rc1-7-cp311-abi3-linux_x86_64.whl", "wheel", "zip", "1!2.0rc1", "cp311-abi3-linux_x86_64"),
    ("six-1.16.0.whl", "wheel", "zip", None, None),
    ("Six-1.16.tar.gz", "sdist", "tar.gz", "1.16", None),
    ("six-1.16.tgz", "sdist", "tar.gz", None, None),
    ("six-1.16.zip", "sdist", "zip", "1.16", None),
    ("six-1.16.TAR.BZ2", "sdist", "tar.bz2", None, None),
    ("six-1.16.tar.Z", "sdist", None, None, None),
    ("six-1.16-py2.7.egg", "egg", "zip", None, None),
    ("six-1.16.exe", "installer", None, None, None),
    ("six-1.16.tlz", None, "tar.xz", None, None),
    ("README", None, None, None, None),
]


@pytest.mark.parametrize(("filename", "kind", "packing", "version", "tags"), SAYING)
def test_the_name_of_a_file_says_what_it_is(
    filename: str, kind: str | None, packing: str | None, version: str | None, tags: str | None
) -> None:
    said = version_of(filename)
    assert (kind_of(filename), packing_of(filename), said and str(said), tags_of(filename)) == (kind, packing, version, tags)
    assert is_wheel(filename) == (kind == "wheel")
    assert kind is None or is_distribution(filename)


def test_the_build_number_and_the_tags_of_a_wheel_are_taken_apart() -> None:
    named = build_and_tags("six-1.0-7x-py2.py3-none-any.whl")
    assert named is not None
    assert (named[0], {str(tag) for tag in named[1]}) == ((7, "x"), {"py2-none-any", "py3-none-any"})
    assert build_and_tags("six-1.0.tar.gz") is None


@pytest.mark.parametrize("companion", [METADATA, PROVENANCE])
def test_a_companion_is_named_after_its_file(companion: str) -> None:
    assert companion_of(f"six-1.0.tar.gz{companion}", companion) == "six-1.0.tar.gz"
    assert companion_of("six-1.0.tar.gz", companion) is None
    assert companion_of(companion, companion) is None


def test_the_ledger_names_metadata_after_the_bytes_of_its_file() -> None:
    name = metadata_name("sha256-ab", "six-1.0.tar.gz")
    assert name == "sha256-ab/six-1.0.tar.gz.metadata"
    assert filename_of(name) == filename_of("six-1.0.tar.gz") == "six-1.0.tar.gz"


@given(st.lists(st.sampled_from(("foo-1.0-py3-none-any.whl", "a\nb", "", "a" * 202, "é", "a b", "-a")) | st.text(max_size=4)))
def test_many_names_are_looked_at_as_one_is(names: list[str]) -> None:
    assert are_plain(names) == all(map(is_plain, names))
