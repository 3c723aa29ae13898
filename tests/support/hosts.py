"""Names of hosts at loopback addresses, known to one process alone: neither a name server nor ``/etc/hosts`` takes part.

`Hosts` answers for its own names, and for every other name below ``.example``, none of which can be resolved.
``tests.support.resolving`` installs it in a reactor; a process of its own gets it by its command:

``python -m tests.support.hosts index.example=127.0.0.1,127.0.0.2 gone.example= -- --nodaemon pypiproxy …`` runs ``twistd``.
"""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_OWN = ".example"


class Hosts:
    """The addresses of *names*; a name without any cannot be resolved.

    With *turning*, each answer begins with the next address, as those of name servers with several addresses do.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], *, turning: bool = False) -> None:
        self._names = names
        self._turning = turning
        self._turns = itertools.count()

    def knows(self, name: str) -> bool:
        """Whether it is the one to say where *name* is, or that it is nowhere."""
        return name in self._names or name.endswith(_OWN)

    def addresses(self, name: str) -> list[str]:
        """Where *name* is; nothing: it cannot be resolved."""
        found = list(self._names.get(name, ()))
        first = next(self._turns) % len(found) if self._turning and found else 0
        return found[first:] + found[:first]

    def install(self) -> None:
        """Have this process resolve names here first: whoever imports ``socket.getaddrinfo`` from now on, or looks it up."""
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
            name = host.decode("ascii") if isinstance(host, bytes) else host
            if not isinstance(name, str) or not self.knows(name):
                return real(host, port, family, type, proto, flags)
            found = [
                entry
                for address in self.addresses(name)
                if family in (socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET)
                for entry in real(address, port, family, type, proto, flags)
            ]
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return found

        socket.getaddrinfo = getaddrinfo


def parsed(arguments: Sequence[str]) -> dict[str, list[str]]:
    """``name=address,address`` each; no address: the name cannot be resolved."""
    names = {}
    for each in arguments:
        name, _, addresses = each.partition("=")
        names[name] = [address for address in addresses.split(",") if address]
    return names


def written(names: Mapping[str, Sequence[str]]) -> list[str]:
    """What :func:`parsed` reads."""
    return [f"{name}={','.join(addresses)}" for name, addresses in names.items()]


def main(arguments: Sequence[str]) -> None:
    """Run ``twistd`` with what comes after ``--``, names resolved as what comes before says."""
    middle = list(arguments).index("--")
    Hosts(parsed(arguments[:middle]), turning=True).install()
    # Not before: Twisted keeps the getaddrinfo that it finds when it is imported.
    from twisted.scripts.twistd import run

    sys.argv = ["twistd", *arguments[middle + 1 :]]
    run()


if __name__ == "__main__":
    main(sys.argv[1:])
