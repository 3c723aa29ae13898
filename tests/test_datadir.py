"""The data directory belongs to one instance at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proxy.errors import ConfigError
from proxy.host import datadir


def test_it_is_created_for_its_owner_only(tmp_path: Path) -> None:
    claim = datadir.claim(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    claim.release()


def test_a_second_instance_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    claim = datadir.claim(tmp_path)
    with pytest.raises(ConfigError) as caught:
        datadir.claim(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"process id {os.getpid()} " in str(caught.value)
    claim.release()
    claim.release()
    datadir.claim(tmp_path).release()


def test_a_killed_instance_leaves_no_claim_behind(tmp_path: Path) -> None:
    code = "import os, sys, pathlib, proxy.host.datadir as d; d.claim(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, check=False).returncode == -9
    datadir.claim(tmp_path).release()


def test_the_child_of_a_fork_holds_the_claim_and_signs_it(tmp_path: Path) -> None:
    """As a daemon does, whose parent has claimed and gone."""
    code = (
        "import os, sys, pathlib, proxy.host.datadir as d\n"
        "claim = d.claim(pathlib.Path(sys.argv[1]))\n"
        "if os.fork(): os._exit(0)\n"
        "claim.sign(); print(os.getpid(), flush=True); sys.stdin.read()\n"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = parent.stdout.readline().strip()
        assert int(child) != parent.pid
        with pytest.raises(ConfigError, match=f"process id {child} "):
            datadir.claim(tmp_path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a directory that can be written"):
        datadir.claim(tmp_path / "file" / "x")
    with pytest.raises(ConfigError, match="expected a directory that can be written"):
        datadir.claim(tmp_path / "file")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        datadir.claim(tmp_path)


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()  # an empty one is closed: tests/test_serve.py
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"everybody may write there \(mode 0777\)"):
        datadir.claim(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_directory_of_another_user_is_refused_with_the_command_that_helps() -> None:
    with TemporaryDirectory() as name:  # below a directory that everybody may enter, which those of pytest are not
        place = Path(name)
        place.chmod(0o755)
        os.seteuid(12345)
        try:
            with pytest.raises(ConfigError) as caught:
                datadir.claim(place)
        finally:
            os.seteuid(0)
    assert f'"{place}": Permission denied; expected a directory that can be written' in str(caught.value)
    assert f"{place} belongs to user 0 and this process is user 12345: chown 12345 {place}, or" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("loop", "Too many levels of symbolic links|File exists"),
        ("x" * 300, "File name too long"),
        ("y/" * 2_500, "File name too long"),
    ],
    ids=["a loop", "a name that is too long", "a path that is too long"],
)
def test_a_path_that_leads_nowhere_is_told(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=f"({why}); expected a directory that can be written"):
        datadir.claim(tmp_path / name)
    with pytest.raises(ConfigError, match=f"({why}); expected a directory that can be read"):
        datadir.is_there(tmp_path / name)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_pipe, Path.mkdir])
def test_what_is_in_the_place_of_the_marker_and_no_file_delays_no_start(tmp_path: Path, make: Callable[[Path], None]) -> None:
    marker = tmp_path / "instance"
    make(marker)
    claims: list[datadir.Claim] = []
    thread = threading.Thread(target=lambda: claims.append(datadir.claim(tmp_path)), daemon=True)
    thread.start()
    thread.join(5)
    waits = thread.is_alive()
    while thread.is_alive():
        with suppress(OSError):
            os.close(os.open(marker, os.O_WRONLY | os.O_NONBLOCK))
        thread.join(0.1)
    for claim in claims:
        claim.release()
    assert claims
    assert not waits
