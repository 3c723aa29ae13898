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

from proxy.config import environment
from proxy.config import readers as read
from proxy.config.access import access_settings, grant_settings, wrong_access, wrong_grants, wrong_principals
from proxy.config.ci import ci_settings, wrong_rules
from proxy.config.mistakes import Mistakes
from proxy.config.places import listen_entries, where
from proxy.config.syntax import syntax_mistake
from proxy.config.tables import ConfigTable, Unacceptable, mistake, shown_value
from proxy.core.endpoint import escaped
from proxy.core.near import nearest
from proxy.core.roots import ANY_SIMPLE
from proxy.errors import ConfigError
from proxy.mechanism.secret_files import netrc_entry
from proxy.settings import (
    LEAST_INTERVAL,
    GroupSettings,
    HostedSettings,
    IndexSettings,
    PageLimits,
    ServerSettings,
    Settings,
    UpstreamSettings,
    WarmSettings,
)

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
    upstreams = {name: _upstream(name, table, here, environ) for name, table in tables.items()}
    indexes = [_index(table, here) for table in root.array("index")]
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
    mistakes += _contradictions(source, indexes, upstreams)
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
            given = table.take("data_dir", read.path(_here(path, environ)), None)
        except ConfigError:
            return None
        if mistakes:
            return None
    return _absolute(given or default_data_dir())


def _here(path: Path | None, environ: Mapping[str, str]) -> read.Here:
    """Where the paths in the file at *path* begin."""
    return read.Here(_absolute(Path() if path is None else path.parent), environ.get("CREDENTIALS_DIRECTORY"))


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


