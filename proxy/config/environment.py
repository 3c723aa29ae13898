"""Environment variables that set keys of the configuration: ``PYPIPROXY_<TABLE>__<KEY>``, with two underscores between.

Only the tables named here can be set.  Whatever else begins with ``PYPIPROXY_`` belongs to somebody else: Kubernetes, for one,
gives every container ``PYPIPROXY_PORT`` and ``PYPIPROXY_SERVICE_HOST`` when a service of its is called pypiproxy, and
``PYPIPROXY_SERVER__WEB_PORT`` when one is called pypiproxy-server--web.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from proxy.config.tables import ConfigTable, Spelled
from proxy.expressions import expression

#: The table ``[server]``, and that of the upstream which the default index prefers.
SERVER, UPSTREAM = "server", "upstream"
#: How the variables end that Kubernetes sets for each service; no key ends so.
_OF_KUBERNETES = expression(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)\Z|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?\Z")
#: Keys of an upstream that are only for the URL that they are beside.
_CREDENTIALS = ("username", "password_file", "password_env", "token_file", "token_env", "netrc", "client_cert", "client_key")


def variable(table: str, key: str) -> str:
    """The variable that sets *key* in *table*."""
    return f"PYPIPROXY_{table}__{key}".upper()


def values(table: str, environ: Mapping[str, str]) -> dict[str, Spelled]:
    """The keys of *table* that *environ* sets.  An empty variable sets nothing, nor does one of Kubernetes."""
    prefix = variable(table, "")
    return {
        name[len(prefix) :].lower(): Spelled(value)
        for name, value in environ.items()
        if name.startswith(prefix) and value and not _OF_KUBERNETES.search(name)
    }


def server(table: ConfigTable, environ: Mapping[str, str]) -> ConfigTable:
    """``[server]`` as *table* and *environ* have it."""
    return table.overridden(values(SERVER, environ), partial(variable, SERVER))


def upstream(table: ConfigTable, given: Mapping[str, Spelled]) -> ConfigTable:
    """The upstream of *table* with what is *given* in the environment.

    A URL that comes from there gets no credentials that the file has for another one.
    """
    return table.overridden(given, partial(variable, UPSTREAM), _CREDENTIALS if "url" in given else ())


def preferred(values: Mapping[str, Any]) -> str | None:
    """The name of the upstream that the default index of the file with these *values* prefers; ``None`` if it names none."""
    indexes = values.get("index")
    tables = [each for each in indexes if isinstance(each, dict)] if isinstance(indexes, list) else []
    default = next((each for each in tables if each.get("default") is True), tables[0] if len(tables) == 1 else {})
    names = default.get("upstreams")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
