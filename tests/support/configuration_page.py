"""``docs/reference/configuration.md``, made from what reads the configuration: ``python -m tests.support.configuration_page``.

The keys and what each may be come from :mod:`proxy.config` itself, which is watched while it reads a file with every key; the
defaults are what it makes of a file without any; the meaning is the comment above the key in ``conf/pypiproxy.toml``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import Struct

from proxy.config import default_data_dir, environment, load
from proxy.config.changes import NEED_RESTART
from proxy.config.effective import effective_tables, toml_value
from proxy.config.tables import ConfigTable, Reader, Unacceptable
from proxy.errors import ConfigError
from tests.support.process import ROOT

PAGE = ROOT / "docs" / "reference" / "configuration.md"
FILE = ROOT / "conf" / "pypiproxy.toml"

_HEAD = """\
# Configuration keys

Every key of the configuration file. [Configuration](../configuration.md) describes the values (durations, sizes, paths), the
command line, and how keys work together; [conf/pypiproxy.toml](../../conf/pypiproxy.toml) is a file to copy from.

A key without a default is not set; the meaning says what holds then. A changed key takes effect with `pypiproxy reload`, unless
its meaning says that it needs a restart.
"""
_FOOT = """
This page is generated from the definitions in the code and the comments in `conf/pypiproxy.toml`
(`python -m tests.support.configuration_page`).
"""


class Section(Struct, frozen=True):
    """One table: its heading here, what messages call it when every key is read, and what it is among the defaults.

    *environment* is what the environment calls it, if it can be set there, and *restart* what `NEED_RESTART` calls it.
    """

    heading: str
    path: str
    least: str
    environment: str | None = None
    restart: str = ""


SECTIONS = (
    Section("[server]", "server", "[server]", environment.SERVER, "server"),
    Section("[upstream.NAME]", "upstream.corp", '[upstream."corp"]', environment.UPSTREAM),
    Section("[[index]]", "index[0]", "[[index]] 0"),
    Section('[[index]] with kind = "hosted"', "index[1]", "[[index]] 1", restart="index.NAME"),
    Section('[[index]] with kind = "group"', "index[2]", "[[index]] 2"),
    Section("[warm]", "warm", "[warm]"),
    Section("[access]", "access", "[access]"),
    Section("[access.ldap]", "access.ldap", "[access.ldap]"),
    Section("[access.reverse_proxy]", "access.reverse_proxy", "[access.reverse_proxy]"),
    Section("[[grant]]", "grant[0]", "[[grant]] 0"),
    Section("[ci]", "ci", "[ci]"),
    Section("[ci.issuer.NAME]", "ci.issuer.github", '[ci.issuer."github"]'),
    Section("[[ci.rule]]", "ci.rule[0]", "[[ci.rule]] 0"),
)
#: The configuration that has every table and no key that is not required.
_LEAST = """\
[upstream.corp]
url = "https://packages.corp.example/simple/"
[[index]]
name = "pypi"
upstreams = ["corp"]
[[index]]
name = "internal"
kind = "hosted"
default = true
[[index]]
name = "all"
kind = "group"
members = ["internal", "pypi"]
[warm]
[access.ldap]
url = "ldaps://ldap.corp.example"
base = "ou=people,dc=corp,dc=example"
[access.reverse_proxy]
user_header = "X-Remote-User"
[[grant]]
role = "reader"
principals = ["anonymous"]
[ci.issuer.github]
url = "https://issuer.corp.example"
[[ci.rule]]
name = "release"
issuer = "github"
claims = { repository = "acme/widgets" }
[server]
trusted_proxies = ["127.0.0.1"]
"""
#: What a value is that no key may have.
_NOTHING = None


def everything() -> str:
    """The file with the keys that it has in comments."""
    lines = (re.sub(r"^# (?=[a-z_]+ = |\[)", "", line) for line in FILE.read_text("utf-8").splitlines())
    return "\n".join(lines)


def read_keys() -> Mapping[str, Mapping[str, Reader[Any]]]:
    """What reads each key of each table, by what messages call the table, in the order of the file."""
    found: dict[str, dict[str, Reader[Any]]] = {}
    take = ConfigTable.take

    def watched(table: ConfigTable, key: str, reader: Reader[Any], default: Any) -> Any:
        place, _, _ = table.key(key).removeprefix(f"{source}: ").rpartition(".")
        found.setdefault(place, {})[key] = reader
        return take(table, key, reader, default)

    with tempfile.TemporaryDirectory() as place, mock.patch.object(ConfigTable, "take", watched):
        source = Path(place) / "pypiproxy.toml"
        source.write_text(everything(), "utf-8")
        with suppress(ConfigError):  # credentials of several kinds, and files that are not there
            load(source, environ={})
    return found


def required() -> frozenset[tuple[str, str]]:
    """The keys that have to be there, each with what messages call its table."""
    found: set[tuple[str, str]] = set()
    require = ConfigTable.require

    def watched(table: ConfigTable, key: str, expected: str) -> None:
        place, _, _ = table.key(key).removeprefix(f"{source}: ").rpartition(".")
        found.add((place, key))
        require(table, key, expected)

    with tempfile.TemporaryDirectory() as place, mock.patch.object(ConfigTable, "require", watched):
        source = Path(place) / "pypiproxy.toml"
        source.write_text(_LEAST, "utf-8")
        load(source, environ={})
    return frozenset(found)


def defaults() -> Mapping[str, Mapping[str, str]]:
    """The values of keys that nothing sets, as TOML, by `Section.least`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "pypiproxy.toml"
        file.write_text(_LEAST, "utf-8")
        settings = load(file, environ={})
    found: dict[str, dict[str, str]] = {}
    server, *_ = effective_tables(load(None, environ={}))
    for heading, keys, _ in (server, *effective_tables(settings)[1:]):
        number = sum(each.startswith(f"{heading} ") for each in found)
        name = f"{heading} {number}" if heading.startswith("[[") else heading
        found[name] = {key: toml_value(value) for key, value in keys if value is not None and value != default_data_dir()}
    return found


