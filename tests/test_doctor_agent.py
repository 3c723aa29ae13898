"""What ``pypiproxy doctor --agent`` finds out about a machine with clients: what they are told, and what bypasses the proxy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clients import Address
from proxy.doctor.agent import Machine, examine_agent
from proxy.doctor.findings import Diagnosis, Grade
from proxy.doctor.sources import is_below
from proxy.doctor.switch import switch_findings
from proxy.doctor.trust import diverted, pip_options, plain_http
from proxy.settings import GroupSettings, IndexSettings
from tests.evidence import Make
from tests.inprocess import Start
from tests.support import certs
from tests.support.fake_upstream import FakeUpstream
from tests.test_doctor_upstreams import bad, fill, means

FAR = "http://build-host.example:3143"
SECRET = "f00tball"
LOGIN = f"carol:{SECRET}@"


class Agent:
    """A machine below *place*, whose environment and files are filled in."""

    def __init__(self, place: Path) -> None:
        self.root, self.here, self.programs = place / "root", place / "project", place / "bin"
        for each in (self.root / "etc", self.root / "root", self.here, self.programs):
            each.mkdir(parents=True)
        self.environ = {"HOME": str(self.root / "root"), "PATH": str(self.programs)}

    def has(self, *programs: str) -> None:
        for each in programs:
            (self.programs / each).write_text("#!/bin/sh\n")
            (self.programs / each).chmod(0o755)

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine (a path from its root) or of the project in the present directory."""
        file = self.root / path[1:] if path.startswith("/") else self.here / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    @property
    def machine(self) -> Machine:
        return Machine(self.environ, self.here, self.root)

    async def examined(self, url: str, ca_file: str | None = None) -> list[Diagnosis]:
        found: list[Diagnosis] = []
        await examine_agent(self.machine, Address.of(url, None, ca_file), "six", means(), found.append)
        return found


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """A machine without any configuration, with pip and uv."""
    made = Agent(tmp_path)
    made.has("pip", "uv")
    return made


def about(found: list[Diagnosis], subject: str) -> list[tuple[str, Grade]]:
    """What is not in order about *subject*."""
    return [entry for each in found if each.subject == subject for entry in bad([each])]


@pytest_twisted.ensureDeferred
async def test_a_machine_that_asks_the_proxy_alone_is_in_order(agent: Agent, upstream: FakeUpstream, run: Start) -> None:
    fill(upstream)
    proxy = await run(upstream)
    agent.write("/etc/pip.conf", f"[global]\nindex-url = {proxy.url}\n")
    agent.write("/etc/uv/uv.toml", f'[[index]]\nurl = "{proxy.url}"\ndefault = true\n')
    found = await agent.examined(proxy.base)
    assert [each for each in bad(found) if each[0] != "clock"] == []
    assert {each.subject for each in found} >= {"pip", "uv", "proxy", "environment", "fail-open"}


@pytest_twisted.ensureDeferred
async def test_what_is_no_pypiproxy_and_what_does_not_answer_is_found(
    agent: Agent, upstream: FakeUpstream, make_upstream: Make
) -> None:
    fill(upstream)
    upstream.add_path("/", b"[]", "application/json")
    assert ("identity", Grade.FAULT) in about(await agent.examined(upstream.base), "proxy")
    gone = make_upstream()
    await gone.down()
    assert about(await agent.examined(gone.base), "proxy") == [("address", Grade.FAULT)]


