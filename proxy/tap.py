"""``twistd pypiproxy``: the command line, and the service that twistd runs.

Everything that can be wrong with the configuration, the data directory and the ports is found here, while twistd is still in
the foreground: one message on standard error, exit status 1, no traceback.
"""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, IServiceCollection, MultiService
from twisted.internet import defer
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

import proxy
from proxy import config
from proxy.config.mistakes import Mistakes
from proxy.core.endpoint import of_port
from proxy.errors import ConfigError
from proxy.host import datadir, logs
from proxy.host.banner import banner
from proxy.host.ending import heed_signals
from proxy.host.listening import Listening
from proxy.host.owner import acting_as
from proxy.host.ports import refuse_unusable
from proxy.settings import Settings

if TYPE_CHECKING:
    from proxy.composition.starting import ConfigSource
    from proxy.config.places import ListenEntry
    from proxy.service import ProxyService

_log = Logger()


class Options(usage.Options):
    """What may follow ``twistd pypiproxy``."""

    synopsis = "[options]"
    longdesc = "A caching pull-through proxy for Python package indexes. Without options it serves the public index."
    optParameters = [  # noqa: RUF012  # twisted.python.usage reads a plain list
        ["config", "c", None, "Configuration file in TOML; conf/pypiproxy.toml shows every key with its default."],
        ["data-dir", "d", None, "Directory for all data [default: pypiproxy in the user's data directory]."],
        ["log-format", None, "text", "text, or json for one object per line."],
        ["log-level", None, "info", "Least important messages to log: debug, info, warn or error."],
        ["access-log", None, "short", "Line per request: off, short (about 120 characters) or full."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["upstream"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Port, address:port, [IPv6]:port or Twisted endpoint to listen on; may be repeated [default: 127.0.0.1:3143]."""
        self["listen"].append(endpoint)

    def opt_port(self, port: str) -> None:
        """Port to listen on at 127.0.0.1; may be repeated."""
        try:
            self["listen"].append(of_port(port))
        except ValueError as error:
            raise usage.UsageError(f"--port {port}: {error}") from None

    def opt_upstream(self, upstream: str) -> None:
        """URL of a simple index, or a name from the configuration; may be repeated, the preferred one first [default: pypi]."""
        self["upstream"].append(upstream)

    opt_l = opt_listen
    opt_u = opt_upstream

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"pypiproxy {proxy.__version__}")  # noqa: T201  # this is what was asked for
        sys.exit(0)

    opt_V = opt_version


class Instance(MultiService):
    """All of one running proxy, as twistd sees it: the service proper, its claim to the data directory and its log.

    The log begins with a line that says what was started, unless that has been *announced* there.
    """

    def __init__(
        self,
        claim: datadir.Claim,
        observer: object | None,
        reactor: Any,
        *,
        announced: bool,
        reload: Callable[[], None],
    ) -> None:
        super().__init__()
        self._reload = reload
        self._reactor = reactor
        self._claim = claim
        self._observer = observer
        self._announced = announced

    def setServiceParent(self, parent: IServiceCollection) -> None:
        if self._observer is not None and isinstance(parent, Componentized):
            # twistd takes this over its own observer (twisted.application.app.AppLogger.start)
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        if not self._announced:
            _log.info("pypiproxy {version} starts on {data_dir}", version=proxy.__version__, data_dir=str(self._claim.path))
        self._claim.sign()  # the daemon's process id is not that of the process that claimed
        self._reactor.callWhenRunning(heed_signals, self._reactor, self._reload)
        super().privilegedStartService()

    def startService(self) -> None:
        from proxy.composition.process import calm_collector  # imported by now, and not needed for --help

        calm_collector()
        super().startService()

    def stopService(self) -> defer.Deferred[None]:
        def release(result: Any) -> Any:
            self._claim.release()
            return result

        return defer.maybeDeferred(super().stopService).addBoth(release)


def makeService(options: Options) -> IService:
    """The service for *options*, its ports bound.  Exits with status 1 and a message when it cannot be."""
    # What is imported and built now stays: collections, which begin when the service starts, would look at it in vain.
    gc.disable()
    # Importing the reactor installs one, which is twistd's choice to make; and what serves need not load for --help.
    from twisted.internet import reactor

    from proxy.composition.starting import ConfigSource
    from proxy.service import build

    try:
        file = Path(options["config"]) if options["config"] else None
        wanted = logs.WantedLog(form=options["log-format"], access=options["access-log"], level=options["log-level"])
        wanted.check()
        source = ConfigSource(
            file,
            config.CommandLine(
                listen=tuple(options["listen"]),
                data_dir=Path(options["data-dir"]) if options["data-dir"] else None,
                upstreams=tuple(options["upstream"]),
            ),
        )
        settings = source.read(reactor)
        twistd: Any = options.parent or {}
        if twistd.get("syslog") and wanted != logs.WantedLog():
            raise ConfigError(
                "--log-format, --log-level and --access-log: have no effect on --syslog; expected --logfile FILE or --nodaemon"
            )
        observer = None if twistd.get("syslog") else logs.observer(wanted, twistd, reactor)
        log = "syslog" if twistd.get("syslog") else logs.destination(twistd)
        new = datadir.is_new(settings.server.data_dir)
        if new:
            # A start that fails now leaves nothing behind; where a proxy may run already, the claim has better words.
            _refuse_unusable(source.listens(settings))
        # With --uid twistd becomes that user later on, who has to own what is created before.
        as_user = partial(acting_as, twistd.get("uid"), twistd.get("gid"))
        with as_user(), _naming(file, "--data-dir", "data_dir", given=bool(options["data-dir"])):
            claim = datadir.claim(settings.server.data_dir)
        announced = log is None and wanted.form == "text"
        try:
            if not new:
                _refuse_unusable(source.listens(settings))
            with as_user():
                service = build(settings, reactor, source=source.absolute, access_log=wanted.access != "off")
            instance = Instance(claim, observer, reactor, announced=announced, reload=service.hung_up)
            service.setServiceParent(instance)
            service.follow(settings.warm)
            _open(service, source)
            with as_user(), _naming(file, "--data-dir", "data_dir", given=bool(options["data-dir"])):
                for admin in service.admin_sockets:
                    admin.open()
        except ConfigError:
            claim.release()
            raise
    except ConfigError as error:
        raise SystemExit(f"pypiproxy: {error}") from None
    if announced or log is not None:
        _greet(settings, service.listenings, f"{log or 'standard output'}, {wanted.described}")
    return instance


def _refuse_unusable(listens: Iterable[ListenEntry]) -> None:
    """Raise ConfigError with all of *listens* at which a trial shows that nothing can listen."""
    mistakes = Mistakes()
    for each in listens:
        with mistakes.at(each.where):
            # --port adds to `listen` only, so it is no advice for the other keys.
            refuse_unusable(each.endpoint, another=None if each.key == "listen" else "")
    mistakes.refuse()


def _open(service: ProxyService, source: ConfigSource) -> None:
    """Bind all ports of *service*.  Raises ConfigError with all that cannot be bound."""
    mistakes = Mistakes()
    for key, opened in (
        ("listen", service.listenings),
        ("metrics_listen", service.metrics_listenings),
        ("dashboard_listen", service.dashboard_listenings),
        ("probe_listen", [service.probing]),
    ):
        for each in opened:
            with mistakes.at(source.where(key)):
                each.open()
    mistakes.refuse()


def _greet(settings: Settings, listenings: Iterable[Listening], log: str) -> None:
    """Print what was started, in a form for people; it is in the foreground yet, and nothing is logged there."""
    urls = [url for each in listenings for url in each.urls]
    with suppress(OSError):  # nobody may be reading
        print(*banner(proxy.__version__, settings, urls, log, socket.gethostname()), sep="\n", flush=True)  # noqa: T201  # see above


@contextmanager
def _naming(file: Path | None, option: str, key: str, *, given: bool) -> Iterator[None]:
    """Put in front of a ConfigError where its value came from, or could be set: *option*, or *key* of ``[server]``."""
    try:
        yield
    except ConfigError as error:
        where = (None if given else config.where(key, file)) or option
        raise ConfigError(f"{where} = {error}") from error
