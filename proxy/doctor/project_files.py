"""What the files of a project, and further configuration files of clients, name as sources.  Pure: text in, sources out.

``pip.conf`` and ``uv.toml`` are read by :mod:`proxy.core.client_files`.  All readers raise ValueError, without repeating what
is in the file, for what cannot be read.
"""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxy.core.bypasses import OtherSources, other_sources

_URL = r"(?:https?|file|ftp|git\+[a-z]+|hg\+[a-z]+|svn\+[a-z]+|bzr\+[a-z]+)://\S+"
#: ``name @ URL`` (PEP 508) or a URL alone: what comes past every index.
_DIRECT = re.compile(rf"^\s*(?:-e\s+|--editable[ =]\s*)?(?:[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@\s*)?({_URL})")
_OPTION = re.compile(r"^\s*(-i|--index-url|--pypi-url|--extra-index-url|-f|--find-links)(?:\s+|=|(?<=-[if]))(\S+)")
_LONG = {"-i": "--index-url", "--pypi-url": "--index-url", "-f": "--find-links"}
_CONTINUED = re.compile(r"\\\n\s*")


def in_requirements(text: str, where: str) -> Iterator[OtherSources]:
    """What options of the requirement file *text* name, and what it requires by URL."""
    for line in _CONTINUED.sub(" ", text).splitlines():
        if found := _OPTION.match(line):
            option = _LONG.get(found[1], found[1])
            yield OtherSources(where, option, (found[2],), option == "--index-url")
        elif found := _DIRECT.match(line):
            yield OtherSources(where, "a direct URL", (found[1],), False)


def uv_in_pyproject(text: str, where: str) -> Iterator[OtherSources]:
    """What ``[tool.uv]`` names, sources of single projects included."""
    tool = _table(_toml(text), "tool", "uv")
    yield from _uv(tool, where)
    for name, source in _table(tool, "sources").items():
        for each in source if isinstance(source, list) else [source]:
            if isinstance(each, Mapping):
                url = each.get("url") or each.get("git")
                yield from _one(where, f"[tool.uv.sources] {name}", url, False)


def _uv(tool: Mapping[str, Any], where: str) -> Iterator[OtherSources]:
    for setting in ("extra-index-url", "find-links", "index-url"):
        for url in _texts(tool.get(setting)):
            yield from _one(where, f"[tool.uv] {setting}", url, setting == "index-url")
    for index in _tables(tool.get("index")):
        yield from _one(where, "[[tool.uv.index]]", index.get("url"), index.get("default") is True)


def poetry_in_pyproject(text: str, where: str) -> Iterator[OtherSources]:
    """What ``[[tool.poetry.source]]`` names: primary sources take the place of the public index, others are asked beside."""
    for source in _tables(_table(_toml(text), "tool", "poetry").get("source")):
        priority = source.get("priority", "primary")
        yield from _one(where, f"[[tool.poetry.source]] {source.get('name', '')}", source.get("url"), priority == "primary")


def pdm_in_pyproject(text: str, where: str) -> Iterator[OtherSources]:
    """What ``[[tool.pdm.source]]`` names: that with the name "pypi" takes the place of the public index."""
    for source in _tables(_table(_toml(text), "tool", "pdm").get("source")):
        name = source.get("name")
        yield from _one(where, f"[[tool.pdm.source]] {name or ''}", source.get("url"), name == "pypi")


def pdm_in_config(text: str, where: str) -> Iterator[OtherSources]:
    """What the ``config.toml`` of pdm names."""
    for name, source in _table(_toml(text), "pypi").items():
        if isinstance(source, Mapping):
            yield from _one(where, f"[pypi.{name}] url", source.get("url"), False)
        elif name == "url":
            yield from _one(where, "[pypi] url", source, True)


def in_pyproject(text: str, where: str) -> Iterator[OtherSources]:
    """What the dependencies of the project name by URL."""
    project = _table(_toml(text), "project")
    optional = _table(project, "optional-dependencies").values()
    for each in (*_texts(project.get("dependencies")), *(text for group in optional for text in _texts(group))):
        if found := _DIRECT.match(each):
            yield OtherSources(where, "a direct URL", (found[1].rstrip(";"),), False)


def in_pipfile(text: str, where: str) -> Iterator[OtherSources]:
    """What ``[[source]]`` of a ``Pipfile`` names: the first one is the index, others are for the packages that name them."""
    for number, source in enumerate(_tables(_toml(text).get("source"))):
        yield from _one(where, f"[[source]] {source.get('name', '')}", source.get("url"), number == 0)


def in_buildout_cfg(text: str, where: str) -> Iterator[OtherSources]:
    """What the section ``[buildout]`` names."""
    parser = _ini(text)
    for setting in ("index", "find-links"):
        yield from other_sources(
            where, f"[buildout] {setting}", parser.get("buildout", setting, fallback=""), setting == "index"
        )


def in_distutils_cfg(text: str, where: str) -> Iterator[OtherSources]:
    """What ``[easy_install]`` of a ``pydistutils.cfg`` or ``setup.cfg`` names, for setuptools without pip."""
    parser = _ini(text)
    for setting in ("index_url", "index-url", "find_links", "find-links"):
        value = parser.get("easy_install", setting, fallback="")
        yield from other_sources(where, f"[easy_install] {setting}", value, setting.startswith("index"))


def in_uv_lock(text: str, where: str) -> Iterator[OtherSources]:
    """The indexes that the packages of a ``uv.lock`` come from: ``uv sync --frozen`` asks them, whatever is configured."""
    found: dict[str, None] = {}
    for package in _tables(_toml(text).get("package")):
        registry = _table(package, "source").get("registry")
        if isinstance(registry, str) and "://" in registry:
            found[registry] = None
    if found:
        yield OtherSources(where, "the lock file", tuple(found), True)


SourceReader = Callable[[str, str], Iterator[OtherSources]]


def _toml(text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at [^)]*\)", str(error))  # what is before may be of the file
        raise ValueError(f"is no TOML file {place[0] if place else ''}".rstrip()) from None


def _ini(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(f"is not understood ({type(error).__name__})") from None
    return parser


def _table(value: object, *path: str) -> Mapping[str, Any]:
    """The table at *path* in *value*; empty if there is none."""
    for each in path:
        value = value.get(each) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    """*value* as a list of texts, which one text stands for as well."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _one(where: str, setting: str, url: object, instead: bool) -> Iterator[OtherSources]:
    if isinstance(url, str) and url:
        yield OtherSources(where, setting.rstrip(), (url,), instead)
