"""Real pip and real uv install through the proxy what upstream serves in every odd way at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.support.clients import Scratch, pip_install, uv_pip_install
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.process import ProxyProcess
from tests.support.wheels import sdist, wheel

Install = Callable[..., Awaitable[Scratch]]

SIGN_IN = Fault(body=b"<!DOCTYPE html><html><form>Sign in</form></html>", headers={"Content-Type": "text/html"})

#: Projects whose metadata upstream announces and does not deliver, or delivers oddly.
SIDECARS = {
    "forbidden": Fault(status=403),
    "refused": Fault(status=401),
    "failing": Fault(status=500),
    "dropped": Fault(drop=True),
    "empty": Fault(body=b""),
    "sign-in": SIGN_IN,
    "packed": Fault(gzip=True),
}
#: Projects whose file has something wrong about it.
FILES = {
    "called-gzip": Fault(headers={"Content-Encoding": "gzip"}),
    "called-nothing": Fault(headers={"Content-Encoding": "aws-chunked"}),
    "zipped": Fault(gzip=True),
    "without-ranges": Fault(ignore_range=True),
}


def odd(upstream: FakeUpstream) -> list[str]:
    """What *upstream* then has."""
    for name, fault in SIDECARS.items():
        made = wheel(name)
        upstream.add_file(name, made.filename, made.data, metadata=made.metadata, core_metadata=True)
        upstream.script(f"*/{made.filename}.metadata", fault)
    for name, fault in FILES.items():
        made = wheel(name, size=50_000)
        upstream.add_file(name, made.filename, made.data)
        upstream.script(f"GET */{made.filename}", fault)
    source = sdist("source")
    upstream.add_file("source", source.filename, source.data)
    upstream.script(f"*/{source.filename}", FILES["called-gzip"])
    short = wheel("short-metadata")
    upstream.add_file("short-metadata", short.filename, short.data, core_metadata={"sha256": "0" * 40})
    upstream.script("HEAD *", Fault(status=405))
    newest, older = wheel("digests", "2.0"), wheel("digests", "1.0")
    upstream.add_file("digests", older.filename, older.data)
    upstream.add_file("digests", newest.filename, newest.data, hashes={"sha256": newest.sha256[:40]})
    return [*SIDECARS, *FILES, "source", "short-metadata", "digests"]


@pytest.mark.parametrize("install", [pip_install, uv_pip_install])
@pytest_twisted.ensureDeferred
async def test_what_upstream_serves_oddly_is_installed(
    upstream: FakeUpstream, make_proxy: Callable[..., ProxyProcess], tmp_path: Path, install: Install
) -> None:
    names = odd(upstream)
    proxy = await make_proxy(upstream.url).started()
    scratch = await install(tmp_path, proxy.url, *names)
    expected = {name.replace("-", "_"): "1.0" for name in names}
    assert scratch.installed == expected
    await proxy.stop()
    assert "Traceback" not in proxy.log
