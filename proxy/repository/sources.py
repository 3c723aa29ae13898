"""What a proxy index is made of: where its pages and files come from, and what of them is offered."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from proxy.cache.files import FileCache
from proxy.cache.ledger import Ledger
from proxy.cache.pages import PageCache
from proxy.interfaces import IUpstreams
from proxy.policy.policy import Policy
from proxy.repository.hosts import FileHosts
from proxy.repository.presence import Presence


class Sources(Struct, frozen=True, kw_only=True):
    """Where the index *name* finds pages and files: upstream, and what is cached of it."""

    name: str
    upstreams: IUpstreams
    pages: PageCache
    files: FileCache
    ledger: Ledger


class Offering(Struct, frozen=True, kw_only=True):
    """What clients of an index are offered."""

    #: What may be seen.
    policy: Policy
    #: The hosts that files may be fetched from.
    hosts: FileHosts
    #: Given if the index is offline: a file that is not stored is then not offered, neither by page nor by name.
    presence: Presence | None = None
    #: Whether metadata is fetched before clients ask for it.
    prefetch: bool = False
    #: Whether the name of a project belongs to another index, so that nothing is asked for it that no client asked for.
    reserved: Callable[[str], bool] = lambda project: False
