"""``pypiproxy ls`` and ``pypiproxy stats``: what is in a data directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.tables import say_pairs, show
from proxy.core.amounts import moment, size

_PROJECTS = (("index", False), ("project", False), ("files", True), ("bytes", True), ("missing", True))
_FILES = (
    ("index", False),
    ("file", False),
    ("version", False),
    ("bytes", True),
    ("committed", False),
    ("last used", False),
    ("state", False),
)
#: What is said of bytes that the proxy may not read.
_UNREADABLE = "cannot be read"
#: Answers that did not wait for upstream.
_HITS = ("hit", "stale")
#: Answers that upstream was waited for.
_MISSES = ("miss", "refreshed", "collapsed", "range", "head")


@click.command()
@click.argument("project", required=False)
@click.option("--index", help="Only of this index.")
@options
def ls(place: ProxyPlace, project: str | None, index: str | None) -> None:
    """List the projects of which files are stored; of one PROJECT, every file."""
    listed = place.ask("ls", project=project, index=index)
    if place.as_json:
        for each in listed:
            say(each)
    elif project is None:
        _show_projects(listed)
    else:
        show(_FILES, [_file(each) for each in listed])


@click.command()
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, help="How many of the largest projects to show.")
@options
def stats(place: ProxyPlace, top: int) -> None:
    """Sum up what is stored and, when the proxy runs, how its clients were answered since its start."""
    sums = place.ask("stats", top=top)
    if place.as_json:
        say(sums)
        return
    say_pairs(_pairs(sums))
    if sums["largest"]:
        click.echo()
        _show_projects(sums["largest"])


def _show_projects(projects: Sequence[dict[str, Any]]) -> None:
    if any(each["unreadable"] for each in projects):
        show((*_PROJECTS, (_UNREADABLE, True)), [[*_project(each), str(each["unreadable"])] for each in projects])
    else:
        show(_PROJECTS, [_project(each) for each in projects])


def _project(each: dict[str, Any]) -> list[str]:
    return [each["index"], each["project"], str(each["files"]), size(each["bytes"]), str(each["missing"])]


def _file(each: dict[str, Any]) -> list[str]:
    state = "missing" if not each["stored"] else "pinned" if each["pinned"] else "stored"
    if each["unreadable"]:
        state = f"{_UNREADABLE} ({each['unreadable']})"
    return [
        each["index"],
        each["filename"],
        each["version"] or "-",
        size(each["size"]),
        moment(each["committed_at"]),
        moment(each["last_used"]),
        state,
    ]


def _pairs(sums: dict[str, Any]) -> list[tuple[str, str]]:
    unnamed, unreadable = sums["unnamed"], sums["unreadable"]
    pairs = [
        ("files", f"{sums['files']:,}, {size(sums['bytes'])}"),
        ("free", size(sums["free"])),
        ("projects", f"{sums['projects']:,}"),
        ("pages", f"{sums['pages']:,}"),
        ("records", f"{sums['records']:,}"),
        ("names without their file", f"{sums['missing']:,}"),
        ("files without a name", f"{unnamed['files']:,}, {size(unnamed['bytes'])}"),
        ("first stored", moment(sums["oldest"])),
        ("last stored", moment(sums["newest"])),
        ("longest unused since", moment(sums["longest_unused"])),
    ]
    if unreadable["files"]:
        pairs.insert(1, (_UNREADABLE, f"{unreadable['files']:,} files ({', '.join(unreadable['why'])})"))
    for index, kinds in (sums["answered"] or {}).items():
        for kind, words in kinds.items():
            pairs.append((f"hits of {index} ({_KINDS[kind]})", _hits(words)))
    pairs += [("degraded", each["words"]) for each in sums["degraded"]]
    if sums["answered"] is None:
        pairs.append(("hits", "the proxy does not run"))
    return pairs


_KINDS = {"simple": "pages", "files": "files", "packages": "files of the JSON API", "pypi": "JSON API"}


def _hits(words: dict[str, int]) -> str:
    hits = sum(words.get(word, 0) for word in _HITS)
    answers = hits + sum(words.get(word, 0) for word in _MISSES)
    return "-" if not answers else f"{100 * hits / answers:.1f} % of {answers:,}"
