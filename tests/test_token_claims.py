"""Claims of ID tokens against the patterns of rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.claims import ClaimCondition, fulfil, literal, matches, texts, unfulfilled

JOB = {
    "sub": "repo:acme/widgets:ref:refs/heads/main",
    "repository": "acme/widgets",
    "ref_protected": True,
    "run_attempt": 1,
    "aud": ["pypiproxy", "other"],
    "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "builder"}},
    "empty": [],
    "nothing": None,
    "ratio": 0.5,
}


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("acme/widgets", "acme/widgets", True),
        ("acme/widgets", "acme/widgets2", False),
        ("acme/widgets", "ACME/widgets", False),
        ("acme/*", "acme/widgets", True),
        ("acme/*", "acme/", True),
        ("acme/*", "acme", False),
        ("acme/*", "acme/sub/widgets", False),
        ("acme/**", "acme/sub/widgets", True),
        ("acme/*", "evil/acme/widgets", False),
        ("*", "acme", True),
        ("*", "acme/widgets", False),
        ("**", "acme/widgets", True),
        ("***", "acme/widgets", True),
        ("v?", "v1", True),
        ("v?", "v", False),
        ("v?", "v/", False),
        ("refs/tags/v*.*", "refs/tags/v1.0", True),
        ("refs/tags/v*.*", "refs/tags/v10", False),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/widgets:ref:refs/heads/main", True),
        # a branch or an environment whose name is made to look like the rest
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/widgets:environment:x:ref:refs/heads/main", False),
        ("repo:acme/*:environment:release", "repo:acme/widgets:ref:refs/heads/x:environment:release", False),
        ("[a-z]", "b", False),
        ("[a-z]", "[a-z]", True),
        ("a.c", "abc", False),
        ("a\nb*", "a\nb\nc", True),
        ("", "", True),
        ("", "a", False),
        ("*", "x" * 2048, True),
        ("**", "x" * 2049, False),
    ],
)
def test_a_pattern_fits_a_whole_claim(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


@given(st.text("ab/:*?.\n", max_size=8), st.text("ab/:.\n", max_size=12))
def test_patterns_are_what_the_same_regular_expression_is(pattern: str, text: str) -> None:
    signs = {"*": "[^/:]*", "?": "[^/:]"}
    parts = re.findall(r"\*\*+|[^*]|\*", pattern)
    expression = "".join(".*" if part.startswith("**") else signs.get(part, re.escape(part)) for part in parts)
    assert matches(pattern, text) is bool(re.fullmatch(expression, text, re.DOTALL))


@given(st.text(max_size=50))
def test_a_text_without_signs_fits_itself_alone(text: str) -> None:
    if "*" not in text and "?" not in text:
        assert matches(text, text)
        assert not matches(text, f"{text}x")
        assert literal(text) == text


def test_no_pattern_goes_back() -> None:
    # A regular expression of the same meaning would not end before the universe does.
    assert not matches("a*" * 100, "a" * 2000 + "b/")


@pytest.mark.parametrize(
    ("way", "values"),
    [
        (("repository",), ["acme/widgets"]),
        (("ref_protected",), ["true"]),
        (("run_attempt",), ["1"]),
        (("aud",), ["pypiproxy", "other"]),
        (("kubernetes.io", "namespace"), ["ci"]),
        (("kubernetes.io", "serviceaccount", "name"), ["builder"]),
        (("kubernetes.io",), []),
        (("kubernetes.io", "absent"), []),
        (("repository", "absent"), []),
        (("absent",), []),
        (("empty",), []),
        (("nothing",), []),
        (("ratio",), []),
    ],
)
def test_claims_are_texts(way: tuple[str, ...], values: list[str]) -> None:
    assert list(texts(way, JOB)) == values


@pytest.mark.parametrize(
    ("conditions", "fulfilled"),
    [
        ([(("repository",), ("acme/widgets",))], True),
        ([(("repository",), ("other/*", "acme/*"))], True),
        ([(("repository",), ("acme/*",)), (("run_attempt",), ("2",))], False),
        ([(("repository",), ("acme/*",)), (("absent",), ("**",))], False),
        ([(("aud",), ("other",))], True),
        ([(("repository",), ())], False),
        ([], False),
    ],
)
def test_all_conditions_have_to_be_fulfilled(conditions: list[ClaimCondition], fulfilled: bool) -> None:
    assert fulfil(JOB, conditions) is fulfilled
    assert fulfilled is (bool(conditions) and not unfulfilled(conditions, JOB))


_names = st.sampled_from(["repository", "ref", "environment"])
_values = st.text("ab/", max_size=3)


@given(st.dictionaries(_names, _values), st.dictionaries(_names, _values, min_size=1))
def test_exact_conditions_are_fulfilled_by_what_has_them_and_nothing_else(
    claims: dict[str, str], wanted: dict[str, str]
) -> None:
    conditions = [((name,), (value,)) for name, value in wanted.items()]
    assert fulfil(claims, conditions) is (wanted.items() <= claims.items())
