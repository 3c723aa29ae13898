"""The settings every part is given: plain values with their defaults, whoever read them from wherever.

Durations are seconds, sizes bytes, rates per second.  :mod:`proxy.config` fills these from TOML; tests fill them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from proxy.representing import repr_without

KIB = 1024
MIB = 1024 * KIB


class UpstreamSettings(Struct, frozen=True, kw_only=True):
    """``[upstream.NAME]``: one remote index and how to behave towards it."""

    name: str
    #: The simple index's root, ending in ``/``.
    url: str
    #: Basic credentials, or a bearer token; sent to ``url``'s origin only.
    username: str | None = None
    password: str | None = None
    token: str | None = None
    #: The file that these were read from, and are read from again when it changes; ``None``: another source.
    password_file: Path | None = None
    token_file: Path | None = None
    netrc: Path | None = None
    #: PEM files: authorities to trust instead of the system's, and a client certificate with its key (one file or two).
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    #: ``http://[user:password@]host:port`` of a proxy to go out through (``CONNECT`` for https); ``None``: straight.
    outbound_proxy: str | None = None
    connect_timeout: float = 5.0
    first_byte_timeout: float = 10.0
    body_idle_timeout: float = 10.0
    #: Connections at once, and how many requests may wait for one before the upstream counts as out.
    max_connections: int = 20
    max_queue: int = 3000
    #: Requests a second (token bucket); ``None``: no limit.
    max_rate: float | None = None
    #: A partial mirror's 404 is no answer: the next upstream is asked.
    partial: bool = False
    #: Its 404 is definite also while upstreams that are preferred to it fail.
    authoritative: bool = False
    #: What its 403 means: ``missing`` (as 404), ``failure``, or ``auto``: passed on where its other pages work.
    forbidden: str = "auto"
    #: Other hosts that pages may redirect to where the upstream has credentials (``*.example.com`` matches below it);
    #: ``None``: to none.
    redirect_hosts: tuple[str, ...] | None = None
    #: A mirror whose ``/last-modified`` (PEP 381) is older than this is passed over; ``None``: never looked at.
    max_lag: float | None = None
    #: Hosts that file URLs on this upstream's pages may name besides the page's own (``*.example.com`` matches below it);
    #: ``None``: whatever the pages name, https only when the page was https.
    file_hosts: tuple[str, ...] | None = None
    #: Let names on this upstream's pages lead to loopback, link-local and private addresses.
    #: ``None``: only when ``url`` itself names such an address.
    allow_private_addresses: bool | None = None
    #: Whether it is an upstream of the command line, which has no table of its own.
    of_command_line: bool = False
    #: The table that configures it, if that is no ``[upstream.NAME]``.
    other_table: str | None = None

    __repr__ = repr_without("password", "token")

    @property
    def table(self) -> str:
        """The table that an operator changes to change anything of it."""
        return self.other_table or f"upstream.{self.name}"

    @property
    def url_setting(self) -> str:
        """What an operator changes to change ``url``."""
        return "--upstream" if self.of_command_line else f"upstream.{self.name}.url"


class PageLimits(Struct, frozen=True, kw_only=True):
    """The freshness limits of one index (see ``docs/design.md``)."""

    ttl: float = 600.0
    soft_deadline: float = 2.0
    #: How long after its expiry a page may still be served when upstream fails; ``None``: for ever.
    stale_if_error: float | None = None
    negative_ttl: float = 60.0


class HostedSettings(Struct, frozen=True, kw_only=True):
    """What an ``[[index]]`` of the kind ``hosted`` has besides."""

    #: The directory with its files; ``None``: ``hosted/<index>`` in the data directory.
    path: Path | None = None
    #: ``projects``: a directory for each project; ``flat``: all files in one.
    layout: str = "projects"
    #: Patterns of project names that belong to it (``*`` and ``?`` as in a shell), whether it has files of them or not.
    owns: tuple[str, ...] = ()
    #: Whether other bytes may take the place of a file.
    overwrite: bool = False
    #: Whether it takes uploads over HTTP.
    uploads: bool = True
    #: The files and the bytes that it may have together; ``None``: no limit.
    max_files: int | None = None
    max_size: int | None = None


class GroupSettings(Struct, frozen=True, kw_only=True):
    """What an ``[[index]]`` of the kind ``group`` has besides."""

    #: The names of the indexes that it consists of, the one that is asked first comes first.
    members: tuple[str, ...]
    #: Projects (normalised) whose files come from every member that has some; elsewhere a project comes from one member.
    merge: tuple[str, ...] = ()


class IndexSettings(Struct, frozen=True, kw_only=True):
    """``[[index]]``: something served under ``/index/NAME/simple/``."""

    name: str
    kind: str = "proxy"
    upstreams: tuple[str, ...] = ()
    default: bool = False
    limits: PageLimits = PageLimits()
    #: ``ordered``: upstreams in the order given; ``fastest``: the one that has answered fastest lately comes first.
    policy: str = "ordered"
    #: Ask the next upstream too when the preferred one has sent no byte after this long; ``None``: never.
    hedge_after: float | None = None
    #: Ask ahead of resolvers: for the newest release's metadata when a page is new, for what that requires, and further back.
    prefetch: bool = True
    #: Never ask upstream: what is there is served, and nothing else is offered.
    offline: bool = False
    #: By its kind, one of these.
    hosted: HostedSettings | None = None
    group: GroupSettings | None = None

    @property
    def owns(self) -> tuple[str, ...]:
        """The patterns of names that belong to it, if it is hosted."""
        return () if self.hosted is None else self.hosted.owns

    @property
    def members(self) -> tuple[str, ...]:
        """The indexes that it consists of; empty: it is made of no others, and rights count on itself."""
        return () if self.group is None else self.group.members

    @property
    def merge(self) -> tuple[str, ...]:
        """The projects (normalised) whose files come from every one of its members that has some."""
        return () if self.group is None else self.group.merge


class ServerSettings(Struct, frozen=True, kw_only=True):
    """``[server]``: where to listen, where to keep data, and the bounds of the service."""

    data_dir: Path
    listen: tuple[str, ...] = ("tcp:3143:interface=127.0.0.1",)
    #: Where ``/-/metrics`` is answered instead, and nothing else.
    metrics_listen: tuple[str, ...] = ()
    #: Who may read the metrics, as grants name principals; nobody named: everybody may.
    metrics_for: tuple[str, ...] = ()
    #: Where ``/-/live`` and ``/-/ready`` are answered besides, by a thread of their own.
    probe_listen: tuple[str, ...] = ()
    #: Whether people are shown the dashboard at ``/``.
    dashboard: bool = True
    #: Where that is served instead, and nothing else.
    dashboard_listen: tuple[str, ...] = ()
    #: Said in the ``User-Agent`` towards upstream, as PyPI asks: a mail address or URL.
    contact: str | None = None
    #: How long everything goes on as before after SIGTERM, but for ``/-/ready``: balancers have to notice.
    stop_pause: float = 0.0
    #: How long running responses may go on after that.
    drain_time: float = 30.0
    #: Client connections at once; more wait in the kernel's queue.
    max_connections: int = 4096
    #: Requests that may wait for upstream at once, however many share an answer; at most three quarters of the connections.
    max_waiting: int = 3000
    #: A connection without a request is closed after this long.
    idle_timeout: float = 75.0
    #: A client that takes no byte of its response for this long is dropped.
    stall_timeout: float = 60.0
    #: Addresses and networks of reverse proxies that are believed when they state the address of a client.
    trusted_proxies: tuple[str, ...] = ()
    #: Bytes that all stored files may have together, and bytes that stay free on their file system; the files that were not
    #: used for longest go for it.  ``None``: no limit, files stay for ever.
    max_size: int | None = None
    min_free: int | None = None
    #: Bytes of finished renderings and of parsed pages to keep in memory.
    page_memory: int = 128 * MIB


class IssuerSettings(Struct, frozen=True, kw_only=True):
    """``[ci.issuer.NAME]``: who vouches for CI jobs with ID tokens (OpenID Connect)."""

    name: str
    #: The issuer as its tokens state it.
    url: str
    #: Where its keys are; ``None``: where its discovery document says.
    jwks_url: str | None = None
    #: PEM file: authorities to trust instead of the system's.
    ca_file: Path | None = None
    #: A bearer token that it wants to see before it shows its keys, and the file that this was read from.
    token: str | None = None
    token_file: Path | None = None
    #: ``http://[user:password@]host:port`` of a proxy to go out through; ``None``: straight.
    outbound_proxy: str | None = None

    __repr__ = repr_without("token")


class CiRule(Struct, frozen=True, kw_only=True):
    """``[[ci.rule]]``: which jobs get a token, and what it is good for."""

    #: The job's name among principals, after ``ci:``.
    name: str
    #: The name of an issuer.
    issuer: str
    #: For each claim the way to it, and the patterns of which one has to fit (see :mod:`proxy.access.claims`).
    claims: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    #: A role on projects of indexes; ``None``: what grants say of ``ci:NAME``, and no more.
    role: str | None = None
    indexes: tuple[str, ...] = ("*",)
    projects: tuple[str, ...] = ("*",)
    #: Seconds that the token lives.
    lifetime: float = 900.0


class CiSettings(Struct, frozen=True, kw_only=True):
    """``[ci]``: tokens for CI jobs in exchange for ID tokens."""

    #: What ID tokens have to be issued for.
    audience: str = "pypiproxy"
    issuers: tuple[IssuerSettings, ...] = ()
    rules: tuple[CiRule, ...] = ()


#: The shortest pause between two looks at what is to be kept ready (seconds).
LEAST_INTERVAL = 60.0


class WarmSettings(Struct, frozen=True, kw_only=True):
    """``[warm]``: what the running proxy keeps ready by itself."""

    #: Requirement and lock files, and requirements (PEP 508).
    files: tuple[Path, ...] = ()
    projects: tuple[str, ...] = ()
    #: The newest version of every project that was asked for within this time (seconds); ``None``: of none.
    recent: float | None = None
    #: Seconds between two looks.
    interval: float = 3600.0
    #: Python versions and platform tags; empty: this machine's.
    python: tuple[str, ...] = ()
    platform: tuple[str, ...] = ()
    #: Whether what was fetched never makes room for other files.
    pin: bool = False


class GrantSettings(Struct, frozen=True, kw_only=True):
    """``[[grant]]``: a *role* on some projects of some indexes for some *principals*, each as :mod:`proxy.access` has it."""

    role: str
    principals: tuple[str, ...]
    indexes: tuple[str, ...] = ("*",)
    projects: tuple[str, ...] = ("*",)


class LdapSettings(Struct, frozen=True, kw_only=True):
    """``[access.ldap]``: a directory that knows users, their passwords and their groups."""

    #: ``ldap://host[:port]`` or ``ldaps://host[:port]``.
    url: str
    #: Whether ``ldap://`` continues over TLS before anything is said.
    start_tls: bool = True
    #: PEM file: authorities to trust instead of the system's.
    ca_file: Path | None = None
    #: Who searches, with a password, and the file that this was read from; ``None``: nobody in particular.
    bind_dn: str | None = None
    bind_password: str | None = None
    bind_password_file: Path | None = None
    #: Where users are, the attribute with their names, and what else has to be true of them.
    base: str = ""
    user_attribute: str = "uid"
    user_filter: str = "(objectClass=*)"
    #: Where groups are (``None``: there are none), which are those of ``{dn}`` or ``{user}``, and what has their names.
    group_base: str | None = None
    group_filter: str = "(member={dn})"
    group_attribute: str = "cn"
    #: How long one step may take (seconds).
    timeout: float = 5.0

    __repr__ = repr_without("bind_password")


class ReverseProxySettings(Struct, frozen=True, kw_only=True):
    """``[access.reverse_proxy]``: headers in which trusted proxies state who has logged in."""

    user_header: str
    #: The groups, separated by commas; ``None``: none are stated.
    groups_header: str | None = None


class AccessSettings(Struct, frozen=True, kw_only=True):
    """``[access]``: who may log in, and how."""

    #: Users with hashes of their passwords; ``None``: ``users`` in the data directory, which need not be there.
    users_file: Path | None = None
    #: Whether credentials are taken from whoever sends them unencrypted over a network.
    allow_plaintext_auth: bool = False
    #: The size at which the audit log is rotated (bytes), and the files that it may have in all.
    audit_size: int = 10_000_000
    audit_files: int = 5
    #: The users in each group, and ``group:NAME`` for those whom a directory or a reverse proxy has in the group NAME.
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ldap: LdapSettings | None = None
    reverse_proxy: ReverseProxySettings | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """All of it."""

    server: ServerSettings
    upstreams: tuple[UpstreamSettings, ...]
    indexes: tuple[IndexSettings, ...]
    warm: WarmSettings | None = None
    access: AccessSettings = AccessSettings()
    grants: tuple[GrantSettings, ...] = ()
    ci: CiSettings | None = None

    def leaves(self, index: str) -> tuple[str, ...]:
        """The indexes that *index* consists of, those among them that have members replaced by these; itself if it has none.

        Each comes once, where it comes first.
        """
        (found,) = [each for each in self.indexes if each.name == index]
        if not found.members:
            return (index,)
        return tuple(dict.fromkeys(leaf for member in found.members for leaf in self.leaves(member)))
