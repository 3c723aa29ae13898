"""Where to listen, as people write it: ``3143``, ``127.0.0.1:3143``, ``[::1]:3143``, or a Twisted endpoint."""

from __future__ import annotations

import ipaddress
import re

#: Where the proxy listens unless told otherwise.
HOST, PORT = "127.0.0.1", 3143

_PORT = re.compile(r":?([0-9]{1,5})", re.ASCII)
_BRACKETED = re.compile(r"\[([^\]]*)\]:([0-9]{1,5})", re.ASCII)
#: A host name has a dot, or is this machine's own, so that it cannot be taken for the kind of an endpoint such as "tcp:3143".
_NAMED = re.compile(r"(\*|localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+):([0-9]{1,5})", re.ASCII)


def escaped(argument: str) -> str:
    """*argument* as it stands in a Twisted endpoint, whose arguments colons separate."""
    return argument.replace("\\", "\\\\").replace(":", "\\:")


def endpoint_of(text: str) -> str:
    """*text* as a Twisted endpoint.  What has none of the short forms is returned as it is.

    A port alone listens on all IPv4 addresses, as the endpoint ``tcp:3143`` does; ``[::]`` on all addresses of both kinds.
    Raises ValueError, which says what is wrong with a short form.
    """
    if found := _PORT.fullmatch(text):
        return f"tcp:{_port(found[1])}"
    if found := _BRACKETED.fullmatch(text):
        host = found[1].partition("%")[0]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address") from None
        return f"tcp6:{_port(found[2])}:interface={escaped(found[1])}"
    if found := _NAMED.fullmatch(text):
        port = _port(found[2])
        return f"tcp:{port}" if found[1] == "*" else f"tcp:{port}:interface={found[1]}"
    address = _address(text)
    if address is not None and address.version == 6 and not text.startswith("["):
        raise ValueError("an IPv6 address is written in brackets, and its port after it, such as [::1]:3143")
    if address is not None:
        raise ValueError(f"the port is missing: write {text}:{PORT}")
    return text


def of_port(port: str) -> str:
    """The endpoint of *port* on the default address.  Raises ValueError."""
    if not _PORT.fullmatch(port) or port.startswith(":"):
        raise ValueError("expected a number between 0 and 65535")
    return f"tcp:{_port(port)}:interface={HOST}"


def _port(digits: str) -> int:
    if int(digits) > 65535:
        raise ValueError(f"there is no port {digits}: ports are between 0 and 65535")
    return int(digits)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
