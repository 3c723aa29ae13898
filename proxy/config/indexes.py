"""``[[index]]``: the indexes of each kind, and what is wrong between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.config import files
from proxy.config import readers as read
from proxy.config.tables import ConfigTable
from proxy.core.roots import ANY_SIMPLE
from proxy.settings import GroupSettings, HostedSettings, IndexSettings, PageLimits, UpstreamSettings


def index_settings(table: ConfigTable, here: files.Here) -> IndexSettings:
    """What one ``[[index]]`` says."""
    table.require("name", f"the name this index is served under: {ANY_SIMPLE}")
    kind = table.take("kind", read.choice(*_KINDS), "proxy")
    return _KINDS[kind](table, here)


def _hosted_index(table: ConfigTable, here: files.Here) -> IndexSettings:
    known = HostedSettings()
    hosted = HostedSettings(
        path=table.take("path", files.path(here), known.path),
        layout=table.take("layout", read.choice("projects", "flat"), known.layout),
        owns=table.take("owns", read.several(read.project_pattern), known.owns),
        overwrite=table.take("overwrite", read.flag, known.overwrite),
        uploads=table.take("uploads", read.flag, known.uploads),
        max_files=table.take("max_files", read.unless("unlimited", read.whole_number(1)), known.max_files),
        max_size=table.take("max_size", read.unless("unlimited", read.room), known.max_size),
    )
    if hosted.layout == "flat":
        table.require("path", "the directory with the files")
    return _done(table, IndexSettings(**_named(table), kind="hosted", hosted=hosted))


def _group_index(table: ConfigTable, here: files.Here) -> IndexSettings:
    table.require("members", 'a list of names of indexes, such as ["internal", "pypi"]')
    group = GroupSettings(
        members=table.take("members", read.several(read.text), ()),
        merge=table.take("merge", read.several(read.project), ()),
    )
    return _done(table, IndexSettings(**_named(table), kind="group", group=group))


def _named(table: ConfigTable) -> dict[str, Any]:
    """What every index has, by the fields of IndexSettings."""
    return {"name": table.take("name", read.name, ""), "default": table.take("default", read.flag, False)}


def _done(table: ConfigTable, index: IndexSettings) -> IndexSettings:
    table.done()
    return index


def _proxy_index(table: ConfigTable, here: files.Here) -> IndexSettings:
    offline = table.take("offline", read.flag, False)
    if not offline:
        table.require("upstreams", f'a list of [upstream.NAME] names, such as ["{read.PUBLIC}"], or offline = true')
    limits = PageLimits()
    index = IndexSettings(
        **_named(table),
        upstreams=table.take("upstreams", read.several(read.text), ()),
        limits=PageLimits(
            ttl=table.take("ttl", read.time_span(zero=True), limits.ttl),
            soft_deadline=table.take("soft_deadline", read.time_span(zero=True), limits.soft_deadline),
            stale_if_error=table.take(
                "stale_if_error", read.unless("unlimited", read.time_span(zero=True)), limits.stale_if_error
            ),
            negative_ttl=table.take("negative_ttl", read.time_span(zero=True), limits.negative_ttl),
        ),
        policy=table.take("policy", read.choice("ordered", "fastest"), "ordered"),
        hedge_after=table.take("hedge_after", read.unless("off", read.time_span()), None),
        prefetch=table.take("prefetch", read.flag, True),
        offline=offline,
    )
    return _done(table, index)


#: How the table of an index of each kind is read.
_KINDS = {"proxy": _proxy_index, "hosted": _hosted_index, "group": _group_index}


def wrong_indexes(source: str, indexes: list[IndexSettings], upstreams: Mapping[str, UpstreamSettings]) -> list[str]:
    """What is wrong between tables that are right one by one."""
    mistakes = []
    first: dict[str, int] = {}
    for number, index in enumerate(indexes):
        if index.name and first.setdefault(index.name, number) != number:
            mistakes.append(
                f'{source}: index[{number}].name = "{index.name}": index[{first[index.name]}] has it already; expected another'
            )
        for name in index.upstreams:
            if name not in upstreams:
                known = ", ".join(sorted(upstreams))
                mistakes.append(
                    f'{source}: index[{number}].upstreams: there is no upstream "{name}"; expected a table [upstream.{name}]'
                    f" or one of: {known}"
                )
        mistakes += _wrong_members(f"{source}: index[{number}].members", index, indexes)
    defaults = [number for number, index in enumerate(indexes) if index.default]
    if indexes and not defaults:
        mistakes.append(f"{source}: index: none is the default; expected default = true in the one to be served at /simple/")
    return mistakes + [
        f"{source}: index[{number}].default = true: index[{defaults[0]}] is the default already; expected one"
        for number in defaults[1:]
    ]


def _wrong_members(key: str, group: IndexSettings, indexes: Sequence[IndexSettings]) -> list[str]:
    """What is wrong with the members of *group*."""
    by_name = {index.name: index for index in indexes}
    mistakes = [
        f'{key}: there is no index "{name}"; expected {_one_of(sorted(by_name.keys() - {group.name}))}'
        for name in group.members
        if name not in by_name
    ]
    way = _way_back(group, by_name, ())
    if way:
        mistakes.append(f"{key}: the group {' consists of '.join(way)}; expected groups that do not contain themselves")
    return mistakes


def _one_of(names: Sequence[str]) -> str:
    return "one of: " + ", ".join(names) if names else "another [[index]]"


def _way_back(index: IndexSettings, by_name: Mapping[str, IndexSettings], way: tuple[str, ...]) -> tuple[str, ...]:
    """The names from the first of *way* over *index* back to the first, if there is such a way."""
    if index.name in way:
        return (*way, index.name) if index.name == way[0] else ()
    members = (by_name[name] for name in index.members if name in by_name)
    return next((found for each in members if (found := _way_back(each, by_name, (*way, index.name)))), ())
