"""What differs between two configurations: keys with their old and new values, and what that means for indexes.

A secret is never part of what is returned.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from proxy.config.effective import effective_tables, toml_value
from proxy.core.roots import index_root
from proxy.settings import IndexSettings, Settings

#: The keys whose change takes effect when the proxy is restarted, and why.  ``NAME`` is the name of an index that there was.
NEED_RESTART: Mapping[str, str] = {
    "server.data_dir": "the lock, the databases and the admin socket are in that directory",
    "server.listen": "the ports are bound at the start, which may take rights that the proxy has given up since",
    "server.metrics_listen": "as for listen",
    "server.probe_listen": "as for listen",
    "server.dashboard_listen": "as for listen",
    "server.page_memory": "the memory is divided among the caches at the start",
    "index.NAME.path": "uploads and the watch on the directory rely on one directory",
    "index.NAME.layout": "as for path",
    "index.NAME.overwrite": "what was refused is compared with what was served before at the start",
}

_HEADING = re.compile(r"\[+(.+?)\]+\Z")
#: What is shown for a secret.
_SECRET, _OTHER_SECRET = "a secret, which is not shown", "another secret, which is not shown"


class ConfigChange(Struct, frozen=True):
    """The value of *key* was *old* and becomes *new*, as TOML; ``None``: there is none."""

    key: str
    old: str | None
    new: str | None
    #: Whether it takes effect with a restart only.
    needs_restart: bool = False

    def __str__(self) -> str:
        old, new = ("none" if each is None else each for each in (self.old, self.new))
        return f"{self.key}: {old} -> {new}"


def in_effect(running: Settings, wanted: Settings) -> Settings:
    """*wanted*, with what needs a restart as *running* has it."""
    old, new = running.server, wanted.server
    server = replace(
        new,
        data_dir=old.data_dir,
        listen=old.listen,
        metrics_listen=old.metrics_listen,
        probe_listen=old.probe_listen,
        dashboard_listen=old.dashboard_listen,
        page_memory=old.page_memory,
    )
    before = {each.name: each.hosted for each in running.indexes}
    return replace(wanted, server=server, indexes=tuple(_as_before(each, before) for each in wanted.indexes))


def _as_before(index: IndexSettings, before: Mapping[str, object]) -> IndexSettings:
    hosted, known = index.hosted, before.get(index.name)
    if hosted is None or not isinstance(known, type(hosted)):
        return index
    return replace(index, hosted=replace(hosted, path=known.path, layout=known.layout, overwrite=known.overwrite))


def changes(running: Settings, wanted: Settings) -> list[ConfigChange]:
    """What *wanted* changes of *running*, sorted by table and key.  Secrets that are read from files are not compared."""
    before, after = _tables(running), _tables(wanted)
    both = before.keys() & after.keys()
    old, new = _keys(before, both), _keys(after, both)
    fixed = _fixed(running, wanted)
    found = [
        ConfigChange(key, old.get(key), new.get(key), key in fixed)
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    found += _secret_changes(running, wanted)
    order = _order(running, wanted)
    return found if order is None else [order, *found]


def _fixed(running: Settings, wanted: Settings) -> frozenset[str]:
    """The keys that need a restart: of indexes only those of hosted ones that both have."""
    hosted = [{each.name for each in settings.indexes if each.hosted is not None} for settings in (running, wanted)]
    return frozenset(key.replace("NAME", name) for key in NEED_RESTART for name in (*hosted[0] & hosted[1], "NAME"))


def _order(running: Settings, wanted: Settings) -> ConfigChange | None:
    """The order of the indexes that both have, if it differs."""
    old, new = ([each.name for each in settings.indexes] for settings in (running, wanted))
    before, after = [each for each in old if each in new], [each for each in new if each in old]
    return None if before == after else ConfigChange("index", toml_value(tuple(before)), toml_value(tuple(after)))


def _keys(tables: Mapping[str, Mapping[str, str]], apart: Collection[str]) -> dict[str, str]:
    """Each key of the tables that are named in *apart* with its value; others are one value each."""
    found: dict[str, str] = {}
    for name, keys in tables.items():
        if name in apart:
            found.update({f"{name}.{key}": value for key, value in keys.items()})
        else:
            found[name] = f"{{ {', '.join(f'{key} = {value}' for key, value in keys.items())} }}"
    return found


def _tables(settings: Settings) -> dict[str, dict[str, str]]:
    """Each table of *settings*: its keys with their values."""
    found: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    for heading, keys, _ in effective_tables(settings):
        name = _HEADING.sub(r"\1", heading).replace('"', "")
        if heading.startswith("[["):
            named = dict(keys).get("name")
            numbers[name] = number = numbers.get(name, -1) + 1
            name = f"{name}[{number}]" if named is None else f"{name}.{named}"
        found[name] = {key: toml_value(value) for key, value in keys if value is not None}
    return found


def _secret_changes(running: Settings, wanted: Settings) -> list[ConfigChange]:
    old, new = dict(_secrets(running)), dict(_secrets(wanted))
    return [
        ConfigChange(key, _SECRET if key in old else None, (_OTHER_SECRET if key in old else _SECRET) if key in new else None)
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _secrets(settings: Settings) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """The secrets that are read with the configuration and not again when a file changes."""
    for each in settings.upstreams:
        if each.password is not None and each.password_file is None and each.netrc is None:
            yield f"upstream.{each.name}.password_env", (each.username, each.password)
        if each.token is not None and each.token_file is None:
            yield f"upstream.{each.name}.token_env", (each.token,)
        if each.outbound_proxy is not None and "@" in each.outbound_proxy:
            yield f"upstream.{each.name}.outbound_proxy (password)", (each.outbound_proxy,)
    for issuer in () if settings.ci is None else settings.ci.issuers:
        if issuer.token is not None and issuer.token_file is None:
            yield f"ci.issuer.{issuer.name}.token_env", (issuer.token,)
    ldap = settings.access.ldap
    if ldap is not None and ldap.bind_password is not None and ldap.bind_password_file is None:
        yield "access.ldap.bind_password_env", (ldap.bind_password,)


def index_notes(running: Settings, wanted: Settings) -> list[str]:
    """What happens to the files, claims and downloads of indexes that *wanted* adds, renames or removes."""
    old, new = ({each.name: each for each in settings.indexes} for settings in (running, wanted))
    added = [each for name, each in new.items() if name not in old]
    removed = [each for name, each in old.items() if name not in new]
    notes = []
    for index in removed:
        renamed = next((each for each in added if _without_name(each) == _without_name(index)), None)
        if renamed is not None:
            added.remove(renamed)
            notes.append(_renamed(index, renamed.name, running.server.data_dir))
        else:
            notes.append(_removed(index, running.server.data_dir))
    notes += [f"index {each.name} is added: {index_root(each.name)}simple/" for each in added]
    changed = [name for name, each in new.items() if name in old and old[name].kind != each.kind]
    notes += [
        f"index {name} is of another kind ({old[name].kind} -> {new[name].kind}): what was stored for it stays stored"
        for name in changed
    ]
    return notes


def _without_name(index: IndexSettings) -> IndexSettings:
    return replace(index, name="", default=False)


def _directory(index: IndexSettings, data_dir: Path) -> Path:
    path = None if index.hosted is None else index.hosted.path
    return data_dir / "hosted" / index.name if path is None else path


_UNDER_WAY = "requests and downloads under way are finished, new ones are answered 404"


def _removed(index: IndexSettings, data_dir: Path) -> str:
    name = index.name
    if index.members:
        return f"index {name} is removed: its members keep their files and claims; {_UNDER_WAY}"
    if index.kind == "hosted":
        return (
            f"index {name} is removed: its files stay in {_directory(index, data_dir)}; the names that it has claimed stay "
            f"claimed, and no group serves them until pypiproxy claims release {name} --all; {_UNDER_WAY}"
        )
    return (
        f"index {name} is removed: its pages, first-seen digests, pins and stored files stay on the disk, for an index of that "
        f"name, until pypiproxy purge --all --index {name}; {_UNDER_WAY}"
    )


def _renamed(index: IndexSettings, new: str, data_dir: Path) -> str:
    old = index.name
    words = f"index {old} is now called {new}, which is another index: {_UNDER_WAY} at the old name; "
    if index.members:
        return f"{words}its members keep their files and claims"
    if index.kind == "hosted":
        own = index.hosted is not None and index.hosted.path is None
        files = f"the files of {old} stay in {_directory(index, data_dir)}, and {new} does not serve them"
        files = files if own else f"{new} serves the files in {_directory(index, data_dir)}"
        return f"{words}{files}; the claims of {old} stay with {old} until pypiproxy claims add {new} --from {old}"
    return (
        f"{words}pages, first-seen digests and pins stay with {old}; {new} uses the stored files, without a download, if "
        f"upstream states the same digests and no index has readers of its own (docs/upgrade.md: taking all of it over)"
    )
