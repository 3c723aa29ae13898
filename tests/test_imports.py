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


def test_a_start_loads_nothing_that_only_some_requests_or_commands_need() -> None:
    code = "import sys, proxy.tap, proxy.service, proxy.config; proxy.config.load(None, environ={}); print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    )
    assert "proxy.web.site" in loaded
    assert not loaded & {"rich", "treq", "selectolax", "distlib.index", "packaging.metadata", "packaging.requirements", "click"}
