"""What tools upload, in front of an index in memory: twine, uv, poetry, pdm, flit, hatch, and old setuptools and distutils."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from msgspec import Struct
from twisted.internet.defer import Deferred

from proxy.access.rights import Access
from tests.clients.tools import tool
from tests.support.counter import Counter
from tests.support.process import Ended, environment, run
from tests.support.publishers import PASSWORD, USER, write
from tests.support.receiving import Shop
from tests.support.wheels import sdist, wheel

WHEEL, SDIST = wheel("Shop.App", "1.0", size=100_000), sdist("Shop.App", "1.0")
PROJECT = """\
[project]
name = "Shop.App"
version = "1.0"
description = "made for a test"
"""
FLIT = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[tool.flit.module]
name = "shop_app"
"""
SETUP = "from {module} import setup\n\nsetup(name='Shop.App', version='1.0', py_modules=['shop_app'])\n"
PYPIRC = (
    f"[distutils]\nindex-servers = internal\n\n[internal]\nrepository = {{url}}\nusername = {USER}\npassword = {PASSWORD}\n"
)


class Workshop(Struct, frozen=True):
    """A *folder* with a project, and the URL that it is uploaded to."""

    folder: Path
    url: str

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    @property
    def dist(self) -> list[str]:
        """The files of the project, built."""
        return write(self.folder / "dist", WHEEL, SDIST)

    async def run(self, client: str, *command: str, variables: Mapping[str, str] | None = None) -> Ended:
        env = environment(self.folder, NO_COLOR="1", CI="1", COLUMNS="400", **(variables or {}))
        env["PATH"] = f"{tool(client)}:{env['PATH']}"
        return await run([str(tool(client) / command[0]), *command[1:]], env, self.folder, 120.0)


async def twine(at: Workshop) -> Ended:
    options = ("--non-interactive", "--verbose", "--repository-url", at.url, "--username", USER, "--password", PASSWORD)
    return await at.run("twine", "twine", "upload", *options, *at.dist)


async def uv(at: Workshop) -> Ended:
    options = ("--trusted-publishing", "never", "--publish-url", at.url, "--username", USER, "--password", PASSWORD)
    return await at.run("uv", "uv", "publish", *options, *at.dist, variables={"UV_HTTP_RETRIES": "0"})


async def poetry(at: Workshop, *more: str) -> Ended:
    at.put("pyproject.toml", PROJECT)
    assert at.dist
    options = ("--repository", "internal", "--username", USER, "--password", PASSWORD)
    variables = {"POETRY_REPOSITORIES_INTERNAL_URL": at.url, "POETRY_KEYRING_ENABLED": "false"}
    return await at.run("poetry", "poetry", "publish", "--no-interaction", *options, *more, variables=variables)


async def pdm(at: Workshop, *more: str) -> Ended:
    at.put("pyproject.toml", PROJECT)
    assert at.dist
    options = ("--no-build", "--repository", at.url, "--username", USER, "--password", PASSWORD)
    return await at.run("pdm", "pdm", "publish", *options, *more, variables={"PDM_CHECK_UPDATE": "false"})


async def flit(at: Workshop) -> Ended:
    """Builds the files itself."""
    at.put("pyproject.toml", PROJECT + FLIT)
    at.put("shop_app.py", '"""made for a test"""\n')
    variables = {"FLIT_INDEX_URL": at.url, "FLIT_USERNAME": USER, "FLIT_PASSWORD": PASSWORD}
    return await at.run("flit", "flit", "publish", variables=variables)


async def hatch(at: Workshop) -> Ended:
    at.put("pyproject.toml", PROJECT)
    variables = {"HATCH_INDEX_REPO": at.url, "HATCH_INDEX_USER": USER, "HATCH_INDEX_AUTH": PASSWORD}
    return await at.run("hatch", "hatch", "--no-interactive", "publish", "--no-prompt", *at.dist, variables=variables)


async def setuptools(at: Workshop) -> Ended:
    """Builds the files itself, as distutils does."""
    at.put("setup.py", SETUP.format(module="setuptools"))
    at.put("shop_app.py", '"""made for a test"""\n')
    at.put(".pypirc", PYPIRC.format(url=at.url))
    return await at.run("setuptools-41", "python", "setup.py", "sdist", "bdist_wheel", "upload", "-r", "internal")


