"""The configuration: a TOML file, the environment and the command line, checked whole, become :class:`proxy.settings.Settings`.

Every mistake is found in one reading; `load` raises one :class:`proxy.errors.ConfigError` that lists them all, each with its
file, key, value and what is expected.  Secrets are read from files and the environment here, and never appear in a message.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from proxy.config import environment, files
from proxy.config import readers as read
from proxy.config.access import access_settings, grant_settings, wrong_access, wrong_grants, wrong_principals
from proxy.config.ci import ci_settings, wrong_rules
from proxy.config.indexes import index_settings, wrong_indexes
from proxy.config.mistakes import Mistakes
from proxy.config.places import listen_entries, where
from proxy.config.syntax import syntax_mistake
from proxy.config.tables import ConfigTable, Unacceptable, mistake, shown_value
from proxy.config.upstreams import upstream_settings
from proxy.core.endpoint import escaped
from proxy.core.near import nearest
from proxy.errors import ConfigError
from proxy.settings import LEAST_INTERVAL, IndexSettings, ServerSettings, Settings, UpstreamSettings, WarmSettings

__all__ = ["CommandLine", "data_directory", "default_data_dir", "load", "where"]


class CommandLine(Struct, frozen=True, kw_only=True):
    """What the command line says; it overrides the environment and the file.  Empty means unsaid."""

    listen: tuple[str, ...] = ()
    data_dir: Path | None = None
    #: Names or URLs for the default index, in order of preference.
    upstreams: tuple[str, ...] = ()


_NOTHING = CommandLine()


def default_data_dir() -> Path:
    """The user's data directory."""
    import platformdirs

    return Path(platformdirs.user_data_dir("pypiproxy", appauthor=False))


def load(
    path: Path | None,
    command_line: CommandLine = _NOTHING,
    environ: Mapping[str, str] = os.environ,
    check: Callable[[str], object] = lambda endpoint: None,
) -> Settings:
    """The settings of the file at *path* (``None``: no file, so the public index alone), of *environ* and of *command_line*.

    The command line overrides the environment (see :mod:`proxy.config.environment`), which overrides the file.  *check* raises
    ConfigError for an endpoint at which nothing can listen.

    Raises ConfigError.
    """
    source = str(path)
    values = {} if path is None else _parse(path)
    here = _here(path, environ)
    mistakes: list[str] = []
    root = ConfigTable(values, source, "", mistakes)

    server = _server(environment.server(root.table("server"), environ), here, command_line.data_dir)
    given = {} if command_line.upstreams else environment.values(environment.UPSTREAM, environ)
    preferred = environment.preferred(values)
    tables = dict(root.tables("upstream"))
    if given and preferred in (None, read.PUBLIC):
        preferred = read.PUBLIC
        tables.setdefault(preferred, ConfigTable({}, source, f"upstream.{preferred}", mistakes))
    if given and preferred in tables:
        tables[preferred] = environment.upstream(tables[preferred], given)
    upstreams = {name: upstream_settings(name, table, here, environ) for name, table in tables.items()}
    indexes = [index_settings(table, here) for table in root.array("index")]
    warm = _warm(root.table("warm"), here) if "warm" in root else None
    access = access_settings(root.table("access"), here, environ)
    grants = tuple(grant_settings(table) for table in root.array("grant"))
    ci = ci_settings(root.table("ci"), here) if "ci" in root else None
    root.done()

    if not indexes and not command_line.upstreams:
        mistakes += [
            f'{source}: upstream.{unused}: no index uses it; add an [[index]] with upstreams = ["{unused}"]'
            for unused in upstreams
            if unused != read.PUBLIC
        ]
    if "index" not in values:
        indexes = [IndexSettings(name=read.PUBLIC, upstreams=(read.PUBLIC,))]
    if len(indexes) == 1:
        indexes = [replace(indexes[0], default=True)]
    upstreams.setdefault(read.PUBLIC, UpstreamSettings(name=read.PUBLIC, url=read.public_url()))
    mistakes += wrong_indexes(source, indexes, upstreams)
    mistakes += wrong_access(source, access, server.trusted_proxies)
    jobs = [] if ci is None else [each.name for each in ci.rules]
    mistakes += wrong_grants(source, grants, access.groups, indexes, jobs)
    mistakes += wrong_principals(f"{source}: server.metrics_for", server.metrics_for, access.groups, jobs)
    mistakes += [] if ci is None else wrong_rules(source, ci, indexes)
    listen = _listen(command_line.listen, here, mistakes) or server.listen
    chosen = _preferred(command_line.upstreams, upstreams, mistakes)
    if chosen or given:
        by = "--upstream" if chosen else environment.variable(environment.UPSTREAM, next(iter(given)))
        mistakes += [
            f"{source}: index.{index.name} is {what} and the default index, and {by} is for that one: leave out either"
            for index in indexes
            for what in ["offline" if index.offline else f"a {index.kind} index"]
            if index.default and (index.offline or index.kind != "proxy")
        ]
    found = Mistakes()
    found.add(mistakes)
    for each in listen_entries(replace(server, listen=listen), path, environ, given=bool(command_line.listen)):
        with found.at(each.where):
            check(each.endpoint)
    found.refuse()

    indexes = [replace(index, upstreams=chosen) if chosen and index.default else index for index in indexes]
    used = {name for index in indexes if not index.offline for name in index.upstreams}
    return Settings(
        server=replace(server, listen=listen, data_dir=_absolute(server.data_dir)),
        upstreams=tuple(upstream for name, upstream in upstreams.items() if name in used),
        indexes=tuple(indexes),
        warm=warm,
        access=access,
        grants=grants,
        ci=ci,
    )


