"""The public index itself, through a real ``twistd``: skipped, with the reason, where it cannot be reached."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
import pytest_twisted
from distlib.index import DEFAULT_INDEX

from tests.support import wire
from tests.support.clients import pip_install, uv_pip_install
from tests.support.content import JSON_TYPE
from tests.support.process import ProxyProcess


def unreachable() -> str:
    """Why the public index cannot be reached from here; ``""`` when it can."""
    try:
        urllib.request.urlopen(urljoin(DEFAULT_INDEX, "/simple/six/"), timeout=5).close()
    except OSError as error:  # of which urllib's errors are a kind
        return f"the public index cannot be reached from here: {error}"
    return ""


@pytest.fixture
def public() -> None:
    reason = unreachable()
    if reason:
        pytest.skip(reason)


@pytest.mark.usefixtures("public")
@pytest_twisted.ensureDeferred
async def test_pip_and_uv_install_from_the_public_index(make_proxy: Callable[..., ProxyProcess], tmp_path: Path) -> None:
    proxy = await make_proxy("pypi").started()
    for install in (pip_install, uv_pip_install):
        assert (await install(tmp_path, proxy.url, "six==1.16.0")).installed == {"six": "1.16.0"}
    page = (await wire.fetch(proxy.port, "/simple/six/", Accept=JSON_TYPE)).json
    (file,) = [each for each in page["files"] if each["filename"] == "six-1.16.0-py2.py3-none-any.whl"]
    path = urljoin("/simple/six/", file["url"])
    reply = await wire.fetch(proxy.port, path)
    assert hashlib.sha256(reply.body).hexdigest() == file["hashes"]["sha256"]
    if file.get("core-metadata"):
        metadata = (await wire.fetch(proxy.port, path + ".metadata")).body
        assert file["core-metadata"]["sha256"] == hashlib.sha256(metadata).hexdigest()
    assert (await wire.fetch(proxy.port, "/simple/this-project-does-not-exist-on-any-index/")).status == 404
