"""What is to be there: requirement files, ``pyproject.toml`` and lock files, read by the libraries that know them.

Each file is a group of its own: two applications may ask for what excludes each other.  What cannot be used is a problem with
its place and what to do; the rest of the same file is used.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from packaging.dependency_groups import resolve_dependency_groups
from packaging.pylock import Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from pip_requirements_parser import InstallationError, InstallRequirement, RequirementsFile

from proxy.names import is_project_name, normalize
from proxy.simple.links import shown, shown_in

#: Options of requirement files that say where to look: that is the proxy's business.
_SOURCES = ("index_url", "extra_index_urls", "find_links", "no_index", "trusted_hosts")

#: So much of what is no requirement is shown (characters).
_SHOWN = 100

#: What to do about a file that its tool did not write like this.
_AGAIN = "write it again with the tool that made it"
#: Versions of lock files that are understood (the part before the first dot, or the whole).
_UV, _POETRY, _PDM, _PIPENV = (1,), ("1", "2"), ("4",), (6,)


class Problem(Struct, frozen=True):
    """Something that could not be done, where, and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class Locked(Struct, frozen=True):
    """One version of one project; ``hashes`` (``algorithm:hex``) are all that may be taken, any if there are none."""

    name: str
    version: str
    hashes: frozenset[str] = frozenset()


class Group(Struct):
    """What one file, or the command line, asks for."""

    where: str
    #: To be resolved (PEP 508), and what bounds the resolution.
    requirements: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    #: A ``pyproject.toml`` to be resolved.
    project: Path | None = None
    locked: list[Locked] = field(default_factory=list)
    #: By normalised name.
    hashes: dict[str, frozenset[str]] = field(default_factory=dict)
    prereleases: bool = False
    #: Whether what is asked for comes with what it needs.
    deps: bool = True
    problems: list[Problem] = field(default_factory=list)
    #: What was left out on purpose.
    notes: list[str] = field(default_factory=list)
    #: Whether *where* is the path of a file.
    is_file: bool = False

    def refuse(self, where: str, why: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(where, why))


class Unusable(Exception):
    """A file that cannot be used at all; ``str()`` says why."""


def read_arguments(requirements: tuple[str, ...]) -> Group:
    """The group of *requirements* given on the command line."""
    group = Group("command line")
    for text in requirements:
        if os.path.isfile(text):
            group.refuse(text, f"is a file: name it with -r {text}")
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            group.refuse(shown_in(text)[:_SHOWN], f"is not a requirement: {shown_in(_one_line(error))[: 2 * _SHOWN]}")
            continue
        _add(group, requirement, shown_in(text))
    return group


def _add(group: Group, requirement: Requirement, where: str) -> None:
    if requirement.url is not None:
        why = "only what an index has can be warmed; name a version instead"
        group.refuse(where, f"asks for the URL {shown(requirement.url)}: {why}")
    else:
        group.requirements.append(str(requirement))


def lately(names: Iterable[str]) -> Group:
    """The group of the newest versions of projects that were asked for lately: without what they need, they cannot conflict."""
    return Group("asked for lately", requirements=sorted(names), deps=False)


def read_input(path: Path) -> Group:
    """The group of the file *path*, recognised by its name and by what is in it.  Never raises: what is wrong is a problem."""
    group = Group(str(path), is_file=True)
    try:
        _reader(path)(path, group)
    except Unusable as error:
        group.refuse(str(path), str(error))
    except UnicodeDecodeError as error:
        group.refuse(str(path), f"is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8")
    except OSError as error:
        group.refuse(str(path), f"cannot be read: {error.strerror}; check its path and its permissions")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A file of the right name whose tables are none: what was read before the first such stays.
        group.refuse(
            str(path),
            f"does not have the structure of such a file ({_one_line(error)}): {_AGAIN}",
        )
    return group


def _reader(path: Path) -> Callable[[Path, Group], None]:
    name = path.name.lower()
    if name in _LOCKS:
        return _LOCKS[name]
    if name == "pyproject.toml":
        return _pyproject
    if name.startswith("pylock.") and name.endswith(".toml"):
        return _pylock
    if name.endswith((".lock", ".toml")):
        return _by_content(path)
    return _requirements