def data_directory(path: Path | None, given: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the data is, by an option that is *given*, by *environ* or by the file at *path*; nothing else of it is looked at.

    ``None`` where that takes a look at all of it, for it is wrong or says nothing about this.
    """
    if given is None:
        mistakes: list[str] = []
        try:
            values = {} if path is None else _parse(path)
            table = environment.server(ConfigTable(values, str(path), "", mistakes).table("server"), environ)
            given = table.take("data_dir", files.path(_here(path, environ)), None)
        except ConfigError:
            return None
        if mistakes:
            return None
    return _absolute(given or default_data_dir())


def _here(path: Path | None, environ: Mapping[str, str]) -> files.Here:
    """Where the paths in the file at *path* begin."""
    return files.Here(_absolute(Path() if path is None else path.parent), environ.get("CREDENTIALS_DIRECTORY"))


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError as error:
        raise ConfigError(f"the working directory cannot be found: {error.strerror}; expected one that is there") from error


def _parse(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a configuration file in TOML") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); expected a configuration file in TOML") from error
    except ValueError as error:
        raise ConfigError(
            f"{shown_value(str(path))}: is not the name of a file; expected a configuration file in TOML"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {syntax_mistake(text, error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: lists or tables are nested too deeply; expected a configuration file in TOML") from error


def _server(table: ConfigTable, here: files.Here, chosen: Path | None) -> ServerSettings:
    stated = table.take("data_dir", files.path(here), None)
    known = ServerSettings(data_dir=chosen or stated or default_data_dir())
    server = ServerSettings(
        data_dir=known.data_dir,
        listen=table.take("listen", read.several(files.listen(here)), known.listen),
        metrics_listen=table.take("metrics_listen", read.several(files.listen(here)), known.metrics_listen),
        metrics_for=table.take("metrics_for", read.several(read.principal), known.metrics_for),
        probe_listen=table.take("probe_listen", read.several(files.probe_listen(here)), known.probe_listen),
        dashboard=table.take("dashboard", read.flag, known.dashboard),
        dashboard_listen=table.take("dashboard_listen", read.several(files.listen(here)), known.dashboard_listen),
        contact=table.take("contact", read.contact, known.contact),
        stop_pause=table.take("stop_pause", read.time_span(zero=True), known.stop_pause),
        drain_time=table.take("drain_time", read.time_span(zero=True), known.drain_time),
        max_connections=table.take("max_connections", read.whole_number(1), known.max_connections),
        max_waiting=table.take("max_waiting", read.whole_number(1), known.max_waiting),
        idle_timeout=table.take("idle_timeout", read.time_span(), known.idle_timeout),
        stall_timeout=table.take("stall_timeout", read.time_span(), known.stall_timeout),
        trusted_proxies=table.take("trusted_proxies", read.several(read.network), known.trusted_proxies),
        page_memory=table.take("page_memory", read.byte_size, known.page_memory),
        max_size=table.take("max_size", read.unless("unlimited", read.room), known.max_size),
        min_free=table.take("min_free", read.unless("off", read.room), known.min_free),
    )
    table.done()
    return server


def _warm(table: ConfigTable, here: files.Here) -> WarmSettings:
    known = WarmSettings()
    warm = WarmSettings(
        files=table.take("files", read.several(files.readable_file(here)), known.files),
        projects=table.take("projects", read.several(read.requirement), known.projects),
        recent=table.take("recent", read.unless("off", read.time_span()), known.recent),
        interval=table.take("interval", read.at_least(LEAST_INTERVAL, read.time_span()), known.interval),
        python=table.take("python", read.several(read.text), known.python),
        platform=table.take("platform", read.several(read.text), known.platform),
        pin=table.take("pin", read.flag, known.pin),
    )
    from proxy.warm.targets import BadTarget, targets  # it takes a while to load, and few configurations have this table

    try:
        targets(warm.python, warm.platform, "cp")
    except BadTarget as error:
        table.complain("python" if "--python" in str(error) else "platform", str(error).partition(": ")[2])
    table.done()
    return warm


def _listen(given: Sequence[str], here: files.Here, mistakes: list[str]) -> tuple[str, ...]:
    """The endpoints that the command line gave."""
    found = []
    for each in given:
        try:
            found.append(here.expanded(each, escaped))
        except Unacceptable as problem:
            mistakes.append(mistake("--listen", each, problem))
    return tuple(found)


def _preferred(given: Sequence[str], upstreams: dict[str, UpstreamSettings], mistakes: list[str]) -> tuple[str, ...]:
    """The names of the upstreams that the command line gave by name or URL; those given by a new URL are added."""
    names: list[str] = []
    for each in given:
        if each in upstreams:
            names.append(each)
            continue
        try:
            url = read.index_url(each)
        except Unacceptable as problem:
            known = ", ".join(f'"{name}"' for name in sorted(upstreams) if name != read.PUBLIC)
            near = nearest(each, upstreams, cutoff=0.5)
            expected = f"{problem.expected}{f', or one of {known}' if known else ''}"
            expected += f'; did you mean "{near}"?' if near else ""
            mistakes.append(mistake("--upstream", each, Unacceptable(expected, problem.shown)))
            continue
        same = next((upstream.name for upstream in upstreams.values() if upstream.url == url), None)
        if same is None:
            same = _new_name(url, upstreams)
            upstreams[same] = UpstreamSettings(name=same, url=url, of_command_line=True)
        names.append(same)
    return tuple(dict.fromkeys(names))


def _new_name(url: str, taken: Mapping[str, object]) -> str:
    """A name for the upstream at *url*: its host, with the port and a number where that is needed."""
    parts = urlsplit(url)
    host = (parts.hostname or "").replace(":", "-").strip("-._")
    name = host if parts.port is None else f"{host}-{parts.port}"
    candidates = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(candidate for candidate in candidates if candidate not in taken)
