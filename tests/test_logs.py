"""NDJSON logs: every event is one line of valid JSON, whatever it holds."""

from __future__ import annotations

import io
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import FileLogObserver, Logger, LogLevel, LogPublisher, formatEventAsClassicLogText
from twisted.python import log as legacy
from twisted.python import threadable
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from proxy.errors import ConfigError
from proxy.host import logs

NOT_RUNNING = SimpleNamespace(running=False)


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    """The signals that rotate a file are left as they were found, and free for the next test: their handlers hold the file."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


#: The event of a request, as the web floor publishes it.
REQUEST = {
    "log_namespace": logs.ACCESS,
    "log_level": LogLevel.info,
    "log_time": 0.0,
    "log_format": '{client} {method} {path} {status} {bytes} {seconds:.3f} {cache} "{agent}"{cut} {request_id}',
    "client": "127.0.0.1",
    "method": "GET",
    "path": "/simple/six/",
    "status": 200,
    "bytes": 12,
    "seconds": 0.0123,
    "cache": "hit",
    "agent": r"pip/26.3 {\x22python\x22:\x223.11.7\x22}",
    "shown": "pip/26.3 py3.11",
    "cut": "",
    "request_id": "0a1b2c3d-000001",
}


class Recorder:
    """A logger whose events come out as parsed lines."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.publisher = LogPublisher(FileLogObserver(self.stream, logs.json_line))
        self.log = Logger("proxy.test", observer=self.publisher)

    def only(self) -> dict[str, Any]:
        line, rest = self.stream.getvalue().split("\n")
        assert rest == ""
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_an_event_is_one_flat_object_with_its_fields(recorder: Recorder) -> None:
    recorder.log.warn("{upstream} answered {status}", upstream="pypi", status=503, seconds=0.25, hit=False, why=None)
    line = recorder.only()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warn",
        "logger": "proxy.test",
        "message": "pypi answered 503",
        "upstream": "pypi",
        "status": 503,
        "seconds": 0.25,
        "hit": False,
        "why": None,
    }


def test_the_time_is_utc_with_milliseconds() -> None:
    line = logs.json_line({"log_time": 1_700_000_000.0625, "log_format": "x"})
    assert json.loads(line)["time"] == "2023-11-14T22:13:20.062Z"


def test_what_is_no_scalar_stays_in_the_message_only(recorder: Recorder) -> None:
    recorder.log.info("kept in {path}", path=Path("/x"), request=object())
    line = recorder.only()
    assert line["message"] == "kept in /x"
    assert not {"path", "request"} & set(line)


def test_a_field_cannot_pass_itself_off_as_the_logger_or_time(recorder: Recorder) -> None:
    recorder.log.info("x", logger="kernel", time="never", message="y")
    line = recorder.only()
    assert (line["logger"], line["message"]) == ("proxy.test", "x")
    assert line["time"] != "never"


def test_a_failure_carries_its_traceback(recorder: Recorder) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        recorder.log.failure("cannot serve {what}", Failure(), what="page")
    line = recorder.only()
    assert (line["level"], line["message"], line["what"]) == ("critical", "cannot serve page", "page")
    assert "ValueError: broken" in line["traceback"]


def test_a_line_end_in_a_value_does_not_make_a_second_line(recorder: Recorder) -> None:
    recorder.log.info("{agent}", agent='a\n{"level": "critical"}\r\u2028')
    assert recorder.only()["agent"] == 'a\n{"level": "critical"}\r\u2028'


def test_old_style_log_messages_are_lines_too() -> None:
    lines: list[str] = []
    publisher = legacy.LogPublisher()
    publisher.addObserver(lambda event: lines.append(logs.json_line(event)))
    publisher.msg("Site starting", "on 80")
    line = json.loads(lines[0])
    assert line["message"] == "Site starting on 80"
    assert set(line) == {"time", "level", "logger", "message"}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())


@given(st.dictionaries(st.sampled_from(["path", "status", "user_agent", "level"]), scalars))
def test_any_scalars_make_a_line_that_parses(fields: dict[str, Any]) -> None:
    line = logs.json_line({"log_time": 0.0, "log_format": "x", **fields})
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == "x"


@given(st.text(st.characters(categories=["Cc", "Zl", "Zp", "Cf", "L", "N"])))
def test_no_text_begins_a_line_of_its_own_or_speaks_to_the_terminal(text: str) -> None:
    event = {"log_time": 0.0, "log_level": LogLevel.warn, "log_namespace": "n", "log_format": "said {text}", "text": text}
    first, *others = logs.text_line(event).splitlines()
    assert all(line.startswith("\t") for line in others)
    assert not {each for line in (first, *others) for each in line if each != "\t" and (each < " " or "\x7f" <= each < "\xa0")}


