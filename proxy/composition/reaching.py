"""Where this process, and who warms it from outside, ask it for pages and files, as a part of it that may read everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from proxy.access.principals import WARM
from proxy.composition.accounts import AccessRoom
from proxy.errors import BadRequest, ConfigError
from proxy.host.listening import Listening
from proxy.interfaces import Operation, Report


class Reaching:
    """Reaches the proxy at one of *listenings*, as a principal that the present *access* knows."""

    def __init__(self, listenings: Callable[[], Iterable[Listening]], access: Callable[[], AccessRoom]) -> None:
        self._listenings = listenings
        self._access = access

    @property
    def operations(self) -> Mapping[str, Operation]:
        """What operators may ask for."""
        return {"warm": self.warm}

    def require(self) -> Listening:
        """The first listener that can be asked over http.  Raises ConfigError."""
        plain = next((each for each in self._listenings() if each.plain), None)
        if plain is None:
            raise ConfigError("warm: the proxy asks itself over http for it; expected a tcp: endpoint in server.listen")
        return plain

    def url(self) -> str:
        """The default index, with a password by which its bearer may read everything; listeners are open.

        Raises ConfigError.
        """
        return self._access().entrusted(self.require().local_url(), WARM)

    async def warm(self, report: Report) -> str:
        """:meth:`url`, for a command on this host that warms the cache.  The password ends with this process.

        Raises BadRequest if this proxy cannot be asked over http.
        """
        try:
            return self.url()
        except ConfigError as error:
            raise BadRequest("this proxy listens only with TLS or at sockets in the file system") from error