def _server(table: ConfigTable, here: read.Here, chosen: Path | None) -> ServerSettings:
    stated = table.take("data_dir", read.path(here), None)
    known = ServerSettings(data_dir=chosen or stated or default_data_dir())
    server = ServerSettings(
        data_dir=known.data_dir,
        listen=table.take("listen", read.several(read.listen(here)), known.listen),
        metrics_listen=table.take("metrics_listen", read.several(read.listen(here)), known.metrics_listen),
        metrics_for=table.take("metrics_for", read.several(read.principal), known.metrics_for),
        probe_listen=table.take("probe_listen", read.several(read.probe_listen(here)), known.probe_listen),
        dashboard=table.take("dashboard", read.flag, known.dashboard),
        dashboard_listen=table.take("dashboard_listen", read.several(read.listen(here)), known.dashboard_listen),
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


def _upstream(name: str, table: ConfigTable, here: read.Here, environ: Mapping[str, str]) -> UpstreamSettings:
    try:
        read.name(name)
    except Unacceptable as problem:
        table.complain("NAME", f"the table's name is to be {problem.expected}")
    if name != read.PUBLIC:
        table.require("url", f'the URL of a simple index, or "{read.PUBLIC}" for the public one')
    known = UpstreamSettings(name=name, url=read.public_url())
    url = table.take("url", read.index_url, known.url)
    credentials = _credentials(table, url, here, environ)
    certificate, key = _certificate(table, here)
    upstream = UpstreamSettings(
        name=name,
        url=url,
        **credentials,
        ca_file=table.take("ca_file", read.authorities(here), None),
        client_cert=certificate,
        client_key=key,
        outbound_proxy=table.take("outbound_proxy", read.outbound_proxy, None),
        connect_timeout=table.take("connect_timeout", read.time_span(), known.connect_timeout),
        first_byte_timeout=table.take("first_byte_timeout", read.time_span(), known.first_byte_timeout),
        body_idle_timeout=table.take("body_idle_timeout", read.time_span(), known.body_idle_timeout),
        max_connections=table.take("max_connections", read.whole_number(1), known.max_connections),
        max_queue=table.take("max_queue", read.whole_number(0), known.max_queue),
        max_rate=table.take("max_rate", read.unless("unlimited", read.rate), known.max_rate),
        partial=table.take("partial", read.flag, known.partial),
        authoritative=table.take("authoritative", read.flag, known.authoritative),
        forbidden=table.take("forbidden", read.choice("auto", "missing", "failure"), known.forbidden),
        redirect_hosts=table.take("redirect_hosts", read.unless("none", read.several(read.file_host)), known.redirect_hosts),
        max_lag=table.take("max_lag", read.unless("off", read.time_span()), known.max_lag),
        file_hosts=table.take("file_hosts", read.unless("any", read.several(read.file_host)), known.file_hosts),
        allow_private_addresses=table.take("allow_private_addresses", read.flag, known.allow_private_addresses),
    )
    table.done()
    return upstream


def _credentials(table: ConfigTable, url: str, here: read.Here, environ: Mapping[str, str]) -> dict[str, Any]:
    """The credentials, from the one place that names them, by the fields of UpstreamSettings."""
    username = table.take("username", read.text, None)
    absent: tuple[Path | None, str | None] = (None, None)
    password_file, password = table.take("password_file", read.secret_file(here), absent)
    password = table.take("password_env", read.secret_variable(environ), password)
    token_file, token = table.take("token_file", read.secret_file(here), absent)
    token = table.take("token_env", read.secret_variable(environ), token)
    use_netrc = table.take("netrc", read.flag, False)
    ways = ("password_file", "password_env", "token_file", "token_env")
    named = [way for way in ways if way in table] + ["netrc"] * use_netrc
    if len(named) > 1:
        table.complain(named[1], f"{named[0]} is there too; expected one of them")
    if use_netrc:
        if "username" in table:
            table.complain("username", "netrc = true brings its own; expected one of them")
        return _from_netrc(table, url, environ)
    if any(way in table for way in ("password_file", "password_env")):
        table.require("username", "the name that goes with the password")
    elif "username" in table:
        table.complain("username", "there is no password to it; expected password_file or password_env beside it")
    return {
        "username": username,
        "password": password,
        "password_file": password_file,
        "token": token,
        "token_file": token_file,
    }


def _from_netrc(table: ConfigTable, url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    file = Path(environ["NETRC"]) if environ.get("NETRC") else Path("~/.netrc").expanduser()
    try:
        login, password = netrc_entry(file, urlsplit(url).hostname or "")
    except OSError as error:
        table.complain("netrc", f"{file} cannot be read: {error.strerror}")
    except ValueError as error:
        table.complain("netrc", f"{file} {error}")
    else:
        return {"username": login, "password": password, "netrc": file if file.is_file() else None}
    return {}


def _certificate(table: ConfigTable, here: read.Here) -> tuple[Path | None, Path | None]:
    certificate = table.take("client_cert", read.readable_file(here), None)
    key = table.take("client_key", read.readable_file(here), None)
    if "client_key" in table and "client_cert" not in table:
        table.complain("client_key", "there is no certificate to it; expected client_cert beside it")
    elif certificate and ("client_key" not in table or key) and not read.certificate_fits(certificate, key):
        table.complain("client_cert", "expected PEM files: a certificate and the unencrypted key that belongs to it")
    return certificate, key


def _index(table: ConfigTable, here: read.Here) -> IndexSettings:
    table.require("name", f"the name this index is served under: {ANY_SIMPLE}")
    kind = table.take("kind", read.choice(*_KINDS), "proxy")
    return _KINDS[kind](table, here)


def _hosted_index(table: ConfigTable, here: read.Here) -> IndexSettings:
    known = HostedSettings()
    hosted = HostedSettings(
        path=table.take("path", read.path(here), known.path),
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


def _group_index(table: ConfigTable, here: read.Here) -> IndexSettings:
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


def _proxy_index(table: ConfigTable, here: read.Here) -> IndexSettings:
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


def _warm(table: ConfigTable, here: read.Here) -> WarmSettings:
    known = WarmSettings()
    warm = WarmSettings(
        files=table.take("files", read.several(read.readable_file(here)), known.files),
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


def _contradictions(source: str, indexes: list[IndexSettings], upstreams: Mapping[str, UpstreamSettings]) -> list[str]:
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


def _listen(given: Sequence[str], here: read.Here, mistakes: list[str]) -> tuple[str, ...]:
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