def _by_content(path: Path) -> Callable[[Path, Group], None]:
    """Which lock file one of another name is."""
    document = _toml(path) if not path.read_bytes().lstrip().startswith(b"{") else _json(path)
    if "lock-version" in document:
        return _pylock
    if "_meta" in document:
        return _pipfile_lock
    if "metadata" in document:
        return _pdm_lock if "lock_version" in document["metadata"] else _poetry_lock
    if "version" in document and "package" in document:
        return _uv_lock
    if "project" in document or "build-system" in document:
        return _pyproject
    raise Unusable(
        "is neither a lock file of uv, poetry, pdm, pipenv or PEP 751 nor a pyproject.toml: name one of these, "
        "or a requirements.txt"
    )


# -- requirements.txt -----------------------------------------------------------------------------------------------------


def _requirements(path: Path, group: Group) -> None:
    path.open("rb").close()  # for the message of the system, not of the library
    try:
        parsed = RequirementsFile.from_file(str(path), include_nested=True)
    except InstallationError as error:
        raise Unusable(_one_line(error).replace("|n", ": ")) from error
    for invalid in parsed.invalid_lines:
        where = f"{invalid.filename or path}, line {invalid.line_number}"
        group.refuse(
            where, f"{shown_in(invalid.line.strip())!r} is no requirement: {shown_in(_one_line(invalid.error_message))}"
        )
    for line in parsed.options:
        for option, value in line.options.items():
            if option in _SOURCES:
                values = ", ".join(map(shown, map(str, value if isinstance(value, list) else [value])))
                group.notes.append(
                    f"{_place(line)}: --{option.replace('_', '-').removesuffix('s')} {values} is ignored: the proxy is asked"
                )
            elif option == "pre":
                group.prereleases = True
    for requirement in parsed.requirements:
        _requirement(requirement, group)


def _requirement(parsed: InstallRequirement, group: Group) -> None:
    where = _place(parsed)
    if parsed.is_editable or (parsed.is_local_path and parsed.req is None):
        group.refuse(where, f"{parsed.line} is a path: only what an index has can be warmed; it is left out")
    elif parsed.is_url or parsed.req is None:
        url = parsed.link.url if parsed.link is not None else parsed.line
        group.refuse(where, f"asks for the URL {shown(url)}: only what an index has can be warmed; name a version instead")
    else:
        text = str(parsed.req) if parsed.marker is None else f"{parsed.req}; {parsed.marker}"
        if parsed.is_constraint:
            group.constraints.append(text)
        else:
            group.requirements.append(text)
            if parsed.hash_options:
                group.hashes[normalize(parsed.name)] = frozenset(parsed.hash_options)


def _place(parsed: Any) -> str:
    line = parsed.requirement_line
    return f"{line.filename}, line {line.line_number}"


def _pyproject(path: Path, group: Group) -> None:
    document = _toml(path)
    if "project" not in document and "dependency-groups" not in document:
        raise Unusable("has neither [project] nor [dependency-groups]: there is nothing to install")
    group.project = path


