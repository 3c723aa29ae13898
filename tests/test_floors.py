"""The floors of the house: an import only ever points to a lower floor, or sideways within its own folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "proxy"

#: Module or folder directly below ``proxy`` -> floor (docs/design.md, "Floors").
FLOORS = {
    # 0: pure
    "access": 0,
    "core": 0,
    "model": 0,
    "policy": 0,
    "names": 0,
    "errors": 0,
    "expressions": 0,
    "representing": 0,
    "settings": 0,
    "simple": 0,
    # 1: the ports
    "interfaces": 1,
    # 2: mechanisms
    "mechanism": 2,
    "statistics": 2,
    # 3: adapters
    "storage": 3,
    "upstream": 3,
    # 4 to 6
    "accounts": 4,
    "cache": 4,
    "hosted": 4,
    "identity": 4,
    "repository": 5,
    "web": 6,
    "bundle": 6,
    "moving": 6,
    "administration": 6,
    "warm": 6,
    # 7: the machine that the service runs on, and its configuration
    "host": 7,
    "config": 7,
    # 8: composition
    "composition": 8,
    "service": 8,
    "tap": 8,
    # 9: what looks at all of it from outside
    "doctor": 9,
    # 10: the command line
    "cli": 10,
    "commands": 10,
}
#: What pure modules may not import.
IMPURE = ("twisted", "treq", "zope", "diskcache", "OpenSSL", "asyncio", "socket", "threading")


def room_of(module: str) -> str:
    """``proxy.simple.html`` -> ``simple``; the package ``proxy`` itself -> ``""``."""
    return module.partition(".")[2].partition(".")[0]


def imports(source: str, module: str, package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import in *source*, wherever it stands.

    ``from proxy import x`` counts as ``proxy.x``: names of the package itself are told apart by the caller.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: len(module.split(".")) - node.level + package]
                base = ".".join([*parents, *([base] if base else [])])
            if base == "proxy":
                yield from ((node.lineno, f"proxy.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """What *module* imports that it may not, as sentences."""
    room = room_of(module)
    found = []
    if room not in FLOORS:
        return [f"{module} is on no floor: add {room!r} to FLOORS"] if room else []
    for line, name in imports(source, module, package):
        if FLOORS[room] == 0 and name.split(".")[0] in IMPURE:
            found.append(f"{module}:{line} is pure and imports {name}")
        if name.split(".")[0] != "proxy":
            continue
        other = room_of(name)
        if other == room or not other or other.startswith("__version"):
            continue
        if other not in FLOORS:
            found.append(f"{module}:{line} imports {name}, which is on no floor")
        elif FLOORS[other] > FLOORS[room] or (FLOORS[other] == FLOORS[room] and not _side_by_side(room, other)):
            found.append(f"{module}:{line} on floor {FLOORS[room]} imports {name} on floor {FLOORS[other]}")
    return found


def _side_by_side(room: str, other: str) -> bool:
    """On one floor: plain modules are open to all; folders only to the composition, never to each other."""
    return not (HOUSE / other).is_dir() or (FLOORS[room] >= 7 and not (HOUSE / room).is_dir())


def _modules() -> list[tuple[str, Path]]:
    files = sorted(HOUSE.rglob("*.py"))
    return [(".".join(each.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), each) for each in files]


def test_imports_point_to_a_lower_floor() -> None:
    found = [violations(file.read_text("utf-8"), module, package=file.name == "__init__.py") for module, file in _modules()]
    assert len(found) > 100
    assert [each for several in found for each in several] == []


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("proxy.model", "from proxy.cache.pages import PageCache", "floor 0 imports proxy.cache.pages on floor 4"),
        (
            "proxy.mechanism.flight",
            "def f():\n    import proxy.web.site",
            "proxy.mechanism.flight:2 on floor 2 imports proxy.web.site",
        ),
        ("proxy.names", "from twisted.internet import defer", "is pure and imports twisted.internet"),
        ("proxy.simple.html", "import treq", "is pure and imports treq"),
        ("proxy.cache.pages", "from proxy import service", "imports proxy.service on floor 8"),
        ("proxy.cache.pages", "from ..web import site", "imports proxy.web on floor 6"),
        ("proxy.storage.local", "from proxy.upstream import pool", "on floor 3 imports proxy.upstream on floor 3"),
        ("proxy.upstream.offline", "from proxy.storage import local", "on floor 3 imports proxy.storage on floor 3"),
        ("proxy.cellar", "", "is on no floor"),
        ("proxy.web.site", "import proxy.cellar", "which is on no floor"),
    ],
)
def test_a_violation_is_found(module: str, source: str, said: str) -> None:
    assert len(violations(source, module)) == 1
    assert said in violations(source, module)[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("proxy.web.site", "from proxy.repository.located import View\nfrom proxy.web import pages\nfrom . import files"),
        ("proxy.cache.pages", "import proxy\nfrom proxy.mechanism.flight import Flight\nfrom .records import encode"),
        ("proxy.core.freshness", "import re\nfrom proxy.errors import BadRequest"),
        ("proxy.tap", "from proxy import service, config, __version__"),
    ],
)
def test_what_is_allowed_is_let_through(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_every_floor_that_is_named_has_its_modules() -> None:
    assert set(FLOORS) == {room_of(module) for module, _ in _modules()} - {""}
