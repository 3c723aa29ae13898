"""The very next request sees an upload, 100 times of 100: that of pip and of uv over https, with their caches switched on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.clients.place import write_certificates
from tests.clients.tools import tool
from tests.hosting import hosted
from tests.inprocess import LOOPBACK, Start
from tests.support.clients import Scratch
from tests.support.counter import Doorkeeper, post
from tests.support.forms import upload_of
from tests.support.process import Ended, environment, run
from tests.support.wheels import wheel

#: Runs a client's ``install --upgrade app`` from an index with the certificate of the authority in a file.
Install = Callable[[Scratch, str, Path], Awaitable[Ended]]


async def pip(scratch: Scratch, index: str, authority: Path) -> Ended:
    command = [
        tool("pip") / "pip",
        "--isolated",
        "--python",
        scratch.python,
        "install",
        "--upgrade",
        "--no-compile",
        "--no-deps",
    ]
    settings = {"PIP_CACHE_DIR": str(scratch.home / "pip-cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    options = ["--cache-dir", scratch.home / "pip-cache", "--cert", authority, "--index-url", index, "app"]
    return await run([*map(str, (*command, *options))], environment(scratch.home, **settings), scratch.folder, 120.0)


async def uv(scratch: Scratch, index: str, authority: Path) -> Ended:
    command = [tool("uv") / "uv", "pip", "install", "--no-config", "--python", scratch.python, "--upgrade", "--no-deps"]
    settings = {"UV_CACHE_DIR": str(scratch.home / "uv-cache"), "SSL_CERT_FILE": str(authority), "UV_PYTHON_DOWNLOADS": "never"}
    return await run(
        [*map(str, (*command, "--index-url", index, "app"))], environment(scratch.home, **settings), scratch.folder, 120.0
    )


@pytest.mark.parametrize("install", [pip, uv], ids=lambda install: install.__name__)
@pytest_twisted.ensureDeferred
async def test_the_very_next_install_is_of_what_was_just_uploaded(serve: Start, tmp_path: Path, install: Install) -> None:
    listen = (LOOPBACK, write_certificates(tmp_path)[1])
    proxy = await serve(indexes=(hosted(),), rights=Doorkeeper(), listen=listen)
    (secure,) = proxy.service.listenings[1].ports
    url = f"https://127.0.0.1:{secure.getHost().port}/simple/"  # type: ignore[attr-defined]  # a TCP port's address has one
    scratch = Scratch(tmp_path, with_pip=True)
    seen = []
    for number in range(100):
        form = upload_of(wheel("app", f"{number}.0"))
        assert (await post(proxy.port, "/legacy/", form.body, form.content_type)).status == 200
        ended = await install(scratch, url, tmp_path / "ca.crt")
        assert ended.status == 0, ended.output
        seen.append(scratch.installed["app"])
    assert seen == [f"{number}.0" for number in range(100)]
    caches = [each for each in scratch.home.glob("*-cache/**/*") if each.is_file()]
    assert caches, "their caches are in use"
