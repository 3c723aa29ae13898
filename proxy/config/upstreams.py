"""``[upstream.NAME]``: where an index gets its pages and files, with which credentials and limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.config import files
from proxy.config import readers as read
from proxy.config.tables import ConfigTable, Unacceptable
from proxy.mechanism.secret_files import netrc_entry
from proxy.settings import UpstreamSettings


def upstream_settings(name: str, table: ConfigTable, here: files.Here, environ: Mapping[str, str]) -> UpstreamSettings:
    """What ``[upstream.NAME]`` says."""
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
        ca_file=table.take("ca_file", files.authorities(here), None),
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


def _credentials(table: ConfigTable, url: str, here: files.Here, environ: Mapping[str, str]) -> dict[str, Any]:
    """The credentials, from the one place that names them, by the fields of UpstreamSettings."""
    username = table.take("username", read.text, None)
    absent: tuple[Path | None, str | None] = (None, None)
    password_file, password = table.take("password_file", files.secret_file(here), absent)
    password = table.take("password_env", files.secret_variable(environ), password)
    token_file, token = table.take("token_file", files.secret_file(here), absent)
    token = table.take("token_env", files.secret_variable(environ), token)
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


def _certificate(table: ConfigTable, here: files.Here) -> tuple[Path | None, Path | None]:
    certificate = table.take("client_cert", files.readable_file(here), None)
    key = table.take("client_key", files.readable_file(here), None)
    if "client_key" in table and "client_cert" not in table:
        table.complain("client_key", "there is no certificate to it; expected client_cert beside it")
    elif certificate and ("client_key" not in table or key) and not files.certificate_fits(certificate, key):
        table.complain("client_cert", "expected PEM files: a certificate and the unencrypted key that belongs to it")
    return certificate, key
