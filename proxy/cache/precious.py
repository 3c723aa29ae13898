"""What nothing can bring back once it is lost: the digest of each name's first bytes, and what operators have pinned."""

from __future__ import annotations

from proxy.cache import ledger, pinned
from proxy.interfaces import IRecordStore
from proxy.storage.doubled import DoubledRecords


def precious(records: IRecordStore, copy: IRecordStore) -> DoubledRecords:
    """Those of *records* that nothing can bring back, with their second copy in *copy*."""
    return DoubledRecords(records, copy, _readable, (f"{ledger.FOLDER}/", pinned.KEY))


def _readable(key: str, value: bytes) -> bool:
    return pinned.readable(value) if key == pinned.KEY else ledger.readable(value)