async def distutils(at: Workshop) -> Ended:
    if sys.version_info >= (3, 12):
        pytest.skip("distutils has been removed from Python 3.12")
    at.put("setup.py", SETUP.format(module="distutils.core"))
    at.put("shop_app.py", '"""made for a test"""\n')
    at.put(".pypirc", PYPIRC.format(url=at.url))
    command = ("setup.py", "sdist", "upload", "-r", "internal")
    return await at.run("twine", "python", "-W", "ignore", *command, variables={"SETUPTOOLS_USE_DISTUTILS": "stdlib"})


#: The tools that upload what they are given, those that build it themselves, and what they call the files.
GIVEN, BUILDING = (twine, uv, poetry, pdm, hatch), (flit, setuptools, distutils)
Publish = Callable[[Workshop], Awaitable[Ended]]
FILES: dict[Publish, set[str]] = {
    flit: {"shop_app-1.0-py2.py3-none-any.whl", "shop_app-1.0-py3-none-any.whl", "shop_app-1.0.tar.gz"},
    setuptools: {"Shop.App-1.0-py3-none-any.whl", "Shop.App-1.0.tar.gz"},
    distutils: {"Shop.App-1.0.tar.gz"},
}


@pytest.fixture
def counter(_clean_reactor: None) -> Iterator[Counter]:
    opened = Counter(Shop()).open()
    yield opened
    pytest_twisted.blockon(Deferred.fromCoroutine(opened.close()))


def shop_of(counter: Counter) -> Shop:
    shop = counter.shops["internal"]
    assert shop.under_way == []
    return shop


@pytest.mark.parametrize("publish", GIVEN, ids=lambda publish: publish.__name__)
@pytest.mark.parametrize("path", ["/index/internal/", "/index/internal/legacy/"])
@pytest_twisted.ensureDeferred
async def test_what_is_built_is_uploaded_and_once_more(counter: Counter, tmp_path: Path, publish: Publish, path: str) -> None:
    for _ in range(2):
        ended = await publish(Workshop(tmp_path, counter.base + path))
        assert ended.status == 0, ended.output
        assert shop_of(counter).files == {WHEEL.filename: WHEEL.data, SDIST.filename: SDIST.data}


@pytest.mark.parametrize("publish", BUILDING, ids=lambda publish: publish.__name__)
@pytest_twisted.ensureDeferred
async def test_what_a_tool_builds_is_uploaded(counter: Counter, tmp_path: Path, publish: Publish) -> None:
    ended = await publish(Workshop(tmp_path, f"{counter.base}/index/internal/"))
    assert ended.status == 0, ended.output
    shop = shop_of(counter)
    assert shop.files
    assert shop.files.keys() <= FILES[publish]
    assert {form.project for form in shop.forms.values()} == {"shop-app"}


@pytest.mark.parametrize("publish", [*GIVEN, *BUILDING], ids=lambda publish: publish.__name__)
@pytest_twisted.ensureDeferred
async def test_a_tool_that_is_refused_fails(counter: Counter, tmp_path: Path, publish: Publish) -> None:
    counter.rights.uploads = Access.LOGIN
    ended = await publish(Workshop(tmp_path, f"{counter.base}/index/internal/"))
    assert ended.status != 0, ended.output
    assert shop_of(counter).files == {}


@pytest.mark.parametrize("publish", GIVEN, ids=lambda publish: publish.__name__)
@pytest_twisted.ensureDeferred
async def test_a_tool_that_sends_other_bytes_is_told(counter: Counter, tmp_path: Path, publish: Publish) -> None:
    shop = shop_of(counter)
    shop.files = {WHEEL.filename: b"others", SDIST.filename: b"others"}
    ended = await publish(Workshop(tmp_path, f"{counter.base}/index/internal/"))
    assert ended.status != 0, ended.output
    if publish is not pdm:  # which shows the usual phrase of the status
        assert "File already exists" in ended.output, ended.output
    assert shop.files == {WHEEL.filename: b"others", SDIST.filename: b"others"}


@pytest.mark.parametrize("publish", [poetry, pdm], ids=lambda publish: publish.__name__)
@pytest_twisted.ensureDeferred
async def test_tools_that_skip_what_exists_recognise_it(counter: Counter, tmp_path: Path, publish: Any) -> None:
    shop = shop_of(counter)
    shop.files = {WHEEL.filename: b"others"}
    ended = await publish(Workshop(tmp_path, f"{counter.base}/index/internal/"), "--skip-existing")
    assert ended.status == 0, ended.output
    assert shop.files == {WHEEL.filename: b"others", SDIST.filename: SDIST.data}
