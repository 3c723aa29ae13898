"""Habits that no linter knows: tests use public names of the product, which exist once; what is behind a port has types."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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


def found_in(files: Collection[Path], look: Callable[[str], Iterable[str]]) -> list[str]:
    """What *look* finds in *files*, of which there are many."""
    assert len(files) > 50
    return [f"{file.relative_to(TESTS.parent)}, {each}" for file in files for each in look(file.read_text("utf-8"))]


def test_tests_use_public_names() -> None:
    assert found_in(sorted(TESTS.rglob("*.py")), private_names) == []


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


def test_ports_and_what_is_behind_them_are_typed() -> None:
    assert found_in(sorted(TYPED), untyped) == []


@pytest.mark.parametrize(
    "source",
    ["from typing import Any", "def f():\n    from typing import Any as Whatever", "import typing as t\ndef f(x: t.Any): ..."],
)
def test_what_may_be_anything_is_found(source: str) -> None:
    assert len(list(untyped(source))) == 1


# -- names -------------------------------------------------------------------------------------------------------------------


def public_names(source: str) -> Iterator[str]:
    """The classes, functions and aliases of types that *source* defines for others; constants are a matter of their module."""
    for node in ast.parse(source).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined = [name]
            case ast.Assign(targets=targets):
                defined = [each.id for each in targets if isinstance(each, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                defined = [name]
            case _:
                defined = []
        yield from (name for name in defined if not name.startswith("_") and not name.isupper())


def clashes(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that more than one of *sources* defines, and where."""
    places: dict[str, list[str]] = {}
    for place, source in sources.items():
        for name in public_names(source):
            places.setdefault(name, []).append(place)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_a_public_name_exists_once() -> None:
    assert clashes({str(file.relative_to(PRODUCT)): file.read_text("utf-8") for file in PRODUCT.rglob("*.py")}) == {}


@pytest.mark.parametrize(
    "source", ["class Place: ...", "Place = tuple[str, str]", "Place: type = str", "def Place(): ...", "async def Place(): ..."]
)
def test_a_name_that_exists_twice_is_found(source: str) -> None:
    assert clashes({"a": source, "b": "class Place: ..."}) == {"Place": ["a", "b"]}


@pytest.mark.parametrize("source", ["from a import Place", "class Other:\n    class Place: ...", "_Place = 1", "PLACE = 1"])
def test_a_name_that_is_imported_private_or_inside_is_no_second_one(source: str) -> None:
    assert clashes({"a": source, "b": "class Place: ...\nclass _Place: ...\nPLACE = 2"}) == {}


def test_few_modules_are_in_no_folder() -> None:
    loose = [file.name for file in PRODUCT.glob("*.py") if not file.name.startswith("_")]
    assert len(loose) <= 10, loose


def test_the_newest_python_leaves_out_modules_that_exist() -> None:
    """pytest takes ``--ignore`` with any name."""
    makefile = (TESTS.parent / "Makefile").read_text("utf-8").replace("\\\n", " ")
    (left_out,) = [line.split()[2:] for line in makefile.splitlines() if line.startswith("NOT_ON_NEWEST = ")]
    assert left_out == sorted(left_out)
    assert [each for each in left_out if not (TESTS / f"test_{each}.py").exists()] == []
