"""The file of a log.  It may be moved away at any time: `LogFile.reopen` begins a new one at the same path.

A file that cannot be opened for now (the disk is full) is tried again by each write; while a new one cannot be opened, the old
one is written to.
"""

from __future__ import annotations

from contextlib import suppress

from twisted.python import logfile

from proxy.errors import FOR_NOW, ConfigError


class LogFile:
    """The log file at *path*.  Raises ConfigError for a path that can never be one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: logfile.LogFile | None = None
        try:
            self._file = _opened(path)
        except OSError as error:
            if error.errno not in FOR_NOW:
                raise ConfigError(f'--logfile = "{path}": {error.strerror}; expected a file that can be written') from error

    def write(self, text: str) -> None:
        """Raises OSError."""
        if self._file is None:
            self._file = _opened(self.path)
        self._file.write(text)  # as UTF-8

    def flush(self) -> None:
        """Raises OSError."""
        if self._file is not None:
            self._file.flush()

    def reopen(self) -> None:
        """Write to the file that is at the path now, or to a new one.  Raises OSError, and then goes on with the old one."""
        opened = _opened(self.path)
        old, self._file = self._file, opened
        if old is not None:
            with suppress(OSError):  # what could not be written is lost either way
                old.close()

    def rotate(self) -> None:
        """Rename the file to ``<path>.1``, what has that name to ``<path>.2`` and so on, and begin a new one."""
        if self._file is not None:
            self._file.rotate()


def _opened(path: str) -> logfile.LogFile:
    # It is never rotated for its length: that would interfere with whatever rotates it.
    opened: logfile.LogFile = logfile.LogFile.fromFullPath(path, rotateLength=None)
    return opened