#: Files and variables of a machine; the subject that is not in order because of them; the check.
BYPASSES: list[tuple[Mapping[str, str], Mapping[str, str], str, str]] = [
    ({}, {}, "pip", "index"),
    ({"/etc/pip.conf": f"[global]\nindex-url = https://{LOGIN}other.example/simple\n"}, {}, "pip", "index"),
    ({}, {"PIP_EXTRA_INDEX_URL": f"https://{LOGIN}other.example/simple"}, "pip", "bypass"),
    ({"/root/.pip/pip.conf": "[install]\nfind-links = /srv/wheels\n"}, {}, "pip", "bypass"),
    ({"/etc/pip.conf": f"not an ini file {LOGIN}\n"}, {}, "pip", "files"),
    ({}, {"UV_INDEX": f"corp=https://{LOGIN}other.example/simple"}, "uv", "bypass"),
    ({"pyproject.toml": f'[tool.uv]\nindex-url = "https://{LOGIN}other.example/"\n'}, {"UV_DEFAULT_INDEX": ""}, "uv", "index"),
    ({"uv.toml": f"this is no TOML {SECRET} = = \n"}, {}, "uv", "files"),
    (
        {"pyproject.toml": f'[[tool.poetry.source]]\nname = "x"\nurl = "https://{LOGIN}other.example/"\n'},
        {},
        "poetry",
        "index",
    ),
    ({"poetry.lock": ""}, {}, "poetry", "index"),
    (
        {
            "pyproject.toml": f'[[tool.poetry.source]]\nname = "x"\nurl = "https://{LOGIN}other.example/"\n'
            'priority = "explicit"\n'
        },
        {},
        "poetry",
        "bypass",
    ),
    ({}, {"PDM_PYPI_URL": f"https://{LOGIN}other.example/simple"}, "pdm", "index"),
    ({"/root/.config/pdm/config.toml": f'[pypi.x]\nurl = "https://{LOGIN}other.example/"\n'}, {}, "pdm", "bypass"),
    ({"Pipfile": f'[[source]]\nname = "x"\nurl = "https://{LOGIN}other.example/"\n'}, {}, "pipenv", "index"),
    ({"/root/.buildout/default.cfg": f"[buildout]\nfind-links = https://{LOGIN}other.example/\n"}, {}, "buildout", "bypass"),
    ({"/root/.pydistutils.cfg": f"[easy_install]\nindex_url = https://{LOGIN}other.example/\n"}, {}, "setuptools", "index"),
    ({"requirements.txt": f"six @ https://{LOGIN}other.example/six-1.0.tar.gz\n"}, {}, "project", "bypass"),
    ({"dev-requirements.txt": f"-e git+https://{LOGIN}other.example/six\n"}, {}, "project", "bypass"),
    ({"requirements.txt": f"--extra-index-url=https://{LOGIN}other.example/simple\nsix\n"}, {}, "project", "bypass"),
    ({"pyproject.toml": f'[project]\ndependencies = ["a @ https://{LOGIN}other.example/a.whl"]\n'}, {}, "project", "bypass"),
    (
        {"uv.lock": '[[package]]\nname = "six"\nsource = { registry = "https://other.example/simple" }\n'},
        {},
        "project",
        "lock",
    ),
    ({"/root/.netrc": f"machine other.example login x password {SECRET} nonsense"}, {}, "netrc", "files"),
    ({}, {"HTTP_PROXY": f"http://{LOGIN}squid.example:3128"}, "environment", "detour"),
    ({}, {"PIP_PROXY": f"http://{LOGIN}squid.example:3128"}, "pip", "detour"),
    ({}, {"PYPIPROXY_DIRECT": f"perhaps {SECRET}"}, "fail-open", "switch"),
]


@pytest.mark.parametrize(("files", "variables", "subject", "check"), BYPASSES)
@pytest_twisted.ensureDeferred
async def test_a_setting_that_leads_past_the_proxy_is_found_and_no_credential_is_shown(
    agent: Agent, make_upstream: Make, files: Mapping[str, str], variables: Mapping[str, str], subject: str, check: str
) -> None:
    proxy = make_upstream()  # answers 404 to everything, which is enough for what is asked of it here
    agent.environ.update({"PIP_INDEX_URL": proxy.url, "UV_DEFAULT_INDEX": proxy.url} if files or variables else {})
    if any("index-url" in text for text in files.values()):
        agent.environ.pop("PIP_INDEX_URL", None)  # it overrides files
    agent.environ.update(variables)
    for path, text in files.items():
        agent.write(path, text)
    found = await agent.examined(proxy.base)
    assert check in {name for name, _ in about(found, subject)}
    assert SECRET not in repr(found)
    assert "carol" not in repr(found)


