"""Readers of what is on the machine: paths, endpoints, certificates, and secrets in files and variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from proxy.config.readers import text
from proxy.config.tables import Reader, Spelled, Unacceptable
from proxy.core.endpoint import endpoint_of, escaped
from proxy.expressions import expression
from proxy.mechanism import secret_files

_CREDENTIALS = expression(r"\$(?:CREDENTIALS_DIRECTORY\b|\{CREDENTIALS_DIRECTORY\})")
_VARIABLE = expression(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Here(Struct, frozen=True):
    """Where paths begin: relative ones at *base*, the directory of the configuration file.

    *credentials* is the directory that the service manager has put this service's credentials in, as ``CREDENTIALS_DIRECTORY``
    in the environment (systemd.exec(5)); ``None`` without one.
    """

    base: Path
    credentials: str | None = None

    def expanded(self, text: str, written: Callable[[str], str] = str) -> str:
        """*text* with the directory, as *written* in it, in the place of the variable.  Raises Unacceptable."""
        if not _CREDENTIALS.search(text):
            return text
        directory = self.credentials
        if not directory:
            words = "credentials of the service (CREDENTIALS_DIRECTORY is not set: LoadCredential= in the unit sets it)"
            raise Unacceptable(words)
        return _CREDENTIALS.sub(lambda found: written(directory), text)


def path(here: Here) -> Reader[Path]:
    """A path from *here*; ``~`` is the home directory.  One in a variable is relative to the working directory."""

    def read(value: Any) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise Unacceptable("a path in quotes")
        try:
            found = Path(here.expanded(value)).expanduser()
            return found.absolute() if isinstance(value, Spelled) else here.base / found
        except (RuntimeError, OSError):
            raise Unacceptable("a path: the home directory is not known, write the path without ~") from None

    return read


def listen(here: Here) -> Reader[str]:
    """Where to listen, as a Twisted endpoint."""
    return lambda value: here.expanded(text(value), escaped)


def probe_listen(here: Here) -> Reader[str]:
    """Where to listen for probes: a port of TCP without TLS, or one that the service manager has opened."""
    read_endpoint = listen(here)

    def read(value: Any) -> str:
        found = read_endpoint(value)
        try:
            kind = endpoint_of(found).partition(":")[0]
        except ValueError:
            kind = ""
        if kind not in ("tcp", "tcp4", "tcp6", "systemd"):
            raise Unacceptable('a port of TCP without TLS, such as "127.0.0.1:3144" or "[::1]:3144"')
        return found

    return read


def readable_file(here: Here) -> Reader[Path]:
    """The path of a file that can be read now."""
    read_path = path(here)

    def read(value: Any) -> Path:
        found = read_path(value)
        try:
            found.open("rb").close()
        except OSError as error:
            raise Unacceptable(f"a file that can be read ({found}: {error.strerror})") from None
        return found

    return read


def authorities(here: Here) -> Reader[Path]:
    """A PEM file of certificates to trust."""
    read_file = readable_file(here)

    def read(value: Any) -> Path:
        import ssl

        found = read_file(value)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(found)
        except (ssl.SSLError, OSError):
            raise Unacceptable(f"a PEM file with at least one certificate ({found} has none that can be used)") from None
        return found

    return read


def certificate_fits(certificate: Path, key: Path | None) -> bool:
    """Whether *certificate* and *key* (or what *certificate* itself holds) are PEM, unencrypted, and belong together."""
    import ssl

    try:
        # An empty pass phrase: never ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError):
        return False
    return True


def secret_file(here: Here) -> Reader[tuple[Path | None, str]]:
    """The path of a file (``None`` for what can be read only once, such as a pipe), and its only line."""
    read_file = readable_file(here)

    def read(value: Any) -> tuple[Path | None, str]:
        found = read_file(value)
        try:
            return found if found.is_file() else None, secret_files.one_line(found.read_bytes())
        except OSError as error:
            raise Unacceptable(f"a text file that can be read ({found}: {error.strerror})") from None
        except ValueError as error:
            raise Unacceptable(f"a file whose only line is the secret ({found}: it {error})") from None

    return read


def secret_variable(environ: Mapping[str, str]) -> Reader[str]:
    """The value of the environment variable named."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            # Somebody may have put the secret itself here.
            raise Unacceptable("the name of an environment variable", "***")
        if value not in environ:
            raise Unacceptable("the name of a variable that is set in the environment of this process", "***")
        try:
            secret_files.check_secret(environ[value])
        except ValueError as error:
            raise Unacceptable(f"the name of an environment variable whose value is the secret (it {error})") from None
        return environ[value]

    return read
