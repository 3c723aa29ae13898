"""What to set in each installer, and in each server that mirrors an index, so that it asks this proxy and nothing else.

Pure text: ``pypiproxy client-config`` prints it, ``docs/clients.md`` shows it, and the tests with real clients
(``tests/clients``) are configured with it.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.core.bypasses import cautions
from proxy.core.roots import index_root

#: What the index is called in files where it must have a name.
NAME = "pypiproxy"
ENVIRONMENT = "environment"
COMMAND = "command"


class Address(Struct, frozen=True):
    """Where clients find the proxy."""

    #: ``scheme://host[:port][/prefix]``, without a slash at its end.
    base: str
    #: The simple index, ending in ``/``.
    index: str
    #: A file with the authority that signed the proxy's certificate; ``None``: one that every system trusts.
    ca_file: str | None = None

    @classmethod
    def of(cls, url: str, index: str | None = None, ca_file: str | None = None) -> Address:
        """The address of *index* (``None``: the default one) of the proxy at *url*.  Raises ValueError.

        A ``simple/`` at the end of *url* is overlooked, since that is what people have at hand.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected http:// or https://, a host and perhaps a port")
        if ca_file is not None and parts.scheme != "https":
            raise ValueError("there is a certificate to check over https only")
        base = url.rstrip("/").removesuffix("/simple").rstrip("/")
        return cls(base, f"{base}/simple/" if index is None else f"{base}{index_root(index)}simple/", ca_file)

    @property
    def host(self) -> str:
        """Host and port, as the URL has them."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    @property
    def plain(self) -> bool:
        """Without TLS."""
        return self.base.startswith("http://")

    @property
    def doubted(self) -> bool:
        """Plain http to another host than this one: pip and its kin refuse that until told otherwise."""
        if not self.plain:
            return False
        name = urlsplit(self.base).hostname or ""
        try:
            return not ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name != "localhost"


class Setting(Struct, frozen=True):
    """One way to configure a client, or a part of it."""

    #: `ENVIRONMENT`, `COMMAND`, or the name of the file to put the text into.
    where: str
    #: What it is about, in one line.
    about: str
    text: str

    @property
    def variables(self) -> dict[str, str]:
        """Values by name, of an environment."""
        words = (shlex.split(line) for line in self.text.splitlines())
        return dict(word.split("=", 1) for _, word in words)


def settings(client: str, address: Address) -> tuple[Setting, ...]:
    """How *client*, one of `CLIENTS`, is pointed at *address*.  Raises ValueError when it cannot be."""
    return CLIENTS[client](address)


def printed(client: str, address: Address) -> str:
    """The same as text: each setting under a comment that says where it goes, then what to look for beside them."""
    blocks = [f"# {each.where}: {each.about}\n{each.text}" for each in settings(client, address)]
    notes = "".join(f"# note: {each}\n" for each in cautions(client))
    return "\n".join([*blocks, *([notes] if notes else [])])


def _environment(about: str, variables: Mapping[str, str | None]) -> Setting:
    """Those of *variables* that have a value."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value is not None]
    return Setting(ENVIRONMENT, about, "\n".join(lines) + "\n")


def _file(name: str, about: str, *lines: str | None) -> Setting:
    """A file of those of *lines* that there are."""
    return Setting(name, about, "\n".join(line for line in lines if line is not None) + "\n")


