"""Whether anything can listen at an endpoint, and what to say and do if not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from twisted.internet.error import CannotListenError

from proxy.core.endpoint import endpoint_of
from proxy.errors import ConfigError
from proxy.mechanism.twisted_internals import parsed_endpoint

#: The arguments that kinds of endpoints take by position; what is not listed begins with the port.
_FIRST = {
    "tcp": ("port", "interface"),
    "tcp4": ("port", "interface"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": ("port", "privateKey", "certKey", "sslmethod", "interface"),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address",),
}
#: Why nothing can listen at a port, and what to do.
_UNUSABLE = {
    errno.EADDRINUSE: "port {port} is in use by another program: stop that program (ss -ltnp shows it) or choose another port",
    errno.EACCES: (
        "port {port} is privileged: choose a port from 1024, or give the proxy CAP_NET_BIND_SERVICE "
        "(AmbientCapabilities= in a systemd unit)"
    ),
    errno.EADDRNOTAVAIL: "no interface of this machine has the address {host}",
}
#: The same for who starts, who is told in the end to name another address.
_REFUSED = {
    errno.EADDRINUSE: "another program has port {port} (ss -ltnp shows it); stop it, or",
    errno.EACCES: "port {port} is privileged; give the proxy CAP_NET_BIND_SERVICE (AmbientCapabilities= in a systemd unit), or",
    errno.EADDRNOTAVAIL: "no interface of this machine has the address {host};",
}
#: Kinds of endpoints that listen at a port without TLS.
TCP = ("tcp", "tcp4", "tcp6")


def port_trouble(description: str) -> str | None:
    """Why nothing can listen at the endpoint *description* now, and what to do; ``None`` if something can, or it is not known.

    Nothing is left listening.  Known are ports of TCP and TLS, and sockets in the file system.
    """
    kind, values = _arguments(description)
    if kind == "unix":
        folder = Path(values.get("address", "")).absolute().parent
        return None if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not a directory that this user can write to"
    try:
        _try(kind, values)
    except OSError as error:
        reason = _UNUSABLE.get(error.errno or 0, f"{{host}} port {{port}}: {error.strerror}")
        return reason.format(port=values.get("port", ""), host=values.get("interface", ""))
    except (OverflowError, UnicodeError) as error:
        return f"{error}; expected a port from 1 to 65535 and the address of an interface"
    return None


def reached_at(description: str) -> tuple[str, int] | None:
    """The address and port at which this machine reaches who listens at the endpoint *description*.

    ``None`` for a socket in the file system, a port that is chosen at the start, and kinds that are not known here.
    """
    kind, values = _arguments(description)
    port, host = values.get("port", ""), values.get("interface", "")
    if kind not in (*TCP, "ssl", "tls") or not port.isdecimal() or port == "0":
        return None
    everywhere = {"": "::1" if kind == "tcp6" else "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    return everywhere.get(host, host), int(port)


def refuse_unusable(description: str, another: str | None = None) -> None:
    """Raise ConfigError, as `Listening.open` does, if a trial shows that nothing can listen at *description*.

    Nothing is left listening: it is for who has something to do before.  *another* says how another port is named.
    """
    try:
        _try(*_arguments(description))
    except OSError as error:
        raise cannot_listen(description, error, another_port(description) if another is None else another) from error
    except (OverflowError, UnicodeError):
        pass  # who listens there has better words for it


def _arguments(description: str) -> tuple[str, dict[str, str]]:
    """The kind of the endpoint that *description* names, and its arguments by name."""
    (kind, *given), named = parsed_endpoint(endpoint_of(description))
    return kind, {**dict(zip(_FIRST.get(kind, ("port",)), given, strict=False)), **named}


def _try(kind: str, values: Mapping[str, str]) -> None:
    """Listen for a moment at an endpoint of this *kind* with *values*, if it has a port of TCP.  Raises as sockets do."""
    port, host = values.get("port", ""), values.get("interface", "")
    if kind not in (*TCP, "ssl", "tls") or not port.isdecimal():
        return
    with socket.socket(socket.AF_INET6 if kind == "tcp6" or ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((host, int(port)))
        trial.listen(1)


def cannot_listen(description: str, error: Exception, another: str = "") -> ConfigError:
    """The message for who starts, when listening at *description* has ended with *error*; *another* ends it."""
    cause = _cause(error)
    _, values = _arguments(description)
    advice = _REFUSED.get(cause.errno or 0) if isinstance(cause, OSError) else None
    told = "" if advice is None else f": {advice.format(port=values.get('port', ''), host=values.get('interface', ''))}"
    return ConfigError(
        f'"{description}": cannot listen there: {reason_of(error)}{told or ";"} name an address of this machine that is free'
        f"{another}"
    )


def another_port(description: str) -> str:
    """The option for another port to listen on, if *description* names a port."""
    return ", for example --port 3144" if endpoint_kind(description) in TCP and ":3144" not in endpoint_of(description) else ""


def endpoint_kind(description: str) -> str:
    """The kind of the endpoint that *description* names."""
    return endpoint_of(description).partition(":")[0]


def _cause(error: Exception) -> Exception:
    cause: Exception = error.socketError if isinstance(error, CannotListenError) else error
    return cause


def reason_of(error: Exception) -> str:
    """What *error* says, without the repetition of what was asked."""
    cause = _cause(error)
    if isinstance(cause, socket.gaierror):
        return f"the interface's name is not known: {cause.strerror}"
    if isinstance(cause, OSError) and cause.strerror:
        file = cause.filename2 or cause.filename
        return f"{cause.strerror}: {file}" if file else cause.strerror
    return str(cause) or type(cause).__name__
