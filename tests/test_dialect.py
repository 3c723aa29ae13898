"""How an upstream's errors are understood: what it does not have, what it denies, and what it was asked in a wrong way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner, Result
from msgspec.structs import replace
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, formatEvent

from proxy.cli import main
from proxy.config import CommandLine, load
from proxy.settings import IndexSettings, PageLimits
from tests.inprocess import JSON, Running, upstream_settings
from tests.support.fake_upstream import FakeUpstream, Fault, Gate, Request

Serve = Callable[..., Awaitable[Running]]

STALE_AT_ONCE = PageLimits(ttl=0.0, soft_deadline=1.0)


def wants_json(request: Request) -> bool:
    return "json" in request.headers.get("accept", "")


@pytest.fixture
def six(upstream: FakeUpstream) -> FakeUpstream:
    upstream.add_file("six", "six-1.0-py3-none-any.whl", b"wheel")
    upstream.add_file("other", "other-1.0.tar.gz", b"sdist")
    return upstream


@pytest.mark.parametrize("status", [404, 406, 415, 500])
@pytest_twisted.ensureDeferred
async def test_an_upstream_that_refuses_requests_for_json_is_asked_for_html(six: FakeUpstream, run: Serve, status: int) -> None:
    six.script(wants_json, Fault(status=status))
    proxy = await run(upstream_settings(six.url, "up0"))
    assert [file["filename"] for file in (await proxy.page("six"))["files"]] == ["six-1.0-py3-none-any.whl"]
    before = len(six.asked)
    assert (await proxy.page("other"))["files"]
    assert len(six.asked) == before + 1, "it is remembered"


@pytest_twisted.ensureDeferred
async def test_a_passing_error_does_not_make_an_upstream_one_of_html_alone(six: FakeUpstream, run: Serve) -> None:
    six.script("*", Fault(status=500), times=1)
    proxy = await run(upstream_settings(six.url, "up0"))
    assert "size" in (await proxy.page("six"))["files"][0]
    assert wants_json(six.asked[-1])


@pytest.mark.parametrize("status", [404, 500])
@pytest_twisted.ensureDeferred
async def test_html_is_not_asked_for_once_a_request_for_json_was_answered(six: FakeUpstream, run: Serve, status: int) -> None:
    proxy = await run(upstream_settings(six.url, "up0"))
    await proxy.page("six")
    six.script("/simple/nothing/", Fault(status=status))
    await proxy.get("/simple/nothing/")
    assert six.count("/simple/nothing/") == 1


async def deny(proxy: Running, projects: int) -> None:
    """Have *projects* different projects denied."""
    for number in range(projects):
        assert (await proxy.get(f"/simple/nothing{number}/")).status == 404


@pytest_twisted.ensureDeferred
async def test_what_an_upstream_without_a_page_denies_costs_one_request_after_a_few_projects(
    six: FakeUpstream, run: Serve
) -> None:
    proxy = await run(upstream_settings(six.url, "up0"))
    await deny(proxy, 20)
    assert [six.count(f"/simple/nothing{number}/") for number in range(20)] == [2] * 5 + [1] * 15


@pytest.mark.parametrize("status", [404, 406, 415, 500])
@pytest_twisted.ensureDeferred
async def test_an_upstream_of_html_alone_is_understood_however_many_projects_it_did_not_have(
    six: FakeUpstream, run: Serve, status: int
) -> None:
    proxy = await run(upstream_settings(six.url, "up0"))
    await deny(proxy, 10)
    six.script(wants_json, Fault(status=status))
    assert [file["filename"] for file in (await proxy.page("six"))["files"]] == ["six-1.0-py3-none-any.whl"]
    before = len(six.asked)
    assert (await proxy.page("other"))["files"]
    assert len(six.asked) == before + 1, "it is remembered"


@pytest.mark.parametrize("status", [None, 406, 415])
@pytest_twisted.ensureDeferred
async def test_an_upstream_of_json_is_asked_for_that_again_with_its_first_page(
    six: FakeUpstream, run: Serve, status: int | None
) -> None:
    proxy = await run(upstream_settings(six.url, "up0"))
    await deny(proxy, 10)
    if status is not None:
        six.script(lambda request: not wants_json(request), Fault(status=status))
    assert "size" in (await proxy.page("six"))["files"][0]
    before = len(six.asked)
    assert "size" in (await proxy.page("other"))["files"][0]
    assert (await proxy.get("/simple/nothing/")).status == 404
    assert len(six.asked) == before + 2


@pytest_twisted.ensureDeferred
async def test_what_was_asked_for_in_json_before_html_was_found_to_work_is_asked_for_in_html_too(
    six: FakeUpstream, run: Serve
) -> None:
    gate = Gate()
    six.script(lambda request: wants_json(request) and "other" in request.path, Fault(status=404, hold=gate), times=1)
    six.script(wants_json, Fault(status=404))
    proxy = await run(upstream_settings(six.url, "up0"))
    other = ensureDeferred(proxy.page("other"))
    await six.arrived("/simple/other/")
    await proxy.page("six")
    gate.release()
    assert (await other)["files"]


@pytest_twisted.ensureDeferred
async def test_a_configured_url_without_simple_is_no_index_without_projects(
    six: FakeUpstream, run: Serve, logged: list[LogEvent]
) -> None:
    url = six.url.removesuffix("simple/")
    proxy = await run(upstream_settings(url, "up0"))
    for project in ("six", "other", "six"):
        reply = await proxy.get(f"/simple/{project}/")
        assert reply.status == 503
        assert f"{url}simple/ has pages: set upstream.up0.url to it" in reply.json["detail"]
    lines = [formatEvent(each) for each in logged if "set it to that" in formatEvent(each)]
    assert len(lines) == 1
    assert f"upstream.up0.url = {url} answers 404 and {url}simple/ has pages" in lines[0]


@pytest_twisted.ensureDeferred
async def test_a_url_without_simple_that_the_command_line_gave_is_called_by_its_option(
    six: FakeUpstream, run: Serve, logged: list[LogEvent]
) -> None:
    url = six.url.removesuffix("simple/")
    given = load(None, CommandLine(upstreams=(url,)), {}).upstreams
    proxy = await run(*given)
    reply = await proxy.get("/simple/six/")
    assert f"{url}simple/ has pages: set --upstream to it" in reply.json["detail"]
    (line,) = [formatEvent(each) for each in logged if "set it to that" in formatEvent(each)]
    assert line.startswith(f"--upstream = {url} answers 404")


@pytest_twisted.ensureDeferred
async def test_check_config_tells_of_the_url_that_the_running_proxy_found_to_be_wrong(
    six: FakeUpstream, run: Serve, tmp_path: Path
) -> None:
    wrong = six.url.removesuffix("simple/")
    upstreams = f'[upstream.up0]\nurl = "{wrong}"\n[[index]]\nname = "main"\nupstreams = ["up0"]\n'
    file = tmp_path / "proxy.toml"
    file.write_text(f'[server]\ndata_dir = "data"\n{upstreams}')

    async def lines(*command: str) -> list[str]:
        ended: Result = await deferToThread(CliRunner().invoke, main, list(command))
        assert ended.exit_code == 0, ended.output
        return ended.output.splitlines()

    check = ("check-config", str(file), "--skip-ports")
    unproven = await lines(*check)
    assert [line for line in unproven if "does not end in /simple/" in line]
    proxy = await run(upstream_settings(wrong, "up0"))
    assert await lines(*check) == unproven
    assert (await proxy.get("/simple/six/")).status == 503
    (warning,) = [line for line in await lines(*check) if wrong in line and "serves" not in line]
    assert warning.startswith(f"  warning: upstream.up0.url = {wrong} has no pages, and {six.url} has: set it to that")
    assert any(f"at {six.url}: set it to that" in line for line in await lines("upstreams", "--config", str(file)))
    await proxy.stop()
    assert await lines(*check) == unproven


@pytest_twisted.ensureDeferred
async def test_a_url_that_was_put_right_at_upstream_is_believed_again(six: FakeUpstream, run: Serve) -> None:
    proxy = await run(upstream_settings(six.url.removesuffix("simple/"), "up0"))
    assert (await proxy.get("/simple/six/")).status == 503
    six.add_path("/six/", b'<a href="/f/six-1.0.tar.gz">six-1.0.tar.gz</a>')
    assert (await proxy.page("six"))["files"]
    assert (await proxy.get("/simple/other/")).status == 404


@pytest_twisted.ensureDeferred
async def test_what_an_earlier_run_was_told_is_missing_is_asked_for_again(six: FakeUpstream, run: Serve) -> None:
    proxy = await run(upstream_settings(six.url, "up0"), limits=STALE_AT_ONCE)
    await proxy.page("six")
    six.script("/simple/six/", Fault(status=404), times=1)
    assert (await proxy.get("/simple/six/")).status == 404
    await proxy.stop()
    proxy = await run(upstream_settings(six.url, "up0"), limits=STALE_AT_ONCE)
    assert (await proxy.page("six"))["files"]


@pytest_twisted.ensureDeferred
async def test_an_index_that_has_no_such_project_is_not_taken_for_a_wrong_url(six: FakeUpstream, run: Serve) -> None:
    proxy = await run(upstream_settings(six.url.removesuffix("simple/"), "up0"))
    assert (await proxy.get("/simple/nothing/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_403_is_passed_on_where_other_pages_work(six: FakeUpstream, run: Serve) -> None:
    six.script("/simple/secret/", Fault(status=403))
    proxy = await run(upstream_settings(six.url, "up0"))
    reply = await proxy.get("/simple/secret/")
    assert (reply.status, "credentials" in reply.json["detail"]) == (503, True), "nothing works yet: the credentials are wrong"
    await proxy.page("six")
    reply = await proxy.get("/simple/secret/")
    assert (reply.status, reply.headers.get("retry-after")) == (403, None)
    assert (await proxy.get("/simple/nothing/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_cached_page_is_served_instead_of_a_403(six: FakeUpstream, run: Serve) -> None:
    proxy = await run(upstream_settings(six.url, "up0"), limits=STALE_AT_ONCE)
    before = await proxy.page("six")
    await proxy.page("other")
    six.script("/simple/six/", Fault(status=403))
    assert await proxy.page("six") == before


@pytest.mark.parametrize(("forbidden", "status"), [("missing", 404), ("failure", 503), ("auto", 403)])
@pytest_twisted.ensureDeferred
async def test_what_a_403_means_can_be_configured(six: FakeUpstream, run: Serve, forbidden: str, status: int) -> None:
    six.script("/simple/absent/", Fault(status=403))
    proxy = await run(upstream_settings(six.url, "up0", forbidden=forbidden))
    await proxy.page("six")
    assert (await proxy.get("/simple/absent/")).status == status


@pytest_twisted.ensureDeferred
async def test_another_upstream_answers_where_the_first_denies(make_upstream: Callable[..., FakeUpstream], run: Serve) -> None:
    first, second = make_upstream(), make_upstream()
    first.add_file("other", "other-1.0.tar.gz", b"x")
    second.add_file("six", "six-1.0.tar.gz", b"x")
    first.script("/simple/six/", Fault(status=403))
    proxy = await run(upstream_settings(first.url, "up0"), upstream_settings(second.url, "up1"))
    await proxy.page("other")
    assert (await proxy.page("six"))["files"]
    assert (await proxy.get("/simple/nothing/")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_401_names_the_setting_and_is_a_failure(six: FakeUpstream, run: Serve) -> None:
    proxy = await run(upstream_settings(six.url, "up0"))
    await proxy.page("six")
    six.script("/simple/secret/", Fault(status=401))
    reply = await proxy.get("/simple/secret/")
    assert (reply.status, "check the credentials of upstream.up0" in reply.json["detail"]) == (503, True)


@pytest.mark.parametrize(("settings", "status"), [({"username": "ci"}, 404), ({"token": "t"}, 404), ({}, 200)])
@pytest_twisted.ensureDeferred
async def test_a_private_index_that_redirects_to_another_host_does_not_become_a_public_one(
    make_upstream: Callable[..., FakeUpstream], run: Serve, settings: dict[str, Any], status: int
) -> None:
    private, public = make_upstream(), make_upstream()
    public.add_file("six", "six-1.0.tar.gz", b"public")
    elsewhere = public.url.replace("127.0.0.1", "localhost")
    private.script("/simple/six/", Fault(redirect=f"{elsewhere}six/"))
    proxy = await run(upstream_settings(private.url, "up0", **settings))
    assert (await proxy.get("/simple/six/", Accept=JSON)).status == status
    assert public.count("*") == (0 if settings else 1)


@pytest_twisted.ensureDeferred
async def test_a_private_index_may_redirect_to_hosts_that_are_listed(
    make_upstream: Callable[..., FakeUpstream], run: Serve
) -> None:
    private, other = make_upstream(), make_upstream()
    other.add_file("six", "six-1.0.tar.gz", b"x")
    private.script("/simple/six/", Fault(redirect=f"{other.url.replace('127.0.0.1', 'localhost')}six/"))
    proxy = await run(upstream_settings(private.url, "up0", token="t", redirect_hosts=("localhost",)))
    assert (await proxy.page("six"))["files"]


@pytest.fixture
def pair(make_upstream: Callable[..., FakeUpstream]) -> list[FakeUpstream]:
    """The preferred upstream and its stand-in, which has nothing."""
    made = [make_upstream(), make_upstream()]
    made[0].add_file("six", "six-1.0.tar.gz", b"x")
    return made


def settings_of(pair: list[FakeUpstream], **second: Any) -> list[Any]:
    first = upstream_settings(pair[0].url, "up0")
    return [first, replace(upstream_settings(pair[1].url, "up1"), **second)]


@pytest_twisted.ensureDeferred
async def test_a_stand_ins_404_does_not_take_a_page_away(pair: list[FakeUpstream], run: Serve) -> None:
    proxy = await run(*settings_of(pair), limits=STALE_AT_ONCE)
    before = await proxy.page("six")
    await pair[0].down()
    for _ in range(3):
        assert await proxy.page("six") == before
    pair[0].up()
    assert await proxy.page("six") == before


@pytest.mark.parametrize(("authoritative", "status"), [(False, 503), (True, 404)])
@pytest_twisted.ensureDeferred
async def test_what_only_a_stand_in_denies_is_an_outage_unless_it_is_authoritative(
    pair: list[FakeUpstream], run: Serve, authoritative: bool, status: int
) -> None:
    await pair[0].down()
    proxy = await run(*settings_of(pair, authoritative=authoritative))
    assert (await proxy.get("/simple/six/")).status == status


@pytest.mark.parametrize("down", [0, 1])
@pytest_twisted.ensureDeferred
async def test_among_equals_a_404_takes_all_of_them(pair: list[FakeUpstream], run: Serve, down: int) -> None:
    index = IndexSettings(name="pypi", upstreams=("up0", "up1"), default=True, policy="fastest", prefetch=False)
    proxy = await run(*settings_of(pair), indexes=(index,))
    assert (await proxy.get("/simple/nothing/")).status == 404
    await pair[down].down()
    assert (await proxy.get("/simple/other/")).status == 503
