"""Tables of commands: they fit a terminal and break no word, and lose nothing when they are piped."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands.tables import drawn
from tests.support.process import ROOT, environment

COLUMNS = (("index", False), ("file", False), ("size", True), ("last used", False), ("why", False))
ROW = ["pypi", f"{'long-' * 12}name-1.0-py3-none-any.whl", "3.0 kB", "-", "the name packages.example cannot be resolved"]


def test_piped_a_record_is_one_line_with_all_of_its_values() -> None:
    heading, row = drawn(COLUMNS, [[*ROW[:4], "two\nlines"]], None)
    assert heading.split("  ")[0] == "index"
    assert row.startswith(f"pypi   {ROW[1]}  3.0 kB  -")
    assert row.endswith("two lines")
    assert drawn(COLUMNS, [ROW], None, headings=False) == [drawn(COLUMNS, [ROW], None)[1]]


def test_on_a_terminal_empty_columns_are_left_out_names_are_cut_from_the_left_and_text_is_wrapped() -> None:
    lines = drawn(COLUMNS, [ROW], 80)
    assert max(map(len, lines)) <= 80
    assert "last used" not in lines[0]
    assert "…" in lines[1]
    assert "name-1.0-py3-none-any.whl  3.0 kB" in lines[1]
    words = " ".join(line.split("kB")[-1] for line in lines[1:]).split()
    assert " ".join(words) == ROW[4]


def test_a_table_that_is_too_wide_nevertheless_is_a_block_per_record() -> None:
    columns = [(f"column {number}", True) for number in range(12)]
    lines = drawn(columns, [[str(number) for number in range(12)]] * 2, 80)
    assert len(lines) == 25
    assert lines[11] == "column 11  11"
    assert lines[12] == ""


@given(
    rows=st.lists(st.tuples(*[st.text("ab- ", max_size=60)] * 4), max_size=4),
    width=st.integers(min_value=60, max_value=200),
)
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, ...]], width: int) -> None:
    columns = [(heading, False) for heading in ("one", "two", "three", "four")]
    assert all(len(line) <= width for line in drawn(columns, rows, width))


@pytest.mark.parametrize("width", [80, 200])
def test_a_command_fits_the_terminal_that_it_runs_in(tmp_path: Path, width: int) -> None:
    (tmp_path / "data").mkdir()
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-c", "from proxy.cli import main; main()", "stats", "--data-dir", str(tmp_path / "data")]
    env = environment(tmp_path, PYTHONPATH=str(ROOT))
    assert subprocess.run(command, stdout=terminal, stderr=terminal, env=env, timeout=60, check=False).returncode == 0
    os.close(terminal)
    printed = os.read(main_end, 100_000).decode()
    os.close(main_end)
    assert "files" in printed
    assert max(len(line) for line in printed.splitlines()) <= width
