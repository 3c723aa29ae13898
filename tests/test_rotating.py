"""Files that are replaced while the proxy runs: which changes are seen, and what is used when a file cannot be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from proxy.core.events import Incident, Notice
from proxy.core.troubles import Reason
from proxy.host.rotation import Rotation
from proxy.mechanism.offload import Inline, completed
from proxy.mechanism.rotating import Observing, Rotating, UnusableFile
from proxy.mechanism.secret_files import netrc_entry, one_line
from proxy.statistics.recorders import MemoryRecorder
from tests.support.replacing import replace

KEY = "upstream.corp.token_file"
SECRET = "hunter2"


def text_of(contents: Mapping[str, bytes]) -> str:
    return " ".join(one_line(each) for each in contents.values())


class Watched:
    """The value of the file at *path*, and what was told of it."""

    def __init__(self, *paths: Path, clock: Callable[[], float] = time.time, value: str | None = None) -> None:
        self.recorder = MemoryRecorder()
        self.changes = 0
        self.reads = 0
        keys = (KEY, "other")
        self.rotating: Rotating[str] = Rotating(
            dict(zip(keys, paths, strict=False)),
            self.load,
            Observing(Inline(), self.recorder, clock),
            changed=self.changed,
            value=value,
        )

    def load(self, contents: Mapping[str, bytes]) -> str:
        self.reads += 1
        return text_of(contents)

    def changed(self) -> None:
        self.changes += 1

    def look(self) -> str:
        completed(self.rotating.look())
        return self.rotating.value

    @property
    def incidents(self) -> list[Incident]:
        return [event.incident for event in self.recorder.events if isinstance(event, Notice)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("old\n")
    return path


def remove_and_make(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


WAYS: dict[str, Callable[[Path, str], object]] = {
    "written in place": lambda path, text: path.write_text(text),
    "renamed over": replace,
    "removed and made": remove_and_make,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_replaced_is_read_again(file: Path, way: str) -> None:
    watched = Watched(file)
    assert watched.look() == "old"
    for text in ("new", "two", "one"):  # of the same size, and within one tick of the file system's clock
        WAYS[way](file, text)
        assert watched.look() == text
    assert watched.changes == 3
    assert watched.incidents == [Incident.ROTATED] * 3


def test_links_are_followed_as_kubernetes_swaps_them(tmp_path: Path) -> None:
    for name, text in (("..1", "old"), ("..2", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    watched = Watched(tmp_path / "token")
    assert watched.look() == "old"
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert watched.look() == "new"


def test_the_pem_files_below_a_directory_are_one_value(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.pem").write_text("b")
    (tmp_path / "a.pem").write_text("a")
    (tmp_path / "c.txt").write_text("c")
    watched = Watched(tmp_path)
    assert watched.look() == "ab"
    replace(tmp_path / "deep" / "b.pem", "B")
    assert watched.look() == "aB"
    (tmp_path / "deep" / "c.pem").write_text("C")
    assert watched.look() == "aBC"


def test_a_file_that_was_only_touched_is_no_change(file: Path) -> None:
    watched = Watched(file)
    os.utime(file, (1, 1))
    assert watched.look() == "old"
    assert (watched.changes, watched.incidents) == (0, [])


def test_a_file_is_read_after_a_change_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    really = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        reads.append(path)
        return really(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    watched = Watched(file, clock=lambda: time.time() + 60)
    for number in range(1, 4):
        file.write_text("x" * number)
        assert [watched.look() for _ in range(3)] == ["x" * number] * 3
        assert len(reads) == number + 1


def test_a_value_that_was_known_before_is_compared_with_the_file(file: Path) -> None:
    assert Watched(file, value="old").rotating.value == "old"
    watched = Watched(file, value="older")
    assert (watched.look(), watched.changes) == ("old", 1)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), f"{KEY} cannot be read: No such file or directory"),
    "a link to nothing": (link_to_nothing, f"{KEY} cannot be read: No such file or directory"),
    "empty": (lambda path: path.write_text(""), f"{KEY} is empty or has control characters"),
    "two lines": (lambda path: path.write_text(f"{SECRET}\n{SECRET}"), f"{KEY} is empty or has control characters"),
    "no text": (lambda path: path.write_bytes(b"\xff" + SECRET.encode()), f"{KEY} is not a text file"),
    "a directory without files": (make_a_directory, f"{KEY} is empty or has control characters"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_file_that_breaks_leaves_the_last_good_value_and_is_told_once(file: Path, logged: list[LogEvent], how: str) -> None:
    break_it, words = BREAKS[how]
    watched = Watched(file)
    break_it(file)
    assert [(watched.look(), watched.rotating.trouble) for _ in range(3)] == [("old", words)] * 3
    assert watched.incidents == [Incident.ROTATION_FAILED]
    said = [formatEvent(event) for event in logged]
    assert said == [f"{words} ({file}): the last good value is still used"]
    assert SECRET not in repr(logged)
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    file.write_text("new")
    assert (watched.look(), watched.rotating.trouble) == ("new", None)
    assert watched.incidents == [Incident.ROTATION_FAILED, Incident.ROTATED]
    assert [formatEvent(event) for event in logged[1:]] == [
        f"{KEY}: can be used again",
        f"{KEY}: changed, and used from now on",
    ]


def test_a_file_that_is_as_it_was_again_is_no_change(file: Path) -> None:
    watched = Watched(file)
    file.rename(file.with_name("away"))
    watched.look()
    file.with_name("away").rename(file)
    assert watched.look() == "old"
    assert (watched.changes, watched.rotating.trouble) == (0, None)


def test_the_first_reading_says_what_is_wrong(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Watched(tmp_path / "missing")
    file.write_text("")
    with pytest.raises(UnusableFile, match=f"{KEY} is empty"):
        Watched(file)


# -- looking at all of them ---------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_a_trouble(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("other")
    watched = [Watched(file), Watched(other), Watched(file, other)]
    rotation = Rotation(lambda: [each.rotating for each in watched], Clock(), time.time)
    assert completed(rotation.look()) == []
    other.unlink()
    troubles = completed(rotation.look())
    assert {each.reason for each in troubles} == {Reason.ROTATION}
    assert [each.words.partition(" ")[0] for each in troubles] == [KEY, "other"]


class Hanging(Inline):
    """A thread that waits for a file system that does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: Deferred[None] | None = None

    async def run(self, function: Callable[..., object], *args: object) -> object:  # type: ignore[override]  # enough here
        if self.gate is not None:
            await self.gate
        return function(*args)


