"""Habits that no linter knows: tests use public names of the product; what is behind a port has types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PRODUCT = TESTS.parent / "proxy"
#: ``os._exit`` has no other name.
ALLOWED = {"_exit"}


def private_names(source: str) -> Iterator[str]:
    """What *source* uses of others' private names: attributes of anything but ``self``, imports, names given to ``setattr``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                yield from _if_private(name, node)
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in ("proxy", "tests", "twisted"):
                for each in names:
                    yield from _if_private(each.name, node)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield from _if_private(name, node)


def _if_private(name: str, node: ast.expr | ast.stmt) -> Iterator[str]:
    if name.startswith("_") and not name.startswith("__") and name not in ALLOWED:
        yield f"line {node.lineno}: {name}"


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_tests_use_public_names(file: Path) -> None:
    assert list(private_names(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    ["room._looks.clear()", "f(service)._store", "from proxy.web.hot import _Kept", 'patch.setattr(front, "_reactor", clock)'],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(list(private_names(source))) == 1


@pytest.mark.parametrize(
    "source", ["self._own = 1", "os._exit(0)", "type(each).__name__", 'patch.setattr(front, "reactor", clock)']
)
def test_what_is_ones_own_is_let_through(source: str) -> None:
    assert list(private_names(source)) == []


# -- types -------------------------------------------------------------------------------------------------------------------

#: The ports, and those that implement or use them, say what they take and give.
TYPED = [
    PRODUCT / "interfaces.py",
    *(file for room in ("repository", "cache", "web") for file in (PRODUCT / room).rglob("*.py")),
]


def untyped(source: str) -> Iterator[str]:
    """Where *source* says that something may be anything.  A value of which nothing is known is an ``object``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module="typing" | "typing_extensions", names=names):
                yield from (f"line {node.lineno}: {each.name}" for each in names if each.name == "Any")
            case ast.Attribute(value=ast.Name(id=module), attr="Any"):
                yield f"line {node.lineno}: {module}.Any"


@pytest.mark.parametrize("file", sorted(TYPED), ids=lambda file: str(file.relative_to(PRODUCT)))
def test_ports_and_what_is_behind_them_are_typed(file: Path) -> None:
    assert list(untyped(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    ["from typing import Any", "def f():\n    from typing import Any as Whatever", "import typing as t\ndef f(x: t.Any): ..."],
)
def test_what_may_be_anything_is_found(source: str) -> None:
    assert len(list(untyped(source))) == 1
