"""What ``pypiproxy export`` writes of an index of any kind, out of an open data directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import BinaryIO

from proxy.bundle.cache import CarriedClaims
from proxy.bundle.exporting import Exported, ProxySource, Selection, pinned_files, together, write_bundle
from proxy.bundle.hosted_source import HostedSource
from proxy.bundle.sections import BundleSource, write_sections
from proxy.commands.directory import OpenDirectory
from proxy.composition.claims import hosted_names
from proxy.composition.hosted import folder_of
from proxy.mechanism.offload import completed
from proxy.repository.membership import Course, Membership
from proxy.settings import IndexSettings


def write_index(
    directory: OpenDirectory,
    index: IndexSettings,
    wanted: Selection | None,
    pinned: bool,
    out: BinaryIO,
    on_the_way: Callable[[Exported], None],
) -> Exported:
    """Write what is *wanted* of *index* (``None``: everything), with *pinned* also what operators pinned, to *out*.

    Raises OSError, StorageFailed.
    """
    leaves = directory.settings.leaves(index.name)
    caches = {leaf: directory.cache(leaf) for leaf in leaves}
    if wanted is not None and pinned:
        for each in caches.values():
            wanted = together(wanted, completed(pinned_files(each)))
    if index.kind == "proxy":
        return completed(write_bundle(caches[index.name], wanted, out, time.time, on_the_way))
    hosted = tuple(leaf for leaf in leaves if leaf in hosted_names(directory.settings))

    def source(leaf: str) -> BundleSource:
        if leaf not in hosted:
            return ProxySource(caches[leaf], time.time, on_the_way)
        folder = folder_of(directory.settings, leaf)
        return HostedSource(leaf, folder, directory.ledger, directory.files, directory.offload, time.time, on_the_way)

    sources = [source(leaf) for leaf in (*hosted, *(each for each in leaves if each not in hosted))]
    claims = CarriedClaims(directory.book, directory.claims, hosted)
    course = _course(directory, index, hosted)
    return completed(write_sections(index.name, sources, course, claims, wanted, out, time.time, directory.offload))


def _course(directory: OpenDirectory, index: IndexSettings, hosted: tuple[str, ...]) -> Callable[[str], Course]:
    """What decides where each project of *index* comes from."""
    if not index.members:
        alone = Course((index.name,))
        return lambda project: alone
    proxies = tuple(each for each in directory.settings.leaves(index.name) if each not in hosted)
    return Membership(index.name, hosted, proxies, frozenset(index.merge), directory.claims).course
