"""Disks that take no more."""

from __future__ import annotations

import os

import pytest


def fill_up(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Give every file room for *room* bytes, as a file system does that is full."""
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        if offset >= room:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: room - offset], offset)

    monkeypatch.setattr("proxy.storage.local.os.pwrite", pwrite)
