"""``pypiproxy ls`` and ``pypiproxy stats``: what a data directory contains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click

from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.speaking import fail, note
from proxy.commands.statistics import TABLES, show_figures, show_table
from proxy.commands.tables import say_pairs, show
from proxy.commands.tokens import duration_option
from proxy.core.amounts import NONE, counted, moment, size
from proxy.core.cache_status import FROM_CACHE

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
_USED = ("last used", False)
#: What is said of bytes that the proxy may not read.
_UNREADABLE = "cannot be read"
#: Answers that upstream was waited for.
_MISSES = ("miss", "refreshed", "collapsed", "range", "head")


@click.command()
@click.argument("project", required=False, metavar="[PROJECT|PATTERN]")
@click.option("--index", help="Only the projects of this index.")
@click.option("--sort", type=click.Choice(["name", "size", "used"]), default="name", show_default=True, help="Sort by this.")
@options
def ls(place: ProxyPlace, project: str | None, index: str | None, sort: str) -> None:
    """List the projects with stored files, or the files of one PROJECT.

    A PATTERN such as 'acme-*' lists the projects whose names match.  "size" lists the largest first, "used" the most recently
    used.  "missing" are files that are recorded in the ledger and not stored: they were evicted or lost.
    """
    pattern = project is not None and any(each in project for each in "*?[")
    listed = place.ask("ls", project=None if pattern else project, index=index)
    if pattern:
        from proxy.names import normalize  # it takes a while to load

        wanted = normalize(str(project))
        listed = [each for each in listed if fnmatchcase(each["project"], wanted)]
        if not listed:
            fail(f"no stored project has a name that matches {project!r}: pypiproxy ls lists all of them")
    of_files = project is not None and not pattern
    listed.sort(key=_order(sort, "size" if of_files else "bytes"))
    if place.as_json:
        for each in listed:
            say(each)
    elif of_files:
        show(_FILES, [_file(each) for each in listed])
        stored = [each["size"] for each in listed if each["stored"]]
        note(f"{counted(len(stored), 'file')}, {size(sum(stored))}", err=True)
    else:
        _show_projects(listed, used=sort == "used")
        files, total = (sum(each[key] for each in listed) for key in ("files", "bytes"))
        note(f"{counted(len(listed), 'project')}, {counted(files, 'file')}, {size(total)}", err=True)


def _order(sort: str, bytes_: str) -> Callable[[dict[str, Any]], Any]:
    """The key to sort by: *bytes_* is where the size is."""
    if sort == "size":
        return lambda each: -each[bytes_]
    if sort == "used":
        return lambda each: -(each["last_used"] or 0.0)
    return lambda each: (each["index"], each["project"])


@click.command()
@click.option("--top", type=click.IntRange(0), default=10, show_default=True, help="How many rows of each table to show.")
@click.option(
    "--last",
    "seconds",
    callback=duration_option,
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="Show the figures of so long, up to 400d.",
)
@click.option("--by", type=click.Choice(TABLES), help="Show only the figures of that time, in a table by this.")
@options
def stats(place: ProxyPlace, top: int, seconds: float, by: str | None) -> None:
    """Show what is stored, what it saves, and what is worth doing about it.

    Figures survive restarts: those of minutes are kept for three hours, of hours for eight days, of days for 400 days.
    """
    if by is not None:
        found = place.ask("statistics", by=by, seconds=seconds, top=top)
    else:
        found = place.ask("stats", seconds=seconds, top=top)
    if place.as_json:
        say(found)
    elif by is not None:
        show_table(found)
    else:
        say_pairs(_pairs(found))
        if found["largest"]:
            click.echo()
            _show_projects(found["largest"])
        click.echo()
        show_figures(found["statistics"])


def _show_projects(projects: Sequence[dict[str, Any]], *, used: bool = False) -> None:
    unreadable = any(each["unreadable"] for each in projects)
    columns = (*_PROJECTS, *([(_UNREADABLE, True)] if unreadable else []), *([_USED] if used else []))
    show(
        columns,
        [
            [
                *_project(each),
                *([str(each["unreadable"])] if unreadable else []),
                *([moment(each["last_used"])] if used else []),
            ]
            for each in projects
        ],
    )


def _project(each: dict[str, Any]) -> list[str]:
    return [each["index"], each["project"], str(each["files"]), size(each["bytes"]), str(each["missing"])]


def _file(each: dict[str, Any]) -> list[str]:
    state = "missing" if not each["stored"] else "pinned" if each["pinned"] else "stored"
    if each["unreadable"]:
        state = f"{_UNREADABLE} ({each['unreadable']})"
    return [
        each["index"],
        each["filename"],
        each["version"] or NONE,
        size(each["size"]),
        moment(each["committed_at"]),
        moment(each["last_used"]),
        state,
    ]


def _pairs(sums: dict[str, Any]) -> list[tuple[str, str]]:
    orphaned, unreadable, limit = sums["unnamed"], sums["unreadable"], sums["max_size"]
    share = f" ({100 * sums['bytes'] / limit:.0f} % of max_size, {size(limit)})" if limit else ""
    running = sums["running_since"] is not None
    pairs = [
        ("directory", sums["directory"]),
        ("version", sums["version"]),
        ("running since", moment(sums["running_since"]) if running else "the proxy does not run"),
        ("stored files", f"{sums['files']:,}, {size(sums['bytes'])}{share}"),
        ("free", size(sums["free"])),
        ("projects", f"{sums['projects']:,}"),
        ("pages", f"{sums['pages']:,}"),
        ("records", f"{sums['records']:,}"),
        ("missing files", f"{sums['missing']:,}"),
        ("orphaned files", f"{orphaned['files']:,}, {size(orphaned['bytes'])}"),
        ("first stored", moment(sums["oldest"])),
        ("last stored", moment(sums["newest"])),
        ("longest unused since", moment(sums["longest_unused"])),
    ]
    if unreadable["files"]:
        pairs.insert(4, (_UNREADABLE, f"{counted(unreadable['files'], 'file')} ({', '.join(unreadable['why'])})"))
    for index, kinds in (sums["answered"] or {}).items():
        for kind, words in kinds.items():
            pairs.append((f"hits of {index} ({_KINDS[kind]})", _hits(words)))
    if running:
        pairs.append(("bytes saved", f"{size(sums['saved'])} sent from the cache since the start"))
    return pairs + [("degraded", each["words"]) for each in sums["degraded"]]


_KINDS = {"simple": "pages", "files": "files", "packages": "files of the JSON API", "pypi": "JSON API"}


def _hits(words: dict[str, int]) -> str:
    hits = sum(words.get(word, 0) for word in FROM_CACHE)
    answers = hits + sum(words.get(word, 0) for word in _MISSES)
    return NONE if not answers else f"{100 * hits / answers:.1f} % of {answers:,}"
