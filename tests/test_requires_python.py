"""``Requires-Python`` that is not by the book: real uv and real pip choose through the proxy what they choose without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from proxy.simple.requires_python import LONGEST, repaired
from tests.inprocess import Start
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

#: What uv repairs, and the valid value that it reads in its place.
REPAIRED_BY_UV = {
    ">=3.12.*": ">=3.12",
    ">=3.9.*": ">=3.9",
    ">3.9.*": ">3.9",
    "> 3.5.*": "> 3.5",
    ">= 3.6.* , < 4.*": ">= 3.6 , < 4",
    "<=3.11.*": "<=3.11",
    "<3.12.*,>=3.6.*": "<3.12,>=3.6",
    ">=3.6,": ">=3.6",
    ">=3.12, ": ">=3.12",
    ">=2.7,!=3.0*,!=3.1*": ">=2.7,!=3.0.*,!=3.1.*",
    ">=2.7,!=3.0*,<3.11.*": ">=2.7,!=3.0.*,<3.11",
    ">=3.6<3.12": ">=3.6,<3.12",
    ">=3.6<3.12,": ">=3.6,<3.12",
    "!=~3.0,>=2.7": "!=3.0.*,>=2.7",
    ">= '2.7'": ">= 2.7",
    '>= "3.12"': ">= 3.12",
    ">=3.12'": ">=3.12",
    ">=2.7, !=3.0.*', !=3.12.*'": ">=2.7, !=3.0.*, !=3.12.*",
    ">=3.12.0a1.0": ">=3.12.0a1",
    ">dev": ">0.0.0dev",
}
#: What uv drops the file for, and which can only mean one thing.
REPAIRED_BESIDES = {
    ">=3.6.": ">=3.6",
    ">=3.6.,<4.": ">=3.6,<4",
    ">=3.6*": ">=3.6",
    "!=3.10*": "!=3.10.*",
    "=>3.6": ">=3.6",
    "=<3.11": "<=3.11",
    "> = 3.6": ">= 3.6",
    "~=3": "~=3.0",
    "~= 3, <4": "~=3.0, <4",
    "(>=3.6)": ">=3.6",
    ">=3.6 <4": ">=3.6,<4",
    ">=2.7 !=3.0.* !=3.1.*": ">=2.7,!=3.0.*,!=3.1.*",
    ">=3.6;": ">=3.6",
    ">=3.6; extra == 'x'": ">=3.6",
    ">=3.6;<4": ">=3.6,<4",
    "&gt;=3.6": ">=3.6",
    ",>=3.6": ">=3.6",
    ">=3.6,,<4": ">=3.6,<4",
}
#: What nobody reads.
MEANINGLESS = [
    "3.6",
    "3",
    "*",
    "any",
    ">= three",
    "^3.6",
    ">=3.x",
    ">=",
    "~=3.6.*",
    "3.6,3.7",
    ">=3.6 || >=4",
    "None",
    "==",
    ",",
]
#: What both read as it is.
VALID = [">=3.8", ">= 3.8 , <4", "==3.*", "!=3.0.*,>=2.7", "~=3.6", ">=3.8.0rc1", ">=v3.8", "===3.8", "<4", ">=3.6.1.post1"]


@pytest.mark.parametrize(("text", "valid"), [*REPAIRED_BY_UV.items(), *REPAIRED_BESIDES.items()])
def test_a_value_that_can_only_mean_one_thing_is_repaired(text: str, valid: str) -> None:
    assert repaired(text) == valid
    SpecifierSet(valid)


@pytest.mark.parametrize("text", VALID)
def test_a_valid_value_stays_as_it_is(text: str) -> None:
    assert repaired(text) == text


@pytest.mark.parametrize("text", [*MEANINGLESS, "", " ", ">=3.6," * LONGEST])
def test_a_value_that_nobody_understands_is_left_out(text: str) -> None:
    assert repaired(text) is None


@given(st.text(st.sampled_from("0123456789.,;<>=!~*'\" ()abcdev&gt+-|"), max_size=40))
def test_whatever_is_kept_is_valid_and_stays_the_same(text: str) -> None:
    kept = repaired(text)
    if kept is not None:
        SpecifierSet(kept)
        assert repaired(kept) == kept
    elif text.strip(", "):
        with pytest.raises(InvalidSpecifier):
            SpecifierSet(text)


def publish(upstream: FakeUpstream, values: list[str]) -> list[str]:
    """Projects whose second version states one of *values* each.  Returns their names."""
    for number, value in enumerate(values):
        name = f"p{number}"
        for version, stated in (("1.0", None), ("2.0", value)):
            made = wheel(name, version)
            upstream.add_file(name, made.filename, made.data, metadata=made.metadata, requires_python=stated)
    return [f"p{number}" for number in range(len(values))]


async def chosen(scratch: Scratch, index: str, names: list[str], python: str) -> dict[str, str]:
    """The version by project that uv chooses for the Python version *python*."""
    wanted = scratch.folder / "requirements.in"
    wanted.write_text("\n".join(names), "utf-8")
    ended = await scratch.uv_compile(index, str(wanted), "--python-version", python, "--no-annotate", "--no-header")
    assert ended.status == 0, ended.output
    return dict(re.findall(r"^(p\d+)==([\d.]+)$", ended.output, re.MULTILINE))


@pytest.mark.parametrize("json", [True, False], ids=["JSON", "HTML"])
@pytest_twisted.ensureDeferred
async def test_uv_chooses_through_the_proxy_what_it_chooses_without_it(
    upstream: FakeUpstream, serve: Start, tmp_path: Path, json: bool
) -> None:
    upstream.content.json = json
    values = [*REPAIRED_BY_UV, *VALID]
    names = publish(upstream, values)
    proxy = await serve(upstream)
    scratch = Scratch(tmp_path)
    seen = set()
    for python in ("3.8", "3.11.4", "3.13.1"):
        direct = await chosen(scratch, upstream.url, names, python)
        through = await chosen(scratch, f"http://127.0.0.1:{proxy.port}/simple/", names, python)
        assert [direct[name] for name in names] == [through[name] for name in names], python
        seen.add(tuple(direct.values()))
    assert len(seen) > 1, "the Python version makes a difference"
