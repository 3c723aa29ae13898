"""The last bytes of something that passes by and is not kept."""

from __future__ import annotations


class Window:
    """Bytes from position *start* on; its beginning moves on as they are no longer wanted."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes)

    def append(self, data: bytes) -> None:
        self._bytes += data

    def read(self, position: int, stop: int) -> bytes:
        """Bytes from *position* to *stop*, both at or after the window's start."""
        return bytes(self._bytes[position - self.start : stop - self.start])

    def move(self, position: int) -> None:
        """Forget what lies before *position*."""
        if position > self.start:
            del self._bytes[: position - self.start]
            self.start = position
