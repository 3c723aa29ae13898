"""Expressions that are compiled when they are first used are those that `re.compile` makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.expressions import expression

PRODUCT = Path(__file__).parent.parent / "proxy"


def modules() -> Iterator[str]:
    """The modules with expressions of that kind."""
    for file in sorted(PRODUCT.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        if any(isinstance(node, ast.ImportFrom) and node.module == "proxy.expressions" for node in tree.body):
            yield ".".join(file.relative_to(PRODUCT.parent).with_suffix("").parts)


@given(st.text("ab1-", max_size=6))
def test_it_matches_as_a_compiled_one_does(text: str) -> None:
    pattern = r"[A-B]+(-)?"
    late, compiled = expression(pattern, re.IGNORECASE), re.compile(pattern, re.IGNORECASE)
    for _ in range(2):
        assert (late.match(text) is None) == (compiled.match(text) is None)
        assert (late.fullmatch(text) is None) == (compiled.fullmatch(text) is None)
        assert late.sub("x", text) == compiled.sub("x", text)
        assert late.findall(text) == compiled.findall(text)
    assert (late.pattern, late.flags, late.groups) == (compiled.pattern, compiled.flags, compiled.groups)


def test_a_wrong_one_is_found_out_when_it_is_used() -> None:
    wrong = expression("(")
    with pytest.raises(re.error):
        wrong.match("")


def test_each_of_the_proxy_can_be_compiled() -> None:
    kind = type(expression(""))
    found = {}
    for module in modules():
        namespace = vars(import_module(module))
        found[module] = [each for value in namespace.values() for each in flat(value) if isinstance(each, kind)]
        for each in found[module]:
            assert isinstance(each.flags, int), module
    assert len(found) > 10
    assert [module for module, expressions in found.items() if not expressions] == []


def flat(value: object) -> Iterator[object]:
    """*value*, or what is in it."""
    if isinstance(value, tuple):
        for each in value:
            yield from flat(each)
    else:
        yield value
