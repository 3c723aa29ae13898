"""The dashboard in a real browser: with clicks and keys, kept live, without a word on the console, and for everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from proxy.core.uploads import Uploaded
from proxy.settings import AccessSettings, GrantSettings, IndexSettings
from tests.hosting import hosted, upload
from tests.inprocess import Running, Start
from tests.support.chromium import CHROMIUM, Chromium
from tests.support.fake_upstream import FakeUpstream
from tests.support.faults import Fault
from tests.support.logins import write_users
from tests.support.process import ROOT
from tests.support.wheels import wheel

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

SIX = wheel("six", "1.0")
LIB = wheel(
    "corp-lib",
    "1.0",
    description="About\n=====\n\nIt has *words*, ``code``, and\n\n- a list,\n- a `link <https://x.example/>`_.\n",
)
#: Pages that everybody sees; the one of a project that does not exist is an error.
PAGES = ("/", "/-/search?q=si", "/-/project/pypi/six", "/-/setup", "/-/login", "/-/project/pypi/nowhere", "/index/")
#: axe-core, from the registry of npm; ``make suite`` installs it there.
AXE = Path(os.environ.get("AXE") or ROOT / "build/axe/node_modules/axe-core/axe.min.js").absolute()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    opened = Chromium(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def browser(opened: Chromium) -> Chromium:
    """A browser that has not complained of anything yet."""
    opened.complaints.clear()
    return opened


async def started(upstream: FakeUpstream, run: Start, tmp_path: Path) -> Running:
    """A proxy of which alice is the administrator, with two hosted indexes, the first of which has a project."""
    upstream.add_file("six", SIX.filename, SIX.data)
    users = write_users(tmp_path / "users", "alice")
    indexes = (
        IndexSettings(name="pypi", upstreams=("up0",), default=True, prefetch=False),
        hosted("corp", default=False),
        hosted("stage", default=False),
    )
    grants = (GrantSettings(role="admin", principals=("user:alice",)),)
    proxy = await run(upstream, access=AccessSettings(users_file=users), grants=grants, indexes=indexes)
    assert await upload(proxy.service.receiving["corp"], LIB, by="user:alice") is Uploaded.NEW
    return proxy


def log_in(browser: Chromium) -> None:
    """Log in as alice, from any page of the dashboard."""
    browser.click("footer a[href$='-/login']")
    browser.click("#user", loads=False)
    browser.write("alice")
    browser.press_tab()
    browser.write("alice!")
    browser.click("main button")


def unfold(browser: Chromium) -> None:
    """Show the buttons of the page of a project."""
    browser.click("summary", loads=False)


def text_of(browser: Chromium, selector: str = "main") -> str:
    found: str = browser.run(f"document.querySelector('{selector}').innerText")
    return found


@pytest_twisted.ensureDeferred
async def test_it_is_live_and_its_buttons_work(upstream: FakeUpstream, run: Start, browser: Chromium, tmp_path: Path) -> None:
    proxy = await started(upstream, run, tmp_path)
    await deferToThread(browser.open, f"{proxy.base}/")
    await deferToThread(browser.until, "document.querySelector('#live').textContent === 'This page is kept up to date.'")
    assert (await proxy.get(await proxy.link("six", SIX.filename))).status == 200
    await deferToThread(browser.until, "document.querySelector('#savings').textContent.includes('Requests2')")

    await deferToThread(log_in, browser)
    assert "user:alice" in await deferToThread(text_of, browser, "footer")
    # Neither the script nor anything that gets into the page can read the cookie.
    assert await deferToThread(browser.run, "document.cookie") == ""

    def press(action: str, **fields: str) -> str:
        """What the page says after the button of *action*."""
        unfold(browser)
        form = f"form:has(input[value={action}])"
        for name, value in fields.items():
            browser.click(f"{form} [name={name}]", loads=False)
            browser.write(value)
        browser.click(f"{form} button")
        return text_of(browser)

    def change_what_is_cached() -> None:
        browser.click("#q", loads=False)
        browser.write("si")
        browser.click("form[role=search] button")
        browser.click("main table a")
        assert "The page was requested from upstream." in press("refresh")
        told = press("pin", which="1.0")
        assert "What is cached is pinned" in told
        assert told.count("pinned") == 2
        assert "It is no longer pinned." in press("unpin")
        told = press("purge")
        assert "It was removed from the cache." in told
        assert "0 of them cached" in told

    def change_what_is_hosted() -> None:
        browser.open(f"{proxy.base}/-/project/corp/corp-lib")
        assert "yanked: loses <b>data</b>" in press("yank", which="1.0", reason="loses <b>data</b>")
        assert "no longer yanked" in press("unyank", which="1.0")
        asked = press("promote", version="1.0")
        assert LIB.filename in asked
        browser.click("main button")
        assert "promoted to this index" in text_of(browser)
        assert browser.run("location.pathname") == "/-/project/stage/corp-lib"
        assert "Delete corp-lib?" in press("delete")
        browser.click("main form a")
        assert browser.run("location.pathname") == "/-/project/stage/corp-lib"
        press("delete", which="1.0")
        browser.click("main button.danger")
        assert "has no files of corp-lib any more" in text_of(browser)

    await deferToThread(change_what_is_cached)
    # The same without JavaScript.
    await deferToThread(browser.call, "Emulation.setScriptExecutionDisabled", value=True)
    await deferToThread(change_what_is_hosted)
    await deferToThread(browser.call, "Emulation.setScriptExecutionDisabled", value=False)
    await deferToThread(browser.click, "footer button")
    assert "Log in" in await deferToThread(text_of, browser, "footer")
    assert browser.complaints == []
    await deferToThread(browser.open, "about:blank")


@pytest_twisted.ensureDeferred
async def test_nothing_that_others_write_acts_on_a_page(
    upstream: FakeUpstream, run: Start, browser: Chromium, tmp_path: Path
) -> None:
    hostile = "</title></script><script>hacked = 1</script><img src=x onerror='hacked = 1'><svg onload='hacked = 1'>"
    proxy = await started(upstream, run, tmp_path)
    upstream.add_file("six", SIX.filename, SIX.data, yanked=hostile)
    upstream.content.project("six").keys["project-status"] = {"status": "archived", "reason": hostile}
    described = wheel("evil", "1.0", description=f"{hostile}\n\n.. raw:: html\n\n   {hostile}\n")
    assert await upload(proxy.service.receiving["corp"], described, by="user:alice") is Uploaded.NEW
    assert (await proxy.get("/simple/six/", Accept="*/*", User_Agent=f"pip/{hostile}")).status == 200
    upstream.script("GET */failing/", Fault(status=500, reason=hostile, body=hostile.encode()))
    assert (await proxy.get("/simple/failing/", User_Agent=hostile)).status == 503
    pages = ["/", "/-/search?q=%3Cscript%3Ehacked=1%3C/script%3E", "/-/project/pypi/six", "/-/project/corp/evil", "/-/setup"]
    pages += ["/-/project/corp/evil?done=%3Cscript%3E", "/-/project/pypi/six?done=purge%22onload=hacked=1", "/-/login"]

    def look() -> None:
        browser.open(f"{proxy.base}/")
        log_in(browser)
        for path in pages:
            browser.open(f"{proxy.base}{path}")
            assert browser.run("typeof hacked") == "undefined", path
            foreign = "document.querySelectorAll('main script, main img, main svg[onload], main [onerror], main iframe').length"
            assert browser.run(foreign) == 0, path
        browser.open(f"{proxy.base}/")
        browser.until("document.querySelector('#live').textContent === 'This page is kept up to date.'")
        browser.until("document.querySelector('#problems').textContent.includes('failing')")
        assert browser.run("typeof hacked") == "undefined"
        browser.open(f"{proxy.base}/-/project/pypi/six")
        assert hostile in text_of(browser)
        browser.click("footer button")

    await deferToThread(look)
    assert browser.complaints == []
    await deferToThread(browser.open, "about:blank")


@pytest.mark.skipif(not AXE.is_file(), reason=f"axe-core is not at {AXE}: npm install --prefix build/axe axe-core, or set AXE")
@pytest_twisted.ensureDeferred
async def test_everybody_can_use_it(upstream: FakeUpstream, run: Start, browser: Chromium, tmp_path: Path) -> None:
    proxy = await started(upstream, run, tmp_path)
    await proxy.page("six")
    script = AXE.read_text()

    def look() -> None:
        """Have axe look at the page that is open, light, dark and narrow."""
        browser.run(f"{script}; 0")
        where = browser.run("location.pathname")
        for scheme, width in (("light", 1100), ("dark", 1100), ("dark", 360)):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            found = browser.run("axe.run().then(r => r.violations.map(v => v.id + ' ' + v.nodes.map(n => n.html).join(' ')))")
            assert found == [], (where, scheme, width)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), (where, width)

    def look_at_all() -> None:
        for path in PAGES:
            browser.open(f"{proxy.base}{path}")
            look()
        browser.open(f"{proxy.base}/-/login")
        browser.click("#user", loads=False)
        browser.write("alice")
        browser.press_tab()
        browser.write("wrong")
        browser.click("main button")
        assert "is wrong" in text_of(browser)
        look()
        browser.open(f"{proxy.base}/")
        log_in(browser)
        look()
        for path in ("/-/project/pypi/six", "/-/project/corp/corp-lib"):
            browser.open(f"{proxy.base}{path}")
            unfold(browser)
            look()
        for action in ("promote", "delete"):
            browser.open(f"{proxy.base}/-/project/corp/corp-lib")
            unfold(browser)
            if action == "promote":
                browser.click("form:has(input[value=promote]) [name=version]", loads=False)
                browser.write("1.0")
            browser.click(f"form:has(input[value={action}]) button")
            look()
        browser.click("footer button")

    await deferToThread(look_at_all)
    await deferToThread(browser.open, "about:blank")
