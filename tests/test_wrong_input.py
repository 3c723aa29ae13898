"""Every command, also one that is added tomorrow, with wrong input: a message that says what is wrong, and no traceback."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import pytest
from msgspec import Struct

from proxy.cli import COMMANDS, main
from tests.support.forked import Forking, Outcome, Run

#: A configuration with which nothing is asked of anybody.
OFFLINE = '[[index]]\nname = "main"\noffline = true\n'
#: Values that make no sense for any option, and a name that is too long for a file system.
NONSENSE, OVERLONG = "\x01no\x1bnsense\udcff", "x" * 5_000
#: Commands that make the data directory, as they are the proxy when none runs.
MAKE_DIRECTORIES = ("serve", "warm")
#: Commands whose argument is a file that they write: it may have any name that a file can have.
WRITE_FILES = ("backup",)
#: Configurations that are none.
BROKEN = {
    "syntax": b"[server\n",
    "type": b"[server]\nlisten = 1\n",
    "binary": bytes(range(256)),
    "nested": b"a = " + b"[" * 20_000,
}


class Subject(Struct, frozen=True):
    """A command with what it takes."""

    name: str
    command: click.Command

    @property
    def arguments(self) -> list[str]:
        """A value for each argument."""
        return ["six" if not isinstance(each.type, click.Choice) else each.type.choices[0] for each in self._arguments]

    @property
    def _arguments(self) -> list[click.Argument]:
        return [each for each in self.command.params if isinstance(each, click.Argument)]

    @property
    def takes_any_number(self) -> bool:
        return any(each.nargs == -1 for each in self._arguments)

    @property
    def needs_something(self) -> bool:
        return any(each.required for each in self.command.params)

    def option(self, *names: str) -> str | None:
        """The first of *names* that it has."""
        return next((each for each in names for param in self.command.params if each in param.opts), None)

    @property
    def options(self) -> list[click.Option]:
        return [each for each in self.command.params if isinstance(each, click.Option)]

    def line(self, *more: str, data_dir: Path | None = None, config: Path | None = None) -> list[str]:
        """A command line with all arguments and all options that it requires."""
        line = self.name.split()
        for value, names in ((data_dir, ("--data-dir",)), (config, ("--config",))):
            name = self.option(*names)
            if value is not None and name is not None:
                line += [name, str(value)]
        for each in self.options:
            if each.required and each.opts[0] not in more:
                line += [each.opts[0], "out"]
        return [*line, *more]


def subjects() -> list[Subject]:
    context = click.Context(main)
    found = []
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            inner = {each: command.get_command(context, each) for each in command.list_commands(context)}
            found += [Subject(f"{name} {each}", made) for each, made in inner.items() if made is not None]
        else:
            found.append(Subject(name, command))
    return found


@pytest.fixture(params=subjects(), ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    file = tmp_path / "offline.toml"
    file.write_text(OFFLINE)
    return file


def explained(outcome: Outcome) -> bool:
    """Whether it failed with a message, and with nothing that only a programmer understands."""
    lines = [line for line in outcome.stderr.splitlines() if line and not line.startswith(("Usage: ", "Try '"))]
    whole = outcome.stdout + outcome.stderr
    return outcome.status in (1, 2) and 1 <= len(lines) <= 12 and "Traceback" not in whole and "Error(" not in whole


#: Runs commands in a directory; what they do has to be right.
Check = Callable[..., None]


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    process = Forking(tmp_path_factory.mktemp("home"))
    yield process
    process.close()


@pytest.fixture
def check(forking: Forking) -> Check:
    def check_all(runs: list[Run], home: Path, *, is_right: Callable[[Outcome], bool] = explained) -> None:
        wrong = [
            f"{' '.join(run.arguments)[:200]!a} -> {outcome!a}"
            for run in runs
            if not is_right(outcome := forking.outcome(run, home))
        ]
        assert not wrong, "\n".join(wrong)

    return check_all


def test_wrong_options_and_arguments(check: Check, subject: Subject, tmp_path: Path, offline: Path) -> None:
    nowhere = tmp_path / "nowhere"
    called = subject.name.split()
    lines = [[*called, "--no-such-option"], [*called, "--json=nonsense"]]
    lines += [called] if subject.needs_something else []
    lines += [] if subject.takes_any_number else [subject.line(*subject.arguments, "a", "b", "c", "d")]
    for option in subject.options:
        for value in () if option.is_flag or option.opts[0] == "--data-dir" else (NONSENSE,):
            lines.append(subject.line(*subject.arguments, option.opts[0], value, data_dir=nowhere, config=offline))
    check([Run(line) for line in lines], tmp_path)
    assert subject.name in MAKE_DIRECTORIES or not nowhere.exists()


def test_wrong_names(check: Check, subject: Subject, tmp_path: Path, offline: Path) -> None:
    if not subject.arguments:
        pytest.skip("it takes no argument")
    (tmp_path / "data").mkdir()
    values = (OVERLONG,) if subject.name in WRITE_FILES else (NONSENSE, OVERLONG)
    lines = [subject.line(*[value] * len(subject.arguments), data_dir=tmp_path / "data", config=offline) for value in values]
    check([Run(line) for line in lines], tmp_path)


def test_data_directories_that_are_none(check: Check, subject: Subject, tmp_path: Path, offline: Path) -> None:
    if subject.option("--data-dir") is None:
        pytest.skip("it works on no data directory")
    file, loop = tmp_path / "file", tmp_path / "loop"
    file.write_bytes(b"")
    loop.symlink_to(loop)
    directories = (file, loop, Path(f"/{OVERLONG}"))
    lines = [subject.line(*subject.arguments, data_dir=each, config=offline) for each in directories]
    check([Run(line) for line in lines], tmp_path)


def test_a_data_directory_that_lets_nobody_in(check: Check, subject: Subject) -> None:
    if subject.option("--data-dir") is None:
        pytest.skip("it works on no data directory")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "offline.toml").write_text(OFFLINE)
        (home / "data").mkdir()
        (home / "data").chmod(0)
        line = subject.line(*subject.arguments, data_dir=home / "data", config=home / "offline.toml")
        check([Run(line, nobody=True)], home)


def test_configurations_that_are_none(check: Check, subject: Subject, tmp_path: Path) -> None:
    if subject.option("--config") is None:
        pytest.skip("it reads no configuration")
    files = [tmp_path, tmp_path / "missing.toml"]
    for kind, data in BROKEN.items():
        files.append(tmp_path / f"{kind}.toml")
        files[-1].write_bytes(data)
    lines = [subject.line(*subject.arguments, config=each, data_dir=tmp_path / "data") for each in files]
    check([Run(line) for line in lines], tmp_path)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nnonsense\n"], ids=["nothing", "nonsense"])
def test_a_proxy_that_does_not_answer(check: Check, subject: Subject, tmp_path: Path, offline: Path, answer: bytes) -> None:
    if subject.option("--data-dir") is None:
        pytest.skip("it works on no data directory")
    if subject.name == "serve":
        pytest.skip("it is the proxy, and takes the place of one that has left its socket")
    data = tmp_path / "data"
    data.mkdir()
    more = [option, "http://127.0.0.1:9/"] if (option := subject.option("--proxy")) else []
    with answering(data / "admin.sock", answer):
        check([Run(subject.line(*subject.arguments, *more, data_dir=data, config=offline))], tmp_path)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A socket at *path* where somebody answers every connection with *answer*."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(BrokenPipeError):  # who looks only whose process it is asks nothing
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_requirement_files_that_are_none(check: Check, subject: Subject, tmp_path: Path, offline: Path) -> None:
    if subject.option("-r") is None:
        pytest.skip("it reads no requirement files")
    (tmp_path / "data").mkdir()
    names = ("requirements.txt", "uv.lock", "other.lock")
    for name in names:
        (tmp_path / name).write_bytes(os.urandom(64) + bytes(range(256)))
    values = (*names, ".", OVERLONG)
    lines = [subject.line("-r", value, data_dir=tmp_path / "data", config=offline) for value in values]
    check([Run(line) for line in lines], tmp_path)


def test_a_standard_output_that_nobody_reads(check: Check, subject: Subject, tmp_path: Path, offline: Path) -> None:
    """As with ``| head``: the command ends, and is silent about it."""
    (tmp_path / "data").mkdir()

    def is_right(outcome: Outcome) -> bool:
        return outcome.status in (0, 1, 2) and not any(each in outcome.stderr for each in ("Traceback", "Exception", "Broken"))

    full = subject.line(*subject.arguments, data_dir=tmp_path / "data", config=offline)
    bare = subject.line(data_dir=tmp_path / "data", config=offline)
    if subject.name != "serve":  # it serves on, whoever reads its log
        check([Run(line, closed=True) for line in (full, bare)], tmp_path, is_right=is_right)
    check(
        [Run([*subject.name.split(), "--help"], closed=True)],
        tmp_path,
        is_right=lambda shown: (shown.status, shown.stderr) == (1, ""),
    )
