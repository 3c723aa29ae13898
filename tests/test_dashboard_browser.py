"""The dashboard in a real browser: with clicks and keys, kept live, without a word on the console, and for everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from proxy.accounts import passwords
from proxy.settings import AccessSettings, GrantSettings
from tests.inprocess import Start
from tests.support.chromium import CHROMIUM, Chromium
from tests.support.fake_upstream import FakeUpstream
from tests.support.wheels import wheel

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

SIX = wheel("six", "1.0")
#: axe-core, from the registry of npm: ``npm install axe-core`` and AXE=node_modules/axe-core/axe.min.js.
AXE = os.environ.get("AXE")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    opened = Chromium(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest_twisted.ensureDeferred
async def test_it_is_live_and_its_buttons_work(upstream: FakeUpstream, run: Start, browser: Chromium, tmp_path: Path) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    users = tmp_path / "users"
    users.write_text(f"alice:{passwords.hashed(b'alice!')}\n")
    grants = (GrantSettings(role="admin", principals=("user:alice",)),)
    proxy = await run(upstream, access=AccessSettings(users_file=users), grants=grants)
    await deferToThread(browser.open, f"{proxy.base}/")
    await deferToThread(browser.until, "document.querySelector('#live').textContent === 'This page is kept up to date.'")
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    await deferToThread(browser.until, "document.querySelector('#savings').textContent.includes('Requests2')")

    def log_in() -> None:
        browser.click("footer a[href$='-/login']")
        browser.click("#user", loads=False)
        browser.write("alice")
        browser.press_tab()
        browser.write("alice!")
        browser.click("main button")

    await deferToThread(log_in)
    assert "user:alice" in await deferToThread(browser.run, "document.querySelector('footer').textContent")
    # Neither the script nor anything that gets into the page can read the cookie.
    assert await deferToThread(browser.run, "document.cookie") == ""

    def search_and_purge() -> None:
        browser.click("#q", loads=False)
        browser.write("si")
        browser.click("form[role=search] button")
        browser.click("main table a")
        browser.click("summary", loads=False)
        browser.click("form:has(input[value=purge]) button")

    await deferToThread(search_and_purge)
    text = await deferToThread(browser.run, "document.querySelector('main').textContent")
    assert "It was removed from the cache." in text
    assert "0 of them cached" in text
    await deferToThread(browser.click, "footer button")
    assert "Log in" in await deferToThread(browser.run, "document.querySelector('footer').textContent")
    assert browser.complaints == []
    await deferToThread(browser.open, "about:blank")


@pytest.mark.skipif(AXE is None, reason="AXE does not name axe-core's script: npm install axe-core")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("dark", 360)])
@pytest_twisted.ensureDeferred
async def test_everybody_can_use_it(upstream: FakeUpstream, run: Start, browser: Chromium, scheme: str, width: int) -> None:
    upstream.add_file("six", SIX.filename, SIX.data)
    proxy = await run(upstream)
    await proxy.page("six")
    assert AXE is not None
    script = Path(AXE).read_text()

    def look(path: str) -> tuple[object, object]:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(f"{proxy.base}{path}")
        browser.run(f"{script}; 0")
        found = browser.run("axe.run().then(r => r.violations.map(v => v.id + ' ' + v.nodes.map(n => n.html).join(' ')))")
        return found, browser.run("document.documentElement.scrollWidth <= innerWidth")

    for path in ("/", "/-/search?q=si", "/-/project/pypi/six", "/-/setup", "/-/login"):
        assert await deferToThread(look, path) == ([], True), path
    await deferToThread(browser.open, "about:blank")
