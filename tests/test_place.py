"""The data directory of a running proxy is looked at while other threads note what fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

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


def test_a_look_puts_no_name_into_a_directory_that_others_list(tmp_path: Path) -> None:
    place = Place(tmp_path, lambda: 0.0, lambda: 0.0)
    # Bytes are written too, where some found no room lately.
    place.failed(OSError(errno.ENOSPC, "full"), tmp_path / "files" / "file", 1)
    assert place.look() == []
    folders = [tmp_path / name for name in ("files", "partial", "lists")]
    for each in folders:
        os.utime(each, (1, 1))
    assert place.look() == []
    assert [each.stat().st_mtime for each in folders] == [1] * 3  # it changes with each name
    place.close()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_file_system_without_unnamed_files_is_tried_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    opened = os.open

    def only_names(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *mode)

    place = Place(tmp_path, lambda: 0.0, lambda: 0.0)
    monkeypatch.setattr(os, "open", only_names)
    assert place.look() == []
    assert [list((tmp_path / name).iterdir()) for name in ("files", "partial", "lists")] == [[]] * 3
    (tmp_path / "partial" / ".probe").mkdir()
    assert [each.reason for each in place.look()] == [Reason.NOT_WRITABLE]
    place.close()