# -- where the lines go -------------------------------------------------------------------------------------------------------


def test_a_daemon_writes_to_the_file_that_twistd_was_given(tmp_path: Path) -> None:
    file = tmp_path / "proxy.log"
    observer = logs.observer(logs.WantedLog(form="json"), {"logfile": str(file), "nodaemon": 0}, NOT_RUNNING)
    Logger("proxy.test", observer=observer).info("hello")
    assert json.loads(file.read_text())["message"] == "hello"


def test_in_the_foreground_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    observer = logs.observer(logs.WantedLog(form="json"), {"logfile": None, "nodaemon": 1}, NOT_RUNNING)
    Logger("proxy.test", observer=observer).info("hello")
    assert json.loads(capsys.readouterr().out)["message"] == "hello"


@pytest.mark.parametrize(
    ("twistd", "said"),
    [
        ({"logfile": "-", "nodaemon": 0}, "no standard output"),
        ({"logfile": "/proc/none/x.log", "nodaemon": 0}, "/proc/none/x.log"),
    ],
)
def test_a_destination_that_takes_no_lines_is_refused(twistd: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        logs.observer(logs.WantedLog(form="json"), twistd, NOT_RUNNING)


def test_lines_are_written_together_but_warnings_at_once() -> None:
    clock = Clock()
    clock.running = True  # type: ignore[attr-defined]  # as a reactor has it
    out = io.StringIO()
    log = Logger("proxy.test", observer=logs.LogLines(out, logs.json_line, clock))
    threadable.registerAsIOThread()
    log.info("one")
    log.info("two")
    log.debug("of no interest")
    assert out.getvalue() == ""
    clock.advance(1)
    assert out.getvalue().count("\n") == 2
    log.info("three")
    log.warn("four")
    assert out.getvalue().count("\n") == 4
    clock.advance(1)
    assert clock.getDelayedCalls() == []


def test_an_access_line_reads_the_same_by_either_way() -> None:
    event = {**REQUEST, "agent": "pip/26.3"}
    assert logs.text_line(event) == formatEventAsClassicLogText(event)


def test_lines_that_cannot_be_written_are_dropped_and_counted_when_the_next_one_can() -> None:
    class Full(io.StringIO):
        room = False

        def flush(self) -> None:
            if not self.room:
                self.truncate(0)
                self.seek(0)
                raise OSError(28, "No space left on device")

    out = Full()
    log = Logger("proxy.test", observer=logs.LogLines(out, logs.text_line, NOT_RUNNING))
    log.info("first")
    log.info("second")
    out.room = True
    log.info("third")
    told, third = out.getvalue().splitlines()
    assert told.endswith("[proxy.host.logs#warn] 2 lines of this log could not be written and were dropped")
    assert third.endswith("third")
    log.info("fourth")
    assert out.getvalue().count("dropped") == 1


def test_a_log_file_on_a_full_disk_stops_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proxy.log"
    real = LogFile.fromFullPath

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("proxy.host.logfile.logfile.LogFile.fromFullPath", full)
    observer = logs.observer(logs.WantedLog(), {"logfile": str(path)}, NOT_RUNNING)
    log = Logger("proxy.test", observer=observer)
    log.info("first")
    monkeypatch.setattr("proxy.host.logfile.logfile.LogFile.fromFullPath", real)
    log.info("second")
    told, second = path.read_text().splitlines()
    assert "1 lines of this log could not be written" in told
    assert second.endswith("second")


# -- what is in the log -------------------------------------------------------------------------------------------------------


def written(capsys: pytest.CaptureFixture[str], **wanted: str) -> str:
    """What is written of a request, a warning, a message, a detail, and of what Twisted says of its insides."""
    observer = logs.observer(logs.WantedLog(**wanted), {"nodaemon": 1}, NOT_RUNNING)
    log = Logger("proxy.test", observer=observer)
    observer(REQUEST)
    log.warn("a warning")
    log.info("a message")
    log.debug("a detail")
    publisher = LogPublisher(observer)
    legacy.LogPublisher(observerPublisher=publisher, publishPublisher=publisher).msg("Site starting on 80")
    Logger("twisted.scripts", observer=observer).info("reactor class: {reactor}.", reactor="EPoll")
    return capsys.readouterr().out


def test_by_default_a_request_is_a_short_line_and_twisted_keeps_its_insides_to_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    request, warning, message = written(capsys).splitlines()
    assert request.endswith(" 127.0.0.1 GET /simple/six/ 200 12B 12ms hit pip/26.3 py3.11")
    assert warning.endswith("a warning")
    assert message.endswith("a message")


def test_a_request_in_full_keeps_everything(capsys: pytest.CaptureFixture[str]) -> None:
    request = written(capsys, access="full").splitlines()[0]
    assert request.endswith(
        r'127.0.0.1 GET /simple/six/ 200 12 0.012 hit "pip/26.3 {\x22python\x22:\x223.11.7\x22}" 0a1b2c3d-000001'
    )


@pytest.mark.parametrize("access", ["short", "full"])
def test_json_keeps_everything_as_the_client_sent_it(capsys: pytest.CaptureFixture[str], access: str) -> None:
    request = json.loads(written(capsys, form="json", access=access).splitlines()[0])
    assert request["agent"] == 'pip/26.3 {"python":"3.11.7"}'
    assert (request["path"], request["bytes"], request["seconds"]) == ("/simple/six/", 12, 0.0123)
    assert request["request_id"] == "0a1b2c3d-000001"


def test_the_message_of_a_request_in_json_is_the_line_that_text_has(capsys: pytest.CaptureFixture[str]) -> None:
    message = json.loads(written(capsys, form="json", access="short").splitlines()[0])["message"]
    assert message == "127.0.0.1 GET /simple/six/ 200 12B 12ms hit pip/26.3 py3.11"
    message = json.loads(written(capsys, form="json", access="full").splitlines()[0])["message"]
    assert message.startswith("127.0.0.1 GET /simple/six/ 200 12 0.012 hit")


def test_the_access_log_can_be_off(capsys: pytest.CaptureFixture[str]) -> None:
    said = written(capsys, access="off")
    assert "/simple/six/" not in said
    assert "a message" in said


def test_the_level_leaves_out_messages_but_no_requests(capsys: pytest.CaptureFixture[str]) -> None:
    said = written(capsys, level="warn")
    assert "/simple/six/" in said
    assert "a warning" in said
    assert "a message" not in said


def test_at_the_level_debug_details_are_there_too(capsys: pytest.CaptureFixture[str]) -> None:
    said = written(capsys, level="debug")
    assert "a detail" in said
    assert "reactor class: EPoll" in said


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"form": "xml"}, '--log-format = "xml": expected text or json'),
        ({"access": "long"}, '--access-log = "long": expected off, short or full'),
        ({"level": "loud"}, '--log-level = "loud": expected debug, info, warn or error'),
    ],
)
def test_a_word_that_is_not_known_is_refused(wanted: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        logs.WantedLog(**wanted).check()


# -- files that are rotated ---------------------------------------------------------------------------------------------------


class Reactor:
    """Runs what it is given, and is not running otherwise."""

    running = False

    def callFromThread(self, act: Callable[[], None]) -> None:
        act()


def test_a_file_that_was_moved_away_is_begun_anew_on_sigusr2(tmp_path: Path) -> None:
    path = tmp_path / "proxy.log"
    log = Logger("proxy.test", observer=logs.observer(logs.WantedLog(), {"logfile": str(path)}, Reactor()))
    log.info("before")
    path.rename(tmp_path / "proxy.log.1")
    log.info("meanwhile")
    signal.raise_signal(signal.SIGUSR2)
    log.info("after")
    assert path.read_text().count("\n") == 1
    assert path.read_text().endswith("after\n")
    assert [line.split()[-1] for line in (tmp_path / "proxy.log.1").read_text().splitlines()] == ["before", "meanwhile"]


def test_a_file_that_cannot_be_opened_anew_goes_on_being_written(tmp_path: Path) -> None:
    folder, moved = tmp_path / "log", tmp_path / "moved"
    folder.mkdir()
    log = Logger("proxy.test", observer=logs.observer(logs.WantedLog(), {"logfile": str(folder / "proxy.log")}, Reactor()))
    log.info("before")
    folder.rename(moved)
    signal.raise_signal(signal.SIGUSR2)
    log.info("after")
    assert (moved / "proxy.log").read_text().splitlines()[-1].endswith("after")


def test_a_file_is_not_rotated_for_its_length_but_on_sigusr1(tmp_path: Path) -> None:
    path = tmp_path / "proxy.log"
    log = Logger("proxy.test", observer=logs.observer(logs.WantedLog(), {"logfile": str(path)}, Reactor()))
    for _ in range(3):
        log.info("x" * 500_000)
    assert [each.name for each in tmp_path.iterdir()] == ["proxy.log"]
    signal.raise_signal(signal.SIGUSR1)
    assert {each.name for each in tmp_path.iterdir()} == {"proxy.log", "proxy.log.1"}


def test_standard_output_has_nothing_to_rotate_and_the_signals_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    logs.observer(logs.WantedLog(), {"nodaemon": 1}, Reactor())
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