def expected(reader: Reader[Any]) -> str:
    """What *reader* wants to have, in the words of its message."""
    words = _wanted(reader, _NOTHING)
    if words.startswith("a list"):
        return f"a list of: {_wanted(reader, [_NOTHING], ['?!'])}"
    return _wanted(reader, _NOTHING, "?!")


def _wanted(reader: Reader[Any], value: object, text: object = None) -> str:
    """What *reader* expects instead of *value*; instead of *text* if it wants a text that means something."""
    try:
        reader(value)
    except Unacceptable as problem:
        words = problem.expected
    if text is not None and words.startswith("text in quotes"):
        with suppress(Unacceptable):
            reader(text)
            return words
        return _wanted(reader, text)
    return words


def comments() -> Mapping[tuple[str, str], str]:
    """What the file says above each key, by the heading of its table (as in `SECTIONS`) and the key."""
    found: dict[tuple[str, str], str] = {}
    heading, said, ended = "", list[str](), False
    numbers = 0
    for line in everything().splitlines():
        table = re.match(r"(\[+[\w.]+\]+)$", line)
        key = re.match(r"([a-z_]+) = ", line)
        if table is not None:
            numbers += table[1] == "[[index]]"
            heading = _headings(table[1], numbers)
            said = []
        elif key is not None:
            found.setdefault((heading, key[1]), " ".join(said))
            ended = True
        elif line.startswith("# "):
            said = [line[2:]] if ended else [*said, line[2:]]
            ended = False
        else:  # between two paragraphs
            said, ended = [], False
    return found


def _headings(table: str, indexes: int) -> str:
    """The heading here of *table* in the file."""
    if table == "[[index]]":
        return SECTIONS[1 + indexes].heading
    return re.sub(r"^\[(upstream|ci\.issuer)\..*", r"[\1.NAME]", table)


def page() -> str:
    """The text of the page."""
    return "".join((_HEAD, *_sections(), _FOOT))


def _sections() -> Iterator[str]:
    known, said, unset, needed = read_keys(), comments(), defaults(), required()
    for section in SECTIONS:
        # A key that every index has is in the first of their tables.
        of_every = {key for heading, key in said if heading == SECTIONS[2].heading} if section.path[:6] == "index[" else set()
        there = [key for heading, key in said if heading == section.heading and said[heading, key]]
        keys = known[section.path]
        assert keys.keys() <= {*there, *of_every}, section
        yield f"\n## `{section.heading}`\n\n"
        variables = section.environment is not None
        yield "| key | value | default | meaning |" + (" environment variable |\n" if variables else "\n")
        yield "|---|---|---|---|" + ("---|\n" if variables else "\n")
        for key in there:
            default = unset.get(section.least, {}).get(key)
            shown = "required" if (section.path, key) in needed else "" if default is None else f"`{default}`"
            why = NEED_RESTART.get(f"{section.restart}.{key}")
            restart = "" if why is None else " Needs a restart."
            row = [f"`{key}`", _cell(expected(keys[key])), shown, _cell(said[section.heading, key]) + restart]
            if section.environment is not None:
                row.append(f"`{environment.variable(section.environment, key)}`")
            yield f"| {' | '.join(row)} |\n"


def _cell(text: str) -> str:
    """*text* in one cell of a table, without what Markdown would take for markup."""
    return re.sub(r"([*|<`_])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
