"""Digests of the same few files, which tests and their upstreams want again and again: some are many megabytes."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_FEW = 4


@lru_cache(_FEW)
def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(_FEW)
def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
