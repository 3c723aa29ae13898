"""The data directory of a running proxy is looked at while other threads note what fails."""

from __future__ import annotations

import errno
from pathlib import Path

from proxy.core.troubles import Reason
from proxy.storage.place import Place


class NotedMeanwhile(int):
    """A number of an error; whoever compares it gives another thread the time to note one more failure."""

    place: Place
    folder: Path

    def __eq__(self, other: object) -> bool:
        self.place.failed(OSError(errno.EIO, "failed"), self.folder / str(id(other)) / "file")
        return int(self) == other

    __hash__ = int.__hash__


def test_a_failure_that_is_noted_during_a_look_does_not_end_it(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda: 0.0, lambda: 0.0)
    number = NotedMeanwhile(errno.EIO)
    number.place, number.folder = place, tmp_path
    error = OSError()
    error.errno = number
    place.failed(error, tmp_path / "files" / "file", reading=True)
    assert Reason.NOT_READABLE in {trouble.reason for trouble in place.look()}
    place.close()
