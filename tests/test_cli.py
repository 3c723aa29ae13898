"""The ``pypiproxy`` command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import proxy
from proxy.cli import COMMANDS, main

EXAMPLE = Path(__file__).parent.parent / "conf" / "pypiproxy.toml"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("argument", ["--version", "-V", "version"])
def test_it_tells_its_version(argument: str) -> None:
    assert run(argument).output == f"pypiproxy {proxy.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_listed_and_explains_itself(name: str) -> None:
    assert len(COMMANDS[name].summary) <= 45
    assert re.search(rf"^  {name} +{re.escape(COMMANDS[name].summary)}$", run("--help").output, re.MULTILINE)
    explained = run(name, "--help")
    assert explained.output.startswith(f"Usage: main {name} ")
    assert explained.exit_code == 0


def test_a_command_that_does_not_exist_is_refused() -> None:
    refused = run("nonsense")
    assert refused.exit_code == 2
    assert "No such command 'nonsense'" in refused.stderr


def test_listing_the_commands_imports_none_of_them() -> None:
    listed = "from proxy.cli import main; import sys; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout
    assert "'proxy.commands.lazily'" in output
    assert not [each for each in ("'twisted'", "'rich'", "'proxy.config'") if each in output]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pypiproxy ver", ["plain,verify", "plain,version"]),
        ("pypiproxy serve --log-", ["plain,--log-format", "plain,--log-level"]),
        ("pypiproxy client-config pi", ["plain,pip", "plain,pipenv", "plain,pip-tools"]),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, offered: list[str]) -> None:
    completing = {"_PYPIPROXY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "from proxy.cli import main; main(prog_name='pypiproxy')"]
    output = subprocess.run(command, env={**os.environ, **completing}, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == offered


def test_a_sound_file_is_fine_and_summed_up() -> None:
    result = run("check-config", EXAMPLE)
    assert result.exit_code == 0
    assert result.output.startswith(f"{EXAMPLE}: fine\n")
    assert "listens on tcp:3143:interface=127.0.0.1" in result.output
    assert "serves /simple/ and /index/pypi/simple/ from pypi <https://" in result.output


def test_without_a_file_the_defaults_are_checked() -> None:
    result = run("check-config")
    assert result.exit_code == 0
    assert result.output.startswith("defaults: fine\n")


def test_an_upstream_whose_url_may_lack_simple_is_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    upstream = '[upstream.corp]\nurl = "https://packages.example/root/pypi//"\n'
    text = upstream + '[[index]]\nname = "main"\nupstreams = ["corp", "pypi"]\n'
    file.write_text(text)
    result = run("check-config", file)
    assert result.exit_code == 0
    (note,) = [line for line in result.output.splitlines() if "note:" in line]
    assert note.endswith("set it to https://packages.example/root/pypi/simple/")


def test_trusted_proxies_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text('[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n')
    shown = "believes 127.0.0.1/32, 10.0.0.0/8 about the addresses of clients (trusted_proxies)\n"
    assert shown in run("check-config", file).output
    assert "trusted_proxies" not in run("check-config").output


def test_an_offline_index_is_shown_as_such(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text('[[index]]\nname = "main"\nupstreams = ["pypi"]\noffline = true\n')
    assert (
        "serves /simple/ and /index/main/simple/ from what is stored alone: it is offline\n" in run("check-config", file).output
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [("[server]\nlistn = 1", "did you mean listen?"), ('[server]\nlisten = ["nonsense:1"]', 'server.listen = "nonsense:1"')],
)
def test_a_mistake_is_told_on_standard_error_with_status_1(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(text)
    result = run("check-config", file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert str(file) in result.stderr
    assert "Traceback" not in result.stderr