def _quoted(text: str) -> str:
    """As a TOML basic string, which JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def _command(about: str, *commands: str) -> Setting:
    return Setting(COMMAND, about, "\n".join(commands) + "\n")


def _pip_variables(address: Address) -> dict[str, str | None]:
    return {
        "PIP_INDEX_URL": address.index,
        "PIP_TRUSTED_HOST": address.host if address.doubted else None,
        "PIP_CERT": address.ca_file,
    }


def _pip(address: Address) -> tuple[Setting, ...]:
    return (
        _environment("pip, and what runs pip", _pip_variables(address)),
        _file(
            "pip.conf",
            "/etc/pip.conf for everyone, ~/.config/pip/pip.conf for one user",
            "[global]",
            f"index-url = {address.index}",
            f"trusted-host = {address.host}" if address.doubted else None,
            f"cert = {address.ca_file}" if address.ca_file else None,
        ),
    )


def _uv(address: Address) -> tuple[Setting, ...]:
    table = (f"url = {_quoted(address.index)}", "default = true")
    return (
        _environment("every uv command", {"UV_DEFAULT_INDEX": address.index, "SSL_CERT_FILE": address.ca_file}),
        _file("uv.toml", "/etc/uv/uv.toml for everyone, ~/.config/uv/uv.toml for one user", "[[index]]", *table),
        _file("pyproject.toml", "one project", "[[tool.uv.index]]", *table),
    )


def _poetry(address: Address) -> tuple[Setting, ...]:
    source = _file(
        "pyproject.toml",
        "the source that takes the public index's place",
        "[[tool.poetry.source]]",
        f'name = "{NAME}"',
        f"url = {_quoted(address.index)}",
        'priority = "primary"',
    )
    if address.ca_file is None:
        return (source,)
    return (
        source,
        _environment("the authority of that source", {f"POETRY_CERTIFICATES_{NAME.upper()}_CERT": address.ca_file}),
    )


def _pdm(address: Address) -> tuple[Setting, ...]:
    return (
        _environment(
            "every pdm command",
            {
                "PDM_PYPI_URL": address.index,
                "PDM_PYPI_VERIFY_SSL": "false" if address.doubted else None,
                "REQUESTS_CA_BUNDLE": address.ca_file,
            },
        ),
        _file(
            "config.toml",
            "/etc/xdg/pdm/config.toml for everyone, ~/.config/pdm/config.toml for one user",
            "[pypi]",
            f"url = {_quoted(address.index)}",
            "verify_ssl = false" if address.doubted else None,
            f"ca_certs = {_quoted(address.ca_file)}" if address.ca_file else None,
        ),
        _file(
            "pyproject.toml",
            "one project",
            "[[tool.pdm.source]]",
            'name = "pypi"',
            f"url = {_quoted(address.index)}",
            f"verify_ssl = {str(not address.doubted).lower()}",
        ),
    )


def _pipenv(address: Address) -> tuple[Setting, ...]:
    return (
        _file(
            "Pipfile",
            "the only source",
            "[[source]]",
            f'name = "{NAME}"',
            f"url = {_quoted(address.index)}",
            f"verify_ssl = {str(not address.doubted).lower()}",
        ),
        _environment(
            "instead of the public index that a Pipfile names, and for builds",
            {
                "PIPENV_PYPI_MIRROR": address.index,
                **_pip_variables(address),
                "REQUESTS_CA_BUNDLE": address.ca_file,
            },
        ),
    )


def _pip_tools(address: Address) -> tuple[Setting, ...]:
    return (_environment("pip-compile and pip-sync, which read pip.conf too", _pip_variables(address)),)


def _hatch(address: Address) -> tuple[Setting, ...]:
    variables = {**_pip_variables(address), "UV_DEFAULT_INDEX": address.index, "SSL_CERT_FILE": address.ca_file}
    return (_environment("hatch runs pip or uv, whichever an environment's installer names", variables),)


def _buildout(address: Address) -> tuple[Setting, ...]:
    return (
        _file("buildout.cfg", "where releases are looked for", "[buildout]", f"index = {address.index}"),
        _environment(
            "buildout also runs pip, which asks the public index beside it unless told otherwise",
            {**_pip_variables(address), "SSL_CERT_FILE": address.ca_file},
        ),
    )


def _bandersnatch(address: Address) -> tuple[Setting, ...]:
    if urlsplit(address.index).path != "/simple/":
        raise ValueError("bandersnatch can mirror the default index alone, of a proxy at the root of its host")
    file = _file(
        "bandersnatch.conf",
        "what to mirror; the rest of [mirror] is yours",
        "[mirror]",
        f"master = {address.base}",
        "api-method = simple",
        "allow-non-https = true" if address.plain else None,
    )
    return (file, *_authority(address))


def _devpi(address: Address) -> tuple[Setting, ...]:
    commands = _command(
        "root/pypi as a mirror of the proxy, after devpi-init --no-root-pypi",
        "devpi login root",
        f"devpi index -c root/pypi type=mirror mirror_url={shlex.quote(address.index)}",
    )
    return (commands, *_authority(address, "REQUESTS_CA_BUNDLE"))


def _simple_repository_server(address: Address) -> tuple[Setting, ...]:
    return (
        _command("the proxy as its only source", f"simple-repository-server {shlex.quote(address.index)}"),
        *_authority(address),
    )


def _authority(address: Address, variable: str = "SSL_CERT_FILE") -> tuple[Setting, ...]:
    """*variable*, for servers that have no other setting."""
    if address.ca_file is None:
        return ()
    return (_environment("the proxy's authority, instead of the system's", {variable: address.ca_file}),)


CLIENTS: Mapping[str, Callable[[Address], tuple[Setting, ...]]] = {
    "pip": _pip,
    "uv": _uv,
    "poetry": _poetry,
    "pdm": _pdm,
    "pipenv": _pipenv,
    "pip-tools": _pip_tools,
    "hatch": _hatch,
    "buildout": _buildout,
    "bandersnatch": _bandersnatch,
    "devpi": _devpi,
    "simple-repository-server": _simple_repository_server,
}
