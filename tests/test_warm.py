"""``pypiproxy warm``, the real command: after it, with upstream cut off, real pip and real uv install what was warmed."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner

from proxy.cli import main
from proxy.settings import GroupSettings, HostedSettings, IndexSettings, UpstreamSettings
from tests import inprocess
from tests.hosting import upload
from tests.support import wire
from tests.support.clients import Scratch
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.process import ROOT, Ended, ProxyProcess, Running, environment
from tests.support.wheels import Distribution, sdist, wheel

MakeProxy = Callable[..., ProxyProcess]
Proxied = Callable[[], Awaitable[inprocess.Running]]

APP, LIB, OLD = wheel("app", requires=["lib>=2", "source"]), wheel("lib", "2.1", size=200_000), wheel("lib", "1.0")
SOURCE = sdist("source", "0.3")
STOCK = (APP, LIB, OLD, SOURCE, wheel("extra-thing"), wheel("tool"))
INSTALLED = {"app": "1.0", "lib": "2.1", "source": "0.3"}


@pytest.fixture
def stocked(upstream: FakeUpstream) -> FakeUpstream:
    for each in STOCK:
        upstream.add_file(each.project, each.filename, each.data)
    return upstream


@pytest.fixture
def proxied(stocked: FakeUpstream, serve: inprocess.Start) -> Proxied:
    """Starts a proxy in front of the upstream, as one is that is given nothing but its URL."""
    upstream = UpstreamSettings(name="pypi", url=stocked.url, allow_private_addresses=True)
    index = IndexSettings(name="pypi", upstreams=("pypi",), default=True)

    async def proxied() -> inprocess.Running:
        return await serve(upstream, indexes=(index,))

    return proxied


class Warm:
    """The command, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir()

    def start(self, *arguments: str) -> Running:
        command = [sys.executable, "-c", "from proxy.cli import main; main()", "warm", *arguments]
        return Running().spawn(command, environment(self.folder / "home", PYTHONPATH=str(ROOT)), self.folder)

    async def command(self, *arguments: str) -> Ended:
        """Another command than ``warm``."""
        command = [sys.executable, "-c", "from proxy.cli import main; main()", *arguments]
        environ = environment(self.folder / "home", PYTHONPATH=str(ROOT))
        return await Running().spawn(command, environ, self.folder).end()

    async def __call__(self, *arguments: str) -> Ended:
        return await self.start(*arguments).end()

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, "utf-8")
        return name

    def report(self, name: str = "report.json") -> Any:
        return json.loads((self.folder / name).read_text("utf-8"))


@pytest.fixture
def warm(tmp_path: Path) -> Warm:
    folder = tmp_path / "warm"
    folder.mkdir()
    return Warm(folder)


def entries(*made: Distribution) -> str:
    return ", ".join(f'{{file = "{each.filename}", hash = "sha256:{each.sha256}"}}' for each in made)


def tables(header: str, *made: Distribution, source: str = "") -> str:
    return "".join(
        f'[[{header}]]\nname = "{each.project}"\nversion = "{each.filename.split("-")[1].removesuffix(".tar.gz")}"\n'
        f"{source}files = [{entries(each)}]\n"
        for each in made
    )


def uv_lock(*made: Distribution) -> str:
    text = "version = 1\nrevision = 3\n"
    for each in made:
        file = f'{{ url = "https://files.example/{each.filename}", hash = "sha256:{each.sha256}" }}'
        kind = f"wheels = [{file}]" if each.filename.endswith(".whl") else f"sdist = {file}"
        version = each.filename.split("-")[1].removesuffix(".tar.gz")
        source = 'source = { registry = "https://index.example/simple" }'
        text += f'[[package]]\nname = "{each.project}"\nversion = "{version}"\n{source}\n{kind}\n'
    return text