def test_a_file_system_that_does_not_answer_is_told_and_holds_nobody_up(file: Path, logged: list[LogEvent]) -> None:
    thread, clock = Hanging(), Clock()
    rotating = Rotating({KEY: file}, text_of, Observing(thread, MemoryRecorder(), time.time))
    rotation = Rotation(lambda: [rotating], clock, time.time)
    thread.gate = Deferred()
    found: list[str] = []
    for _ in range(2):
        looking = Deferred.fromCoroutine(rotation.look())
        looking.addCallback(lambda troubles: found.extend(each.words for each in troubles))
        clock.advance(1)
    assert [each.partition(": ")[2] for each in found] == ["its file system does not answer"] * 2
    assert len(logged) == 1
    replace(file, "new")
    thread.gate.callback(None)
    assert rotating.value == "new"
    assert completed(rotation.look()) == []


# -- what is in a file, and who reads it --------------------------------------------------------------------------------------


def test_a_secret_is_one_line() -> None:
    assert one_line("pässword\r\n".encode()) == "pässword"


def test_an_entry_of_netrc_is_found_and_no_message_repeats_another(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine a.example login ci password {SECRET}\n")
    assert netrc_entry(netrc, "a.example") == ("ci", SECRET)
    with pytest.raises(ValueError, match=r"no login and password for machine b\.example"):
        netrc_entry(netrc, "b.example")
    netrc.write_text(f"machine a.example login ci {SECRET}\n")
    with pytest.raises(ValueError, match=r"cannot be understood \(line \d+\)") as caught:
        netrc_entry(netrc, "a.example")
    assert SECRET not in str(caught.value)