@pytest_twisted.ensureDeferred
async def test_a_login_in_the_url_or_in_a_netrc_file_is_used_and_never_shown(agent: Agent, upstream: FakeUpstream) -> None:
    fill(upstream)
    for url in (upstream.base.replace("://", f"://{LOGIN}"), upstream.base):
        found = await agent.examined(url)
        assert upstream.asked[-1].headers["authorization"].startswith("Basic ")
        assert SECRET not in repr(found)
        agent.write("/root/.netrc", f"machine 127.0.0.1 login carol password {SECRET}\n")


@pytest_twisted.ensureDeferred
async def test_an_authority_that_clients_lack_is_found_for_each_of_them(
    agent: Agent, make_upstream: Make, tmp_path: Path
) -> None:
    authority, _ = certs.authority().write(tmp_path, "ca")
    proxy = make_upstream(tls=certs.server_context())
    agent.environ.update({"PIP_INDEX_URL": proxy.url, "UV_DEFAULT_INDEX": proxy.url, "PIP_CERT": str(authority)})
    found = await agent.examined(proxy.base, str(authority))
    assert ("tls", Grade.FAULT) not in about(found, "pip")
    assert ("tls", Grade.FAULT) in about(found, "uv")
    agent.environ["SSL_CERT_FILE"] = str(tmp_path / "none.pem")
    assert ("tls", Grade.FAULT) in about(await agent.examined(proxy.base, str(authority)), "uv")


@pytest_twisted.ensureDeferred
async def test_https_to_the_plain_port_is_advised_to_be_http(agent: Agent, upstream: FakeUpstream, run: Start) -> None:
    proxy = await run(upstream)
    https = proxy.base.replace("http:", "https:")
    agent.environ.update({"PIP_INDEX_URL": f"{https}/simple/", "UV_DEFAULT_INDEX": f"{https}/simple/"})
    advice = [each.advice for each in await agent.examined(https) if each.check in ("address", "tls")]
    assert len(advice) == 3, "the proxy, pip, uv"
    assert all(f"write http:// in the URL of the proxy, here ({proxy.base})" in (each or "") for each in advice)


# -- pure parts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "below"),
    [
        (f"{FAR}/simple/", True),
        (f"http://{LOGIN}BUILD-HOST.example:3143/index/corp/simple", True),
        (FAR, True),
        ("http://build-host.example/simple/", False),
        ("https://build-host.example:3143/simple/", False),
        ("http://build-host.example.evil.example:3143/simple/", False),
        ("http://build-host.example:3143@evil.example/simple/", False),
        ("http://[::1/", False),
        ("/srv/wheels", False),
    ],
)
def test_a_url_is_at_the_proxy_or_it_is_not(url: str, below: bool) -> None:
    assert is_below(url, FAR) is below


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert is_below(text, FAR) in (True, False)
    assert not is_below(f"https://{text}", FAR)


@pytest.mark.parametrize(
    ("variables", "grade"),
    [
        ({}, Grade.OK),
        ({"http_proxy": "http://squid.example:3128"}, Grade.FAULT),
        ({"https_proxy": "http://squid.example:3128"}, Grade.OK),
        ({"ALL_PROXY": "http://squid.example:3128"}, Grade.FAULT),
        ({"http_proxy": "http://squid.example:3128", "NO_PROXY": "a.example, .example"}, Grade.OK),
        ({"http_proxy": "http://squid.example:3128", "no_proxy": "build-host.example:3143"}, Grade.OK),
        ({"http_proxy": "http://squid.example:3128", "no_proxy": "build-host.example:80"}, Grade.FAULT),
        ({"http_proxy": "http://squid.example:3128", "no_proxy": "host.example"}, Grade.FAULT),
        ({"http_proxy": "http://squid.example:3128", "no_proxy": "*"}, Grade.OK),
    ],
)
def test_a_detour_is_found_unless_the_host_is_exempt(variables: dict[str, str], grade: Grade) -> None:
    found = list(diverted(Address.of(FAR), Machine(variables, Path("/")), {}))
    assert [each.grade for each in found] == [grade]