def pylock(*made: Distribution) -> str:
    text = 'lock-version = "1.0"\ncreated-by = "tests"\n'
    for each in made:
        url = f'url = "https://files.example/{each.filename}"\nhashes = {{ sha256 = "{each.sha256}" }}\n'
        version = each.filename.split("-")[1].removesuffix(".tar.gz")
        table = "[[packages.wheels]]" if each.filename.endswith(".whl") else "[packages.sdist]"
        text += f'[[packages]]\nname = "{each.project}"\nversion = "{version}"\n{table}\nname = "{each.filename}"\n{url}'
    return text


PIPFILE_LOCK = json.dumps(
    {
        "_meta": {"pipfile-spec": 6},
        "default": {
            "app": {"version": "==1.0", "hashes": [f"sha256:{APP.sha256}"]},
            "lib": {"version": "==2.1", "hashes": [f"sha256:{LIB.sha256}"]},
            "source": {"version": "==0.3", "hashes": [f"sha256:{SOURCE.sha256}"]},
        },
    }
)
HASHED = "".join(
    f"{name} --hash=sha256:{made.sha256}\n" for name, made in (("app==1.0", APP), ("lib==2.1", LIB), ("source==0.3", SOURCE))
)

#: One of each kind of input; all come down to the same three files.
INPUTS = {
    "requirements.txt": "app\n",
    "hashed.txt": HASHED,
    "pyproject.toml": '[project]\nname = "mine"\nversion = "1"\ndependencies = ["app"]\n',
    "uv.lock": uv_lock(APP, LIB, SOURCE),
    "poetry.lock": tables("package", APP, LIB, SOURCE) + '[metadata]\nlock-version = "2.1"\n',
    "pdm.lock": '[metadata]\nlock_version = "4.5.0"\n' + tables("package", APP, LIB, SOURCE),
    "Pipfile.lock": PIPFILE_LOCK,
    "pylock.toml": pylock(APP, LIB, SOURCE),
}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", INPUTS)
async def test_after_it_installs_succeed_without_upstream(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm, tmp_path: Path, name: str
) -> None:
    proxy = await proxied()
    ended = await warm("-r", warm.write(name, INPUTS[name]), "--proxy", proxy.url, "--report", "report.json")
    assert ended.status == 0, ended.output
    # uv may have built the source archive already, to know what it needs
    states = {file["filename"]: file["state"] for file in warm.report()["files"]}
    assert states.pop(SOURCE.filename) in ("fetched", "there")
    assert states == {APP.filename: "fetched", LIB.filename: "fetched"}
    assert "0 failed" in ended.output
    await stocked.down()
    for install in (Scratch.pip, Scratch.uv):
        scratch = Scratch(tmp_path)
        installed = await install(scratch, proxy.url, "app")
        assert installed.status == 0, installed.output
        assert scratch.installed == INSTALLED


