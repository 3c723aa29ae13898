"""What commands import: those that are short to run are not to be long to load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import pytest_twisted

from tests.support.fake_upstream import FakeUpstream
from tests.support.process import ROOT, ProxyProcess, environment, run

#: Each takes longer to import than asking a running proxy does.
SLOW = {
    *(
        "twisted",
        "zope",
        "OpenSSL",
        "ssl",
        "http.client",
        "email",
        "diskcache",
        "sqlite3",
        "rich",
        "treq",
        "distlib",
        "packaging",
    ),
    *("selectolax", "ijson", "zstandard", "isal", "prometheus_client", "uv", "platformdirs", "asyncio"),
}
_LOADED = """
import sys
from proxy.cli import main
try:
    main(sys.argv[1:], prog_name="pypiproxy")
finally:
    import json
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""


async def slow_imports(place: Path, arguments: Sequence[str]) -> set[str]:
    """Those of `SLOW` that the command with *arguments* imports."""
    command = [sys.executable, "-c", _LOADED, *arguments]
    ended = await run(command, environment(place, PYTHONPATH=str(ROOT)), place)
    assert ended.status == 0, ended.output
    loaded: list[str] = json.loads(ended.output[ended.output.rindex("[") :])
    assert "proxy.cli" in loaded
    return SLOW & set(loaded)


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("_clean_reactor")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["version"], ["serve", "--help"], ["stats", "--help"]], ids=" ".join
)
async def test_help_and_version_load_little(tmp_path: Path, arguments: list[str]) -> None:
    assert await slow_imports(tmp_path, arguments) == set()


@pytest_twisted.ensureDeferred
async def test_commands_that_a_running_proxy_answers_load_little(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await make_proxy(upstream.url, config="[server]\nmax_connections = 100\n").started()
    for arguments in (["stats"], ["upstreams"], ["ls"], ["refresh", "six"], ["pins"]):
        directory = ["--data-dir", str(proxy.data_dir)]
        assert (arguments, await slow_imports(tmp_path, [*arguments, *directory])) == (arguments, set())
    configured = ["--config", str(proxy.place / "pypiproxy.toml")]
    (proxy.place / "pypiproxy.toml").write_text(f'[server]\ndata_dir = "{proxy.data_dir}"\n')
    assert await slow_imports(tmp_path, ["stats", *configured]) == set()


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("_clean_reactor")
async def test_what_is_wrong_elsewhere_in_the_file_is_told_when_no_proxy_runs(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(f'[server]\ndata_dir = "{tmp_path}"\ndrain_time = "soon"\n')
    command = [sys.executable, "-c", _LOADED, "stats", "--config", str(file)]
    ended = await run(command, environment(tmp_path, PYTHONPATH=str(ROOT)), tmp_path)
    assert ended.status == 1
    assert f'{file}: server.drain_time = "soon": expected a duration' in ended.output


#: What the second line prints is loaded by a start, what the third prints besides that by what follows soon after it.
_START = """
import os, sys
from pathlib import Path

import proxy.config, proxy.service, proxy.tap
from twisted.internet import reactor, task

from proxy.composition.preloading import Preloading
from proxy.mechanism.offload import Inline

service = proxy.service.build(proxy.config.load(Path(sys.argv[1]), environ={}), reactor)
ours = [module for name, module in sys.modules.items() if name.startswith("proxy.")]
classes = [each for module in ours for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
print(*(each for each in classes if hasattr(each, "__attrs_attrs__") or hasattr(each, "__dataclass_fields__")))
print(*(before := set(sys.modules)))
clock = task.Clock()
preloading = Preloading(clock, Inline())
preloading.startService()
clock.advance(60)
print(*set(sys.modules) - before, flush=True)
os._exit(0)
"""
#: Each of them is needed by some services, requests or commands alone.
_LATE = {
    *("click", "rich", "treq", "platformdirs", "distlib.index", "netrc", "csv", "multipart", "prometheus_client"),
    *("packaging", "selectolax", "html.parser", "ijson", "isal", "zstandard", "argon2", "docutils", "readme_renderer"),
    *("twisted.web.server", "twisted.web.resource", "twisted.web.template", "twisted.spread", "twisted.plugins"),
    *("twisted.application.internet", "proxy.administration.operations", "proxy.composition.operations"),
    *("proxy.composition.dashboard", "proxy.composition.hosted", "proxy.composition.group", "proxy.composition.ci"),
    *("proxy.composition.warming", "proxy.web.hypertext", "proxy.web.upload_form", "proxy.statistics.exposition"),
    *(
        "proxy.upstream.http.connecting",
        "proxy.upstream.http.connection",
        "proxy.upstream.http.reuse",
        "proxy.upstream.http.body",
    ),
    *("twisted.web.client", "proxy.mechanism.twisted_client", "proxy.warm.heads"),
    *("proxy.simple.from_html", "proxy.simple.from_json", "proxy.simple.legacy", "proxy.simple.project_list"),
}
#: Those of them that pages and files need.
_SOON = {
    *("packaging", "isal", "zstandard", "proxy.simple.from_json"),
    *(
        "proxy.upstream.http.connecting",
        "proxy.upstream.http.connection",
        "proxy.upstream.http.reuse",
        "proxy.upstream.http.body",
    ),
}
#: Folders of the project that a start needs nothing of.
_ROOMS = {"hosted", "bundle", "moving", "warm", "identity", "doctor", "commands"}
_CONFIGURATION = """
[server]
data_dir = "data"

[upstream.up]
url = "https://up.example/simple/"

[[index]]
name = "up"
upstreams = ["up"]
default = true

[access]
users_file = "users"

[[grant]]
role = "reader"
indexes = ["up"]
principals = ["authenticated"]
"""


def test_a_start_loads_what_every_service_needs_and_what_pages_and_files_need_soon_after_it(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(_CONFIGURATION)
    (tmp_path / "users").touch(mode=0o600)
    command = [sys.executable, "-c", _START, str(tmp_path / "proxy.toml")]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path, PYTHONPATH=str(ROOT)), capture_output=True, text=True, check=True
    )
    compiled, start, later = (set(line.split()) for line in ended.stdout.splitlines())
    assert compiled == set(), "each of these compiles its methods: a value is a msgspec.Struct"
    assert {"proxy.web.site", "proxy.composition.proxied", "proxy.upstream.http.client"} <= start
    assert start & _LATE == set()
    assert {name.split(".")[1] for name in start if name.startswith("proxy.")} & _ROOMS == set()
    assert {"packaging.utils", "packaging.specifiers", "isal.igzip"} | _SOON <= later
    assert later & _LATE == _SOON
