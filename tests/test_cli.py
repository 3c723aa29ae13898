"""The ``pypiproxy`` command."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_twisted
from click.testing import CliRunner, Result

import proxy
from proxy import config
from proxy.cli import COMMANDS, main
from proxy.host.ports import port_trouble
from tests.support.fake_upstream import FakeUpstream
from tests.support.forked import Forking, Run
from tests.support.logins import write_users
from tests.support.operator import Operator
from tests.support.process import ProxyProcess

EXAMPLE = Path(__file__).parent.parent / "conf" / "pypiproxy.toml"


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    process = Forking(tmp_path_factory.mktemp("home"))
    yield process
    process.close()


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


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (("verfy",), "No such command 'verfy'; did you mean verify?"),
        (("ls", "--jsn"), "No such option '--jsn'. Did you mean"),
        (("export", "six", "-o", "bundle", "--index", "pypy"), "with --config; did you mean pypi?"),
        (("ls", "--index", "pypy"), "there is no index named 'pypy' here; there is pypi; did you mean pypi?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_nearest_name_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forking: Forking, line: tuple[str, ...], meant: str
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    place = ["--data-dir", str(tmp_path / "data")] if len(line) > 2 else []
    outcome = forking.outcome(Run([*line, *place]), tmp_path)
    assert meant in " ".join(outcome.stderr.split())


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
        ("pypiproxy serve --log-level d", ["plain,debug"]),
        ("pypiproxy serve --log-format j", ["plain,json"]),
        ("pypiproxy serve --access-log f", ["plain,full"]),
        ("pypiproxy client-config pi", ["plain,pip", "plain,pipenv", "plain,pip-tools"]),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, offered: list[str]) -> None:
    completing = {"_PYPIPROXY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-c", "from proxy.cli import main; main(prog_name='pypiproxy')"]
    output = subprocess.run(command, env={**os.environ, **completing}, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == offered


def test_a_sound_file_is_fine_and_summed_up() -> None:
    result = run("check-config", EXAMPLE, "--skip-ports")
    assert result.exit_code == 0
    assert result.output.startswith(f"{EXAMPLE}: fine\n")
    assert "listens on tcp:3143:interface=127.0.0.1" in result.output
    assert "serves /simple/ and /index/pypi/simple/ from pypi <https://" in result.output


def test_a_data_directory_that_cannot_be_one_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    file = tmp_path / "pypiproxy.toml"
    file.write_text('[server]\ndata_dir = "data"\n')
    result = run("check-config", file, "--skip-ports")
    assert result.exit_code == 0
    warned = f"  warning: {tmp_path}/data is not a directory: name another one in server.data_dir"
    assert warned in result.output.splitlines()


def test_without_a_file_the_defaults_are_checked() -> None:
    result = run("check-config", "--skip-ports")
    assert result.exit_code == 0
    assert result.output.startswith("defaults: fine\n")


def test_an_upstream_whose_url_may_lack_simple_is_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    upstream = '[upstream.corp]\nurl = "https://packages.example/root/pypi//"\n'
    text = upstream + '[[index]]\nname = "main"\nupstreams = ["corp", "pypi"]\n'
    file.write_text(text)
    result = run("check-config", "--config", file, "--skip-ports")
    assert result.exit_code == 0
    (note,) = [line for line in result.output.splitlines() if "note:" in line]
    assert note.endswith("set it to https://packages.example/root/pypi/simple/")


def test_trusted_proxies_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text('[server]\ntrusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n')
    shown = "believes 127.0.0.1/32, 10.0.0.0/8 about the addresses of clients (trusted_proxies)\n"
    assert shown in run("check-config", file, "--skip-ports").output
    assert "trusted_proxies" not in run("check-config", "--skip-ports").output


def test_an_offline_index_is_shown_as_such(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text('[[index]]\nname = "main"\nupstreams = ["pypi"]\noffline = true\n')
    assert (
        "serves /simple/ and /index/main/simple/ from what is stored alone: it is offline\n"
        in run("check-config", file, "--skip-ports").output
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


def test_all_endpoints_that_are_none_are_told_at_once_with_other_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(
        f'[server]\ndata_dir = "{tmp_path}/data"\nlisten = ["nonsense:1", "127.0.0.1:0", "70000"]\n'
        'metrics_listen = ["tcp:http"]\nprobe_listen = ["unix:/run/a"]\n'
        'dashboard_listen = ["ssl:0:privateKey=/nonexistent.pem"]\nlistn = 1\n'
    )
    result = run("check-config", file)
    assert (result.exit_code, result.stdout) == (1, "")
    heading, *mistakes = result.stderr.splitlines()
    assert heading == "6 mistakes in the configuration:"
    said = [
        ('server.probe_listen = ["unix:/run/a"]: ', "expected a port of TCP without TLS"),
        ("server.listn: ", "did you mean listen?"),
        ('server.listen = "nonsense:1": ', "expected a Twisted endpoint"),
        ('server.listen = "70000": ', "there is no port 70000"),
        ('server.metrics_listen = "tcp:http": ', "expected a Twisted endpoint"),
        ('server.dashboard_listen = "ssl:0:privateKey=/nonexistent.pem": ', "/nonexistent.pem"),
    ]
    for mistake, (where, what) in zip(mistakes, said, strict=True):
        assert mistake.startswith(f"  {file}: {where}")
        assert what in mistake


def test_a_port_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listen = [f"tcp:{port}:interface=127.0.0.1", "tcp:0:interface=192.0.2.1", "unix:/no/such/directory/socket", "tcp6:0"]
        file.write_text(f'[server]\ndata_dir = "data"\nlisten = {listen}\n')
        result = run("check-config", file)
        assert run("check-config", file, "--skip-ports").exit_code == 0
    assert (result.exit_code, result.stdout) == (1, "")
    in_use, elsewhere, folder = result.stderr.splitlines()
    assert f'server.listen = "{listen[0]}": port {port} is in use by another program' in in_use
    assert elsewhere.endswith("no interface of this machine has the address 192.0.2.1")
    assert folder.endswith("/no/such/directory is not a directory that this user can write to")


@pytest.mark.parametrize(
    "description",
    [
        "tcp:0:192.0.2.1",
        "tcp4:0:192.0.2.1",
        "tcp6:0:50:2001\\:db8\\:\\:1",
        "ssl:0:key.pem:cert.pem:TLS_METHOD:192.0.2.1",
        "tls:certificates:0:50:192.0.2.1",
    ],
)
def test_an_interface_is_recognised_by_its_position_too(description: str) -> None:
    assert (port_trouble(description) or "").startswith("no interface of this machine has the address ")


def test_a_privileged_port_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)  # root may use all of them
    assert (port_trouble("tcp:80") or "").startswith("port 80 is privileged: choose a port from 1024")


@pytest_twisted.ensureDeferred
async def test_the_port_of_the_proxy_that_runs_with_the_file_is_no_problem(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    proxy = await make_proxy(upstream.url).started()
    file = tmp_path / "proxy.toml"
    file.write_text(f'[server]\nlisten = ["tcp:{proxy.port}:interface=127.0.0.1"]\n')
    checked = await Operator(tmp_path, proxy.data_dir).without_directory("check-config", str(file))
    assert (checked.status, "is in use" in checked.output) == (1, True)
    file.write_text(f'{file.read_text()}data_dir = "{proxy.data_dir}"\n')
    checked = await Operator(tmp_path, proxy.data_dir).without_directory("check-config", str(file))
    assert checked.status == 0, checked.output


def test_the_effective_configuration_is_printed_and_is_one(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[server]\nlisten = ["tcp:0", "unix:/run/a \\"b\\".sock"]\ndrain_time = "0s"\nidle_timeout = "1500ms"\n'
        'page_memory = "3MiB"\n'
        'max_size = "20GB"\nmin_free = "1500kB"\ntrusted_proxies = ["10.0.0.0/8"]\ncontact = "ops@corp.example"\n'
        '[upstream."a.b"]\nurl = "https://a.example/simple/"\nmax_rate = 2.5\nmax_lag = "1d"\nfile_hosts = ["*.a.example"]\n'
        'allow_private_addresses = true\nredirect_hosts = ["b.example"]\nforbidden = "missing"\n'
        '[[index]]\nname = "main"\nupstreams = ["a.b", "pypi"]\ndefault = true\nhedge_after = "250ms"\nstale_if_error = "2w"\n'
        '[[index]]\nname = "gap"\noffline = true\nprefetch = false\n'
        '[warm]\nprojects = ["six"]\nrecent = "30d"\ninterval = "90m"\npython = ["3.12"]\npin = true\n'
        '[access]\nusers_file = "users"\nallow_plaintext_auth = true\naudit_size = "3MB"\naudit_files = 2\n'
        '[access.groups]\nweb = ["alice"]\n"all.of.us" = ["alice", "bob@corp.example"]\n'
        '[[grant]]\nrole = "admin"\nindexes = ["main"]\nprojects = ["a-*"]\nprincipals = ["group:web", "token:x1"]\n'
        '[[grant]]\nrole = "reader"\nprincipals = ["anonymous"]\n'
    )
    write_users(tmp_path / "users", "alice", "bob@corp.example")
    for file in (EXAMPLE, own):
        shown = run("check-config", file, "--show", "--skip-ports")
        assert shown.exit_code == 0, shown.output
        again = tmp_path / "again.toml"
        again.write_text(shown.output)
        assert config.load(again) == config.load(file)


def test_secrets_are_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORP_SECRET", "hunter2")
    (tmp_path / "secret").write_text("hunter2\n")
    file = tmp_path / "proxy.toml"
    file.write_text(
        '[upstream.a]\nurl = "https://a.example/simple/"\nusername = "me"\npassword_file = "secret"\n'
        'outbound_proxy = "http://me:hunter2@proxy.example:3128"\n'
        '[upstream.b]\nurl = "https://b.example/simple/"\ntoken_file = "secret"\n'
        '[upstream.c]\nurl = "https://c.example/simple/"\nusername = "me"\npassword_env = "CORP_SECRET"\n'
        '[upstream.d]\nurl = "https://d.example/simple/"\ntoken_env = "CORP_SECRET"\n'
        '[[index]]\nname = "main"\nupstreams = ["a", "b", "c", "d"]\n'
    )
    shown = run("check-config", file, "--show", "--skip-ports")
    assert shown.exit_code == 0
    assert "hunter2" not in shown.output
    for key in ("password_file", "token_file"):
        assert f'{key} = "{tmp_path / "secret"}"' in shown.output
    assert '# username "me" with a password, which is not shown' in shown.output
    assert "# a token, which is not shown" in shown.output