@pytest_twisted.ensureDeferred
async def test_what_is_there_is_not_fetched_again_and_a_mix_is_one_run(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    mixed = ["-r", warm.write("a.txt", "lib<2\n"), "-r", warm.write("b.txt", "lib>=2\n"), "tool", "--proxy", proxy.url]
    first = await warm(*mixed, "--report", "report.json")
    assert first.status == 0, first.output
    assert {file["filename"] for file in warm.report()["files"]} == {LIB.filename, OLD.filename, "tool-1.0-py3-none-any.whl"}
    before = stocked.count("/packages/*")
    second = await warm(*mixed)
    assert "3 files were there, 0 fetched, 0 failed" in second.output
    assert re.search(rf"requests to {re.escape(proxy.url)} went upstream$", second.output, re.MULTILINE)
    assert stocked.count("/packages/*") == before


@pytest_twisted.ensureDeferred
async def test_what_fails_is_named_and_the_rest_is_fetched(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    made = wheel("wrong")
    stocked.add_file("wrong", made.filename, made.data, metadata=made.metadata, hashes={"sha256": "0" * 64})
    proxy = await proxied()
    requirements = f"app\nno-such-project\nlib<1\nwrong\n-e .\ntool==1.0 --hash=sha256:{'1' * 64}\n"
    ended = await warm(
        "-r", warm.write("requirements.txt", requirements), "-r", "gone.lock", "--proxy", proxy.url, "--report", "report.json"
    )
    assert ended.status == 1, ended.output
    said = " ".join(f"{each['where']}: {each['why']}" for each in warm.report()["problems"])
    for words in (
        "upstream has no project no-such-project",
        "lib<1",
        "line 5: -e . is a path",
        "tool 1.0: no file on the index has one of its 1 hashes",
        "gone.lock: cannot be read: No such file or directory",
    ):
        assert words in said
    states = {file["filename"]: file["state"] for file in warm.report()["files"]}
    assert states[made.filename] == "failed"
    assert (states[APP.filename], states[LIB.filename]) == ("fetched", "fetched")


@pytest_twisted.ensureDeferred
async def test_requirements_that_exclude_each_other_are_named(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    proxy = await proxied()
    ended = await warm("app", "lib<2", "--proxy", proxy.url)
    assert ended.status == 1
    assert "app==1.0 depends on lib>=2" in ended.output or "unsatisfiable" in ended.output
    assert "1 failed" in ended.output
    assert "To do: relax one of the requirements that exclude each other" in ended.output
    assert f"fetched {OLD.filename}" in ended.output


@pytest_twisted.ensureDeferred
async def test_one_impossible_requirement_is_one_failure_with_a_hint_that_fits(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    other = wheel("old-python")
    name = "old_python-1.0-cp36-cp36m-win_amd64.whl"
    stocked.add_file("old-python", name, other.data, metadata=other.metadata)
    file = warm.write("requirements.txt", "app\nlib==9.9\ntool\nno-such-project\nold-python\n")
    ended = await warm("-r", file, "--python", "3.11", "--python", "3.12", "--proxy", proxy.base)
    failures = {
        line.split(": ")[1]: line.rpartition("To do: ")[2] for line in ended.output.splitlines() if line.startswith("failed: ")
    }
    assert (ended.status, len(failures)) == (1, 3), ended.output
    assert "3 failed" in ended.output
    assert failures["lib==9.9"].startswith("require a version that exists")
    assert failures["no-such-project"].startswith("check the spelling")
    assert failures["old-python"].startswith("name another --python or --platform")
    assert all(hint.endswith(f"(for cp3.11 on this platform, required by {file})") for hint in failures.values())
    await stocked.down()
    ended = await warm("not-asked-for-yet", "--proxy", proxy.base)
    (failure,) = [line for line in ended.output.splitlines() if line.startswith("failed: ")]
    assert "connection refused" in failure
    assert "pypiproxy upstreams" in failure.rpartition("To do: ")[2]


@pytest_twisted.ensureDeferred
async def test_an_outage_and_an_unknown_project_are_told_in_the_words_of_the_proxy(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    needy = wheel("needy", requires=["no-such-project"])
    stocked.add_file("needy", needy.filename, needy.data)
    proxy = await proxied()
    cure = "To do: check the spelling, and whether an upstream has the project"
    ended = await warm("No.Such.Project>1", "--latest", "1", "--proxy", proxy.base)
    said = [line for line in ended.output.splitlines() if line.startswith("failed: ")]
    assert said == [f"failed: No.Such.Project>1: upstream has no project no-such-project. {cure}"], ended.output
    assert (ended.status, "1 failed" in ended.output) == (1, True)
    ended = await warm("needy", "--proxy", proxy.base)
    said = [line for line in ended.output.splitlines() if line.startswith("failed: ")]
    assert said == [f"failed: needy: it needs no-such-project: upstream has no project no-such-project. {cure}"], ended.output
    await stocked.down()
    ended = await warm("not-asked-for-yet", "--latest", "1", "--proxy", proxy.base)
    (outage,) = [line for line in ended.output.splitlines() if line.startswith("failed: ")]
    assert outage.startswith("failed: not-asked-for-yet: upstream is unavailable ("), outage
    assert outage.endswith("). To do: see pypiproxy upstreams, and run this again later")
    assert outage.count("connection refused") == 1
    assert "--python" not in outage


@pytest_twisted.ensureDeferred
async def test_targets_platforms_and_what_goes_with_them(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    own = f"3.{sys.version_info.minor}"  # what is needed on all platforms is looked for from the running Python on
    names = [
        f"fast-1.0-cp{python}-cp{python}-{platform}.whl"
        for python in ("39", own.replace(".", ""))
        for platform in ("manylinux_2_28_x86_64", "win_amd64", "macosx_11_0_arm64")
    ]
    body = wheel("fast").data
    for name in names:
        stocked.add_file("fast", name, body + name.encode(), metadata=wheel("fast").metadata)
    proxy = await proxied()
    platforms = ["--platform", "manylinux_2_28_x86_64", "--platform", "win_amd64"]
    ended = await warm("fast", "--python", "3.9", "--python", own, *platforms, "--proxy", proxy.url, "--report", "report.json")
    assert ended.status == 0, ended.output
    assert {file["filename"] for file in warm.report()["files"]} == {name for name in names if "macosx" not in name}
    ended = await warm("fast", "--universal", "--proxy", proxy.url, "--report", "report.json")
    assert {file["filename"] for file in warm.report()["files"]} == set(names)


@pytest_twisted.ensureDeferred
async def test_no_deps_latest_sdists_and_a_dry_run(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    for version in ("0.1", "0.2", "0.4rc1"):
        made = sdist("source", version)
        stocked.add_file("source", made.filename, made.data)
    proxy = await proxied()
    dry = await warm("app", "--no-deps", "--dry-run", "--proxy", proxy.url)
    assert (dry.status, f"wanted {APP.filename}" in dry.output, "0 files are there, 1 would be asked for" in dry.output) == (
        0,
        True,
        True,
    )
    assert stocked.count("/packages/*.tar.gz") == 0
    ended = await warm("source", "--latest", "2", "--proxy", proxy.url, "--report", "report.json")
    assert ended.status == 0, ended.output
    assert {file["version"] for file in warm.report()["files"]} == {"0.3", "0.2"}
    none = await warm("source", "--only-binary", "--proxy", proxy.url)
    assert none.status == 1


@pytest_twisted.ensureDeferred
async def test_what_building_a_source_archive_needs_is_fetched_too(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    made = sdist("needy", build_requires=["tool"])
    stocked.add_file("needy", made.filename, made.data)
    proxy = await proxied()
    lock = tables("package", made) + '[metadata]\nlock-version = "2.1"\n'  # which leaves uv nothing to build
    ended = await warm("-r", warm.write("poetry.lock", lock), "--proxy", proxy.url)
    assert ended.status == 0, ended.output
    assert "fetched needy-1.0.tar.gz" in ended.output
    assert "fetched tool-1.0-py3-none-any.whl" in ended.output


@pytest_twisted.ensureDeferred
async def test_the_plain_address_of_the_proxy_means_its_default_index(
    stocked: FakeUpstream, proxied: Proxied, warm: Warm
) -> None:
    proxy = await proxied()
    for option, address in (
        ("--proxy", proxy.base),
        ("--url", f"{proxy.base}/"),
        ("--url", f"{proxy.base}/simple"),
        ("--proxy", f"{proxy.base}/index/pypi"),
    ):
        ended = await warm("tool", option, address)
        assert ended.status == 0, ended.output
    assert stocked.count("/simple/") == 0, "nobody needs the list of all projects"


@pytest_twisted.ensureDeferred
async def test_a_plain_port_that_is_named_with_https_is_told(proxied: Proxied, warm: Warm) -> None:
    proxy = await proxied()
    ended = await warm("tool", "--proxy", proxy.base.replace("http:", "https:"))
    assert (ended.status, "the URL of the proxy must begin with http://" in ended.output) == (1, True), ended.output
    assert "start the proxy there" not in ended.output


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_no_proxy_is_taken_by_its_url_alone(stocked: FakeUpstream, warm: Warm) -> None:
    ended = await warm("tool", "--proxy", stocked.url.removesuffix("simple/"))
    assert (ended.status, "the index has no project tool" in ended.output) == (1, True), ended.output


@pytest_twisted.ensureDeferred
async def test_when_no_proxy_runs_it_works_on_the_data_directory(stocked: FakeUpstream, warm: Warm) -> None:
    config = f'[upstream.fake]\nurl = "{stocked.url}"\n[[index]]\nname = "main"\nupstreams = ["fake"]\ndefault = true\n'
    options = ["--config", warm.write("pypiproxy.toml", config), "--data-dir", str(warm.folder / "data")]
    nobody = await warm("app", "--proxy", "http://127.0.0.1:9/simple/")
    assert (nobody.status, "cannot be reached" in nobody.output, "start the proxy there" in nobody.output) == (1, True, True)
    ended = await warm("app", *options)
    assert ended.status == 0, ended.output
    assert "working on" in ended.output
    await stocked.down()
    again = await warm("app", *options)
    assert "3 files were there, 0 fetched, 0 failed" in again.output, again.output


@pytest_twisted.ensureDeferred
async def test_it_stops_cleanly_and_the_next_run_goes_on(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    proxy = await proxied()
    gate = stocked.hold(
        lambda request: request.method == "GET" and request.path.endswith(LIB.filename) and "range" not in request.headers
    )
    running = warm.start("app", "--proxy", proxy.url)
    await running.until(lambda: f"fetched {APP.filename}" in running.output, 60.0)
    await stocked.until(lambda: gate.arrivals > 0)
    running.signal(signal.SIGINT)
    ended = await running.end()
    assert ended.status == 130, ended.output
    assert "stopped: what was fetched stays" in ended.output
    assert "Traceback" not in ended.output
    gate.release()
    again = await warm("app", "--proxy", proxy.url)
    assert again.status == 0, again.output
    assert f"there {APP.filename}" in again.output


@pytest_twisted.ensureDeferred
async def test_an_upstream_that_fails_now_and_then_fails_no_file(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    stocked.script("/packages/*", Fault(status=503), times=2)
    proxy = await proxied()
    ended = await warm("app", "--proxy", proxy.url)
    assert ended.status == 0, ended.output


@pytest_twisted.ensureDeferred
async def test_what_was_fetched_is_pinned_and_what_was_asked_for_is_known(
    stocked: FakeUpstream, make_proxy: MakeProxy, warm: Warm
) -> None:
    proxy = await make_proxy(stocked.url).started()
    ended = await warm("lib", "--pin", "--proxy", proxy.url, "--data-dir", str(proxy.data_dir))
    assert ended.status == 0, ended.output
    pins = await warm.command("pins", "--json", "--data-dir", str(proxy.data_dir))
    assert LIB.filename in pins.output
    newer = wheel("lib", "3.0")
    stocked.add_file("lib", newer.filename, newer.data)
    await warm.command("refresh", "lib", "--data-dir", str(proxy.data_dir))
    ended = await warm("--recent", "1d", "--proxy", proxy.url, "--data-dir", str(proxy.data_dir))
    assert f"fetched {newer.filename}" in ended.output, ended.output
    ended = await warm("lib", "--pin", "--proxy", proxy.url, "--data-dir", str(warm.folder))
    assert (ended.status, "name it with --data-dir" in ended.output) == (1, True)


@pytest_twisted.ensureDeferred
async def test_its_requests_and_those_of_its_resolver_are_not_counted_as_those_of_clients(
    stocked: FakeUpstream, make_proxy: MakeProxy, warm: Warm
) -> None:
    proxy = await make_proxy(stocked.url).started()

    async def answered() -> Any:
        ended = await warm.command("stats", "--json", "--data-dir", str(proxy.data_dir))
        return json.loads(ended.output)["answered"]

    for _ in range(2):
        assert (await warm("app", "--proxy", proxy.base)).status == 0
    assert await answered() == {}
    for agent in ("pypiproxy-warm", "pip/26.0", "pypiproxy-warm"):
        await wire.fetch(proxy.port, "/simple/lib/", **{"User-Agent": agent})
    assert await answered() == {"pypi": {"simple": {"hit": 1}}}
    # Whoever is on another machine may call itself anything, and comes through a proxy to be on this one.
    for fields in ({"User-Agent": "pypiproxy-warm"}, {"Authorization": "Basic cHlwaXByb3h5LXdhcm06"}):
        for field, value in (("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1")):
            await wire.fetch(proxy.port, "/simple/lib/", **fields, **{field: value})
    assert await answered() == {"pypi": {"simple": {"hit": 5}}}
    exposed = (await wire.fetch(proxy.port, "/-/metrics")).body.decode()
    hits = re.findall(r'pypiproxy_requests_total\{cache="hit",index="pypi",route="page",status="200"\} (.*)', exposed)
    assert hits == ["5.0"]
    assert 'cache="warm",index="pypi",route="page",status="200"' in exposed


@pytest_twisted.ensureDeferred
async def test_following_goes_on_until_it_is_stopped(stocked: FakeUpstream, proxied: Proxied, warm: Warm) -> None:
    proxy = await proxied()
    running = warm.start("lib", "--follow", "--interval", "1h", "--proxy", proxy.url)
    await running.until(lambda: "1 fetched" in running.output, 60.0)
    running.signal(signal.SIGTERM)
    assert ((await running.end()).status, "Traceback" in running.output) == (130, False), running.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to warm"),
        (("six", "--universal", "--python", "3.9"), "--universal means all platforms"),
        (("six", "--platform", "amiga"), "--platform amiga: expected a wheel's platform tag"),
        (("six", "--proxy", "ftp://x"), "--proxy ftp://x: expected the URL of an index"),
        (("six", "--jobs", "0"), "--jobs"),
        (("six", "-c", "constraints.txt"), "constraints are given with --constraint"),
        (("six", "--recent", "soon"), "expected a duration"),
        (("six", "--follow", "--interval", "1s"), "--interval of at least 60s"),
        (("six", "--follow", "--dry-run"), "cannot be used with --dry-run"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], said: str) -> None:
    ended = CliRunner().invoke(main, ["warm", *arguments])
    assert (ended.exit_code, said in ended.output) == (2, True), ended.output


@pytest_twisted.ensureDeferred
async def test_through_a_group_private_names_are_resolved_and_never_told_upstream(
    stocked: FakeUpstream, serve: inprocess.Start, warm: Warm
) -> None:
    stocked.add_file("acme-app", "acme_app-99.0-py3-none-any.whl", b"an attacker's")
    members = GroupSettings(members=("internal", "pypi"))
    indexes = (
        IndexSettings(name="internal", kind="hosted", hosted=HostedSettings(owns=("acme-*",))),
        IndexSettings(name="pypi", upstreams=("up0",)),
        IndexSettings(name="all", kind="group", default=True, group=members),
    )
    proxy = await serve(stocked, indexes=indexes)
    for each in (wheel("acme-app", requires=["acme-lib", "app"]), sdist("acme-lib", "0.1")):
        await upload(proxy.service.receiving["internal"], each)
    ended = await warm("acme-app", "--proxy", proxy.base, "--python", "3.12")
    assert ended.status == 0, ended
    missing = await warm("acme-none", "--proxy", proxy.base, "--python", "3.12")
    assert (missing.status, "acme-none" in missing.output) == (1, True)
    assert [each.path for each in stocked.asked if "acme" in each.path.lower()] == []
    # What hosted projects need of the public index is cached.
    stored = {each["project"] for each in await proxy.service.administration.perform("ls", index="pypi")}
    assert stored == {"app", "lib", "source"}
