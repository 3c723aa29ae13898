"""Requirement and lock files: what they ask for, and what is said of what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from proxy.warm.choosing import Choice, newest
from proxy.warm.inputs import Group, Locked, read_arguments, read_input
from proxy.warm.targets import BadTarget, Target, targets

SHA = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def write(folder: Path, name: str, text: str) -> Group:
    (folder / name).write_text(text, "utf-8")
    return read_input(folder / name)


def problems(group: Group) -> str:
    return "\n".join(map(str, group.problems))


def test_pips_whole_format(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("attrs\n")
    (tmp_path / "limits.txt").write_text("attrs<24\n")
    group = write(
        tmp_path,
        "requirements.txt",
        f"# what we need\nflask[async]>=2 ; python_version > '3.7'  # why\n-r more.txt\n-c limits.txt\n--pre\n"
        f"six==1.16.0 --hash={SHA} \\\n    --hash={OTHER}\n",
    )
    assert group.requirements == ['flask[async]>=2; python_version > "3.7"', "attrs", "six==1.16.0"]
    assert group.constraints == ["attrs<24"]
    assert group.hashes == {"six": frozenset({SHA, OTHER})}
    assert (group.prereleases, group.problems, group.notes) == (True, [], [])


def test_what_cannot_be_warmed_is_named_with_its_line_and_the_rest_is_used(tmp_path: Path) -> None:
    group = write(
        tmp_path,
        "requirements.txt",
        "six\n-e .\n./local\nfoo @ https://files.example/foo.zip\nhttps://files.example/bar-1.0.zip\n!!what\nattrs\n",
    )
    assert group.requirements == ["six", "attrs"]
    said = problems(group)
    for line, words in (
        (2, "is a path"),
        (3, "is a path"),
        (4, "the URL https://files.example/foo.zip"),
        (5, "the URL"),
        (6, "!!what"),
    ):
        assert f"requirements.txt, line {line}:" in said
        assert words in said


def test_where_to_look_is_ignored_and_said(tmp_path: Path) -> None:
    text = "--index-url https://index.example/simple\n--extra-index-url https://b.example\n--find-links ./wheels\nsix\n"
    group = write(tmp_path, "requirements.txt", text)
    assert (group.requirements, group.problems) == (["six"], [])
    assert len(group.notes) == 3
    assert "line 1: --index-url https://index.example/simple is ignored" in group.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.txt", None, "cannot be read: No such file or directory"),
        ("requirements.txt", "-r missing.txt\n", "missing.txt"),
        ("pyproject.toml", "[tool.x]\n", "neither [project] nor [dependency-groups]"),
        ("pyproject.toml", "[project\n", "is no TOML"),
        ("uv.lock", "version = 9\n", "version is 9; of uv's lock files 1 are understood"),
        ("poetry.lock", '[metadata]\nlock-version = "7.0"\n', "metadata.lock-version is '7'"),
        ("pdm.lock", '[metadata]\nlock_version = "9.1"\n', "metadata.lock_version is '9'"),
        ("Pipfile.lock", '{"_meta": {"pipfile-spec": 99}}', "_meta.pipfile-spec is 99"),
        ("Pipfile.lock", "[]", "expected a JSON object"),
        ("Pipfile.lock", "{", "is no JSON"),
        ("pylock.toml", 'lock-version = "9.0"\ncreated-by = "x"\npackages = []\n', "9.0"),
        ("pylock.toml", "packages = 7\n", "is no lock file after PEP 751"),
        ("other.lock", 'a = "b"\n', "is neither a lock file of uv"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    group = read_input(tmp_path / name) if text is None else write(tmp_path, name, text)
    assert said in problems(group)
    assert name in problems(group)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_bytes(b"version = 1\n# \xff\xfe")
    assert "is not UTF-8" in problems(read_input(tmp_path / "uv.lock"))


UV = f"""
version = 1
revision = 3
[[package]]
name = "Six"
version = "1.16.0"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "https://files.example/six-1.16.0.tar.gz", hash = "{SHA}" }}
wheels = [{{ url = "https://files.example/six-1.16.0-py2.py3-none-any.whl", hash = "{OTHER}" }}]
[[package]]
name = "app"
version = "0.1"
source = {{ virtual = "." }}
[[package]]
name = "git-thing"
version = "0.1"
source = {{ git = "https://git.example/x" }}
"""
POETRY = f"""
[[package]]
name = "six"
version = "1.16.0"
files = [{{file = "six-1.16.0.tar.gz", hash = "{SHA}"}}, {{file = "six-1.16.0-py2.py3-none-any.whl", hash = "{OTHER}"}}]
[[package]]
name = "git-thing"
version = "0.1"
files = []
[package.source]
type = "git"
url = "https://git.example/x"
[metadata]
lock-version = "2.1"
"""
PDM = f"""
[metadata]
lock_version = "4.5.0"
[[package]]
name = "six"
version = "1.16.0"
files = [{{file = "six-1.16.0.tar.gz", hash = "{SHA}"}}, {{file = "six-1.16.0-py2.py3-none-any.whl", hash = "{OTHER}"}}]
[[package]]
name = "git-thing"
version = "0.1"
git = "https://git.example/x"
"""
PIPENV = json.dumps(
    {
        "_meta": {"pipfile-spec": 6},
        "default": {"six": {"version": "==1.16.0", "hashes": [SHA, OTHER]}, "git-thing": {"git": "https://git.example/x"}},
        "develop": {},
    }
)
PYLOCK = f"""
lock-version = "1.0"
created-by = "tests"
[[packages]]
name = "six"
version = "1.16.0"
sdist = {{ name = "six-1.16.0.tar.gz", url = "https://files.example/s.tar.gz", hashes = {{ sha256 = "{SHA[7:]}" }} }}
[[packages.wheels]]
name = "six-1.16.0-py2.py3-none-any.whl"
url = "https://files.example/six-1.16.0-py2.py3-none-any.whl"
hashes = {{ sha256 = "{OTHER[7:]}" }}
[[packages]]
name = "git-thing"
vcs = {{ type = "git", url = "https://git.example/x", commit-id = "0123456789012345678901234567890123456789" }}
"""
LOCKS = {"uv.lock": UV, "poetry.lock": POETRY, "pdm.lock": PDM, "Pipfile.lock": PIPENV, "pylock.toml": PYLOCK}


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("renamed", [False, True])
def test_a_lock_file_names_versions_and_hashes(tmp_path: Path, name: str, renamed: bool) -> None:
    group = write(tmp_path, "team.lock" if renamed else name, LOCKS[name])
    assert problems(group) == ""
    assert group.locked == [Locked("six", "1.16.0", frozenset({SHA, OTHER}))]
    assert sum("git-thing does not come from an index" in note for note in group.notes) == 1


def test_a_locked_version_that_is_none(tmp_path: Path) -> None:
    group = write(tmp_path, "uv.lock", UV.replace('version = "1.16.0"', 'version = "one"'))
    assert "six has the version 'one'" in problems(group).lower()


def test_requirements_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").touch()
    group = read_arguments(("six>=1", "requirements.txt", "a b", "x @ https://files.example/x.zip"))
    assert group.requirements == ["six>=1"]
    assert "requirements.txt: is a file: name it with -r requirements.txt" in problems(group)
    assert len(group.problems) == 3


# -- targets and choice -----------------------------------------------------------------------------------------------------


def entry(filename: str, **keys: object) -> dict[str, object]:
    return {"filename": filename, "url": filename, "hashes": {"sha256": "a" * 64}, **keys}


MANY = [
    entry("x-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
    entry("x-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
    entry("x-1.0-cp312-cp312-musllinux_1_2_x86_64.whl"),
    entry("x-1.0-cp312-cp312-macosx_11_0_arm64.whl"),
    entry("x-1.0-cp312-cp312-win_amd64.whl"),
    entry("x-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
    entry("x-1.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl"),
    entry("x-1.0-py3-none-any.whl"),
    entry("x-1.0.zip"),
    entry("x-1.0.tar.gz"),
    entry("x-2.0-py3-none-any.whl"),
    entry("not a file name"),
]


@pytest.mark.parametrize(
    ("python", "platform", "implementation", "chosen"),
    [
        ("3.12", "manylinux_2_28_x86_64", "cp", "x-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
        ("3.12", "manylinux_2_20_x86_64", "cp", "x-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
        ("3.12", "manylinux2014_x86_64", "cp", "x-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
        ("3.13", "manylinux_2_28_x86_64", "cp", "x-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
        ("3.12", "musllinux_1_3_x86_64", "cp", "x-1.0-cp312-cp312-musllinux_1_2_x86_64.whl"),
        ("3.12", "macosx_14_0_arm64", "cp", "x-1.0-cp312-cp312-macosx_11_0_arm64.whl"),
        ("3.12", "win_amd64", "cp", "x-1.0-cp312-cp312-win_amd64.whl"),
        ("3.8", "win_amd64", "cp", "x-1.0-py3-none-any.whl"),
        ("3.10", "manylinux_2_28_x86_64", "pp", "x-1.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl"),
    ],
)
def test_a_target_gets_the_wheel_its_installer_would_take(python: str, platform: str, implementation: str, chosen: str) -> None:
    (target,) = targets((python,), (platform,), implementation)
    assert [each["filename"] for each in Choice().of(MANY, Locked("x", "1.0"), [target])] == [chosen]


def test_a_source_archive_is_taken_where_no_wheel_fits_or_when_asked_for() -> None:
    target = Target((3, 12), "win_amd64")
    sources = [each for each in MANY if not str(each["filename"]).endswith(".whl")]
    assert [each["filename"] for each in Choice().of(sources, Locked("x", "1.0"), [target])] == ["x-1.0.tar.gz"]
    assert Choice(only_binary=True).of(sources, Locked("x", "1.0"), [target]) == []
    names = [each["filename"] for each in Choice(sdists=True).of(MANY, Locked("x", "1.0"), [target])]
    assert names == ["x-1.0-cp312-cp312-win_amd64.whl", "x-1.0.tar.gz"]
    assert len(Choice().of(MANY, Locked("x", "1.0"), [])) == 8
    assert len(Choice(all_files=True).of(MANY, Locked("x", "1.0"), [target])) == 10


def test_only_files_with_a_locked_hash_are_taken() -> None:
    entries = [entry("x-1.0-py3-none-any.whl"), entry("x-1.0.tar.gz", hashes={"sha256": "b" * 64})]
    chosen = Choice(all_files=True).of(entries, Locked("x", "1.0", frozenset({OTHER})), [])
    assert [each["filename"] for each in chosen] == ["x-1.0.tar.gz"]


def test_a_wheel_for_other_pythons_is_not_taken() -> None:
    entries = [entry("x-1.0-py3-none-any.whl", **{"requires-python": ">=3.11"})]
    assert Choice().of(entries, Locked("x", "1.0"), [Target((3, 9), None)]) == []
    assert len(Choice().of(entries, Locked("x", "1.0"), [Target((3, 11), None)])) == 1


def test_the_newest_versions_leave_out_yanked_and_pre_releases() -> None:
    entries = [entry(f"x-{each}.tar.gz") for each in ("1.0", "1.10", "1.9", "2.0rc1")]
    entries.append(entry("x-3.0.tar.gz", yanked="broken"))
    assert newest(entries, SpecifierSet(), 2) == ["1.10", "1.9"]
    assert newest(entries, SpecifierSet("<1.10"), 5) == ["1.9", "1.0"]


@given(st.integers(5, 45), st.sampled_from(["x86_64", "aarch64"]))
def test_an_older_glibc_is_accepted_and_a_newer_one_is_not(glibc: int, machine: str) -> None:
    ranks = Target((3, 12), f"manylinux_2_{glibc}_{machine}").ranks()
    platforms = {tag.platform for tag in ranks}
    assert {f"manylinux_2_{each}_{machine}" for each in range(5, glibc + 1)} <= platforms
    assert f"manylinux_2_{glibc + 1}_{machine}" not in platforms


@pytest.mark.parametrize(
    ("pythons", "platforms", "implementation", "said"),
    [
        (("2.7",), (), "cp", "--python 2.7: expected a version such as 3.12"),
        (("three",), (), "cp", "--python three"),
        ((), ("amiga",), "cp", "--platform amiga: expected a wheel's platform tag"),
        ((), (), "jy", "--implementation jy: expected cp or pp"),
    ],
)
def test_targets_that_are_none(pythons: tuple[str, ...], platforms: tuple[str, ...], implementation: str, said: str) -> None:
    with pytest.raises(BadTarget, match=said):
        targets(pythons, platforms, implementation)