def requirements_of(project: Path, extras: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
    """What the ``pyproject.toml`` at *project* names itself, with *extras* and dependency *groups* (PEP 621, PEP 735).

    Empty when it says so elsewhere (``dynamic``) or cannot be understood.
    """
    try:
        document = tomllib.loads(project.read_text("utf-8"))
        stated = document.get("project", {})
        optional = {normalize(name): listed for name, listed in stated.get("optional-dependencies", {}).items()}
        named = [*stated.get("dependencies", ()), *(each for extra in extras for each in optional.get(normalize(extra), ()))]
        if groups:
            named += resolve_dependency_groups(document.get("dependency-groups", {}), *groups)
        return [str(Requirement(each)) for each in named if Requirement(each).url is None]
    except (OSError, AttributeError, LookupError, TypeError, ValueError, ExceptionGroup):
        return []


# -- lock files -----------------------------------------------------------------------------------------------------------


def _uv_lock(path: Path, group: Group) -> None:
    document = _toml(path)
    _expect(document.get("version"), _UV, "version", "uv")
    for package in document.get("package", ()):
        if "registry" not in package.get("source", {}):
            if not {"virtual", "editable"} & package.get("source", {}).keys():
                group.notes.append(f"{path}: {package.get('name')} does not come from an index and is left out")
            continue
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        _lock(group, package, [file.get("hash", "") for file in files])


def _poetry_lock(path: Path, group: Group) -> None:
    document = _toml(path)
    metadata = document.get("metadata", {})
    _expect(str(metadata.get("lock-version", "")).partition(".")[0], _POETRY, "metadata.lock-version", "poetry")
    older = metadata.get("files", {})
    for package in document.get("package", ()):
        if package.get("source", {}).get("type") in ("git", "url", "directory", "file"):
            group.notes.append(f"{path}: {package.get('name')} does not come from an index and is left out")
            continue
        files = package.get("files", older.get(package.get("name"), ()))
        _lock(group, package, [file.get("hash", "") for file in files])


def _pdm_lock(path: Path, group: Group) -> None:
    document = _toml(path)
    _expect(str(document.get("metadata", {}).get("lock_version", "")).partition(".")[0], _PDM, "metadata.lock_version", "pdm")
    for package in document.get("package", ()):
        if {"git", "url", "path"} & package.keys():
            group.notes.append(f"{path}: {package.get('name')} does not come from an index and is left out")
            continue
        _lock(group, package, [file.get("hash", "") for file in package.get("files", ())])


def _pipfile_lock(path: Path, group: Group) -> None:
    document = _json(path)
    _expect(document.get("_meta", {}).get("pipfile-spec"), _PIPENV, "_meta.pipfile-spec", "pipenv")
    for section, packages in document.items():
        if section == "_meta" or not isinstance(packages, dict):
            continue
        for name, package in packages.items():
            version = str(package.get("version", "")).removeprefix("==")
            if not version:
                group.notes.append(f"{path}: {name} does not come from an index and is left out")
                continue
            _lock(group, {"name": name, "version": version}, package.get("hashes", ()))


def _pylock(path: Path, group: Group) -> None:
    try:
        lock = Pylock.from_dict(_toml(path))
    except PylockUnsupportedVersionError as error:
        raise Unusable(f"{error}: write it with a tool that knows version 1.0 of PEP 751") from error
    except PylockValidationError as error:
        raise Unusable(f"is no lock file after PEP 751: {error}; {_AGAIN}") from error
    for package in lock.packages:
        files: list[Any] = [*(package.wheels or ()), *([package.sdist] if package.sdist is not None else [])]
        if not files or package.version is None:
            group.notes.append(f"{path}: {package.name} does not come from an index and is left out")
            continue
        hashes = [f"{algorithm}:{value}" for file in files for algorithm, value in file.hashes.items()]
        _lock(group, {"name": str(package.name), "version": str(package.version)}, hashes)


_LOCKS: dict[str, Callable[[Path, Group], None]] = {
    "uv.lock": _uv_lock,
    "poetry.lock": _poetry_lock,
    "pdm.lock": _pdm_lock,
    "pipfile.lock": _pipfile_lock,
}


def _lock(group: Group, package: Mapping[str, Any], hashes: Any) -> None:
    name, version = package.get("name"), package.get("version")
    if not is_project_name(str(name)):
        group.refuse(
            group.where,
            f"{str(name)[:100]!r} is no name of a project (PEP 508): {_AGAIN}",
        )
        return
    try:
        locked = Locked(normalize(str(name)), str(Version(str(version))), frozenset(filter(None, hashes)))
    except ValueError:
        group.refuse(
            group.where,
            f"{name} has the version {str(version)[:100]!r}, which is none (PEP 440): {_AGAIN}",
        )
        return
    group.locked.append(locked)


def _expect(version: Any, known: tuple[Any, ...], key: str, tool: str) -> None:
    if version not in known:
        raise Unusable(
            f"{key} is {version!r}; of {tool}'s lock files {' and '.join(map(str, known))} are understood: "
            f"write it again with a {tool} of that version, or warm from an export (requirements.txt, pylock.toml)"
        )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Unusable(f"is no TOML: {error}; {_AGAIN}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise Unusable(f"is no JSON: {error}; {_AGAIN}") from error
    if not isinstance(document, dict):
        raise Unusable("is no lock file of pipenv: expected a JSON object; write it again with pipenv lock")
    return document


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