@pytest.mark.parametrize(
    ("url", "trusted", "grades"),
    [
        (FAR, "", [Grade.FAULT]),
        (FAR, "build-host.example", [Grade.OK]),
        (FAR, "other.example build-host.example:3143", [Grade.OK]),
        ("http://127.0.0.1:3143", "", []),
        ("https://build-host.example", "", []),
        ("https://build-host.example", "build-host.example", [Grade.WARNING]),
    ],
)
def test_plain_http_has_to_be_trusted_and_https_need_not(agent: Agent, url: str, trusted: str, grades: list[Grade]) -> None:
    agent.write("/etc/pip.conf", f"[global]\ntrusted-host = {trusted}\n")
    options = pip_options(agent.machine, [agent.root / "etc/pip.conf"])
    assert [each.grade for each in plain_http(Address.of(url), options, ["pip"])] == grades


# -- the fail-open switch ----------------------------------------------------------------------------------------------------

MIRROR = f"{FAR}/index/pypi/simple/"


@pytest.mark.parametrize(
    ("variables", "file", "expected"),
    [
        ({}, None, []),
        ({"PYPIPROXY_PUBLIC_INDEX": MIRROR}, None, []),
        ({"PYPIPROXY_PUBLIC_INDEX": MIRROR, "PYPIPROXY_DIRECT": "off"}, "off\n", []),
        ({"PYPIPROXY_PUBLIC_INDEX": MIRROR, "PYPIPROXY_DIRECT": "on"}, None, [("switch", Grade.WARNING)]),
        ({"PYPIPROXY_PUBLIC_INDEX": MIRROR}, "on\n", [("switch", Grade.WARNING)]),
        ({}, "on\n", [("switch", Grade.WARNING), ("index", Grade.FAULT)]),
        ({"PYPIPROXY_PUBLIC_INDEX": f"{FAR}/index/corp/simple/"}, None, [("index", Grade.FAULT)]),
        ({"PYPIPROXY_PUBLIC_INDEX": "http://other.example/simple/"}, None, [("index", Grade.FAULT)]),
        ({"PYPIPROXY_DIRECT": "yes"}, None, [("switch", Grade.FAULT)]),
    ],
)
def test_the_switch_is_reported(
    agent: Agent, variables: dict[str, str], file: str | None, expected: list[tuple[str, Grade]]
) -> None:
    agent.environ.update(variables)
    if file is not None:
        agent.write("/etc/pypiproxy/direct", file)
    assert bad(list(switch_findings(agent.machine, Address.of(FAR), (MIRROR,)))) == expected


@pytest_twisted.ensureDeferred
async def test_a_group_is_no_index_for_the_switch(agent: Agent, upstream: FakeUpstream, run: Start) -> None:
    mirror = IndexSettings(name="pypi", upstreams=("up0",))
    group = IndexSettings(name="corp", kind="group", group=GroupSettings(members=("pypi",)), default=True)
    proxy = await run(upstream, indexes=(mirror, group))
    agent.environ["PYPIPROXY_PUBLIC_INDEX"] = f"{proxy.base}/index/pypi/simple/"
    assert about(await agent.examined(proxy.base), "fail-open") == []
    agent.environ["PYPIPROXY_PUBLIC_INDEX"] = proxy.url
    assert about(await agent.examined(proxy.base), "fail-open") == [("index", Grade.FAULT)]
