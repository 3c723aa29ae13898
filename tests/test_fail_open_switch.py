"""The fail-open switch as a build step sees it: who is pointed at the public index, and who is refused that."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from distlib.index import DEFAULT_INDEX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.process import ROOT

SNIPPET = ROOT / "conf" / "fail-open" / "pypiproxy.sh"
SHELLS = ["dash", "bash"]
PROXY = "https://packages.corp.example"
MIRROR = f"{PROXY}/index/pypi/simple/"
GROUP = f"{PROXY}/index/corp/simple/"
SECRET = "f00tball"
#: A job with public projects alone, on an agent of a farm whose switch is on.
PUBLIC = {
    "PYPIPROXY_PUBLIC_INDEX": MIRROR,
    "PYPIPROXY_DIRECT": "on",
    "PYPIPROXY_PROJECTS": "public",
    "PIP_INDEX_URL": MIRROR,
    "UV_DEFAULT_INDEX": MIRROR,
}
SHELLCHECK = shutil.which("shellcheck")


class Step:
    """What came of a step that sources the snippet in *shell*, in the directory *place*, with *variables*."""

    def __init__(self, place: Path, variables: Mapping[str, str], shell: str = "dash", before: str = "set -eu") -> None:
        home = place / "home"
        home.mkdir(exist_ok=True)
        kept = {"PATH": os.environ["PATH"], "HOME": str(home), "PYPIPROXY_SWITCH": str(place / "switch")}
        program = f'{before}\n. "$0"\nenv'
        ended = subprocess.run(
            [shell, "-c", program, str(SNIPPET)], env={**kept, **variables}, cwd=place, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        self.said = ended.stderr
        self.environ = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
        self.refused = "PYPIPROXY_REFUSED" in self.environ
        #: The indexes that clients are told to use.
        self.indexes = {name for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if self.environ.get(name)}

    @property
    def direct(self) -> bool:
        """Whether clients use the index that they know by themselves."""
        return not self.indexes


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """A shell that builds are run by."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not here")
    return name


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not here (Debian: apt install shellcheck)")
@pytest.mark.parametrize("dialect", ["sh", "dash", "bash"])
def test_shellcheck_has_nothing_to_say(dialect: str) -> None:
    checked = subprocess.run([str(SHELLCHECK), "-s", dialect, str(SNIPPET)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_no_index_but_that_of_the_farm_is_named_in_what_is_shipped() -> None:
    text = "".join(each.read_text("utf-8") for each in sorted(SNIPPET.parent.iterdir()))
    hosts = {word.split("://")[1].split("/")[0] for word in text.split() if "://" in word and ".example" in word}
    assert hosts <= {"packages.corp.example", "gitlab.corp.example"}
    assert str(urlsplit(DEFAULT_INDEX).hostname) not in text


def test_nothing_happens_while_the_switch_is_off(tmp_path: Path, shell: str) -> None:
    for position in ("off", ""):
        step = Step(tmp_path, {**PUBLIC, "PYPIPROXY_DIRECT": position}, shell)
        assert (step.refused, step.said, step.indexes) == (False, "", {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"})
    step = Step(tmp_path, {**PUBLIC, "PYPIPROXY_DIRECT": "true"}, shell)
    assert not step.direct
    assert "neither on nor off" in step.said


def test_a_job_with_public_projects_alone_is_pointed_at_the_index_that_clients_know(tmp_path: Path, shell: str) -> None:
    step = Step(tmp_path, PUBLIC, shell)
    assert (step.refused, step.direct) == (False, True)
    assert step.said == "pypiproxy: the switch is on: this step asks the public index directly, not the proxy\n"
    assert Step(tmp_path, {**PUBLIC, **step.environ}, shell).said == ""  # a shell that is started by that step


def test_a_file_is_a_switch_too(tmp_path: Path, shell: str) -> None:
    variables = {name: value for name, value in PUBLIC.items() if name != "PYPIPROXY_DIRECT"}
    (tmp_path / "switch").write_text("on\n")
    assert Step(tmp_path, variables, shell).direct
    (tmp_path / "switch").write_text("off\n")
    assert not Step(tmp_path, variables, shell).direct


#: Variables and files of a step that is refused the switch, with what the message names.
REFUSED: list[tuple[Mapping[str, str], Mapping[str, str], str]] = [
    ({"PYPIPROXY_PROJECTS": ""}, {}, "PYPIPROXY_PROJECTS=public"),
    ({"PYPIPROXY_PROJECTS": "private"}, {}, "PYPIPROXY_PROJECTS=public"),
    ({"PYPIPROXY_PUBLIC_INDEX": ""}, {}, "PYPIPROXY_PUBLIC_INDEX"),
    ({"PIP_INDEX_URL": GROUP}, {}, "PIP_INDEX_URL"),
    ({"UV_DEFAULT_INDEX": f"https://ci:{SECRET}@packages.corp.example/index/corp/simple/"}, {}, "UV_DEFAULT_INDEX"),
    ({"PIP_EXTRA_INDEX_URL": GROUP}, {}, "PIP_EXTRA_INDEX_URL"),
    ({"PIP_FIND_LINKS": "/srv/wheels"}, {}, "PIP_FIND_LINKS"),
    ({"UV_INDEX": f"corp={GROUP}"}, {}, "UV_INDEX"),
    ({"UV_INDEX_CORP_PASSWORD": SECRET}, {}, "logins for further indexes"),
    ({"POETRY_HTTP_BASIC_CORP_PASSWORD": SECRET}, {}, "logins for further indexes"),
    ({}, {"home/.config/pip/pip.conf": f"[global]\nindex-url = {GROUP}\n"}, "pip.conf"),
    ({}, {"home/.pip/pip.conf": f"[install]\nextra_index_url = {MIRROR}\n"}, "pip.conf"),
    ({}, {"home/.config/pip/pip.conf": f"[global]\nindex-url = {MIRROR}\nfind-links = /srv\n"}, "pip.conf"),
    ({}, {"home/.config/uv/uv.toml": f'[[index]]\nurl = "{GROUP}"\n'}, "uv.toml"),
    ({}, {"uv.toml": f'index-url="{GROUP}"\n'}, "uv.toml"),
    ({}, {"pyproject.toml": '[[tool.uv.index]]\nurl = "https://other.example/simple"\n'}, "pyproject.toml"),
    ({}, {"pyproject.toml": '[tool.uv]\nextra-index-url = ["https://other.example/simple"]\n'}, "pyproject.toml"),
    ({}, {"pyproject.toml": '[[ tool.poetry.source ]]\nurl = "https://other.example/"\n'}, "pyproject.toml"),
    ({}, {"requirements.txt": f"--index-url {MIRROR}\nsix\n"}, "requirements.txt"),
    ({}, {"requirements-dev.txt": "-f https://other.example/\nsix\n"}, "requirements-dev.txt"),
    ({}, {"uv.lock": f'[[package]]\nsource = {{ registry = "{MIRROR}" }}\n'}, "uv.lock"),
    ({}, {"Pipfile": '[[source]]\nurl = "https://a.example"\n[[source]]\nurl = "https://b.example"\n'}, "Pipfile"),
]


@pytest.mark.parametrize(("variables", "files", "named"), REFUSED)
def test_a_step_that_may_need_private_projects_is_refused_and_keeps_its_index(
    tmp_path: Path, variables: Mapping[str, str], files: Mapping[str, str], named: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    given_ = {**PUBLIC, **variables}
    step = Step(tmp_path, given_)
    assert step.refused
    assert named in step.said
    assert "docs/fail-open.md" in step.said or named == "PYPIPROXY_PUBLIC_INDEX"
    assert SECRET not in step.said
    assert {name: step.environ[name] for name in given_} == given_


def test_a_step_is_refused_in_every_shell(tmp_path: Path, shell: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"--index-url {MIRROR}\nsix\n")
    step = Step(tmp_path, {**PUBLIC, "PIP_INDEX_URL": GROUP, "PIP_FIND_LINKS": "/srv"}, shell)
    assert step.refused
    assert [each in step.said for each in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "requirements.txt")] == [True] * 3


def test_a_project_is_looked_for_in_the_directories_above(tmp_path: Path, shell: str) -> None:
    (tmp_path / "pyproject.toml").write_text('[[tool.uv.index]]\nurl = "https://other.example/simple"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert Step(below, PUBLIC, shell).refused


def test_what_names_nothing_private_is_let_through(tmp_path: Path, shell: str) -> None:
    (tmp_path / "home/.config/pip").mkdir(parents=True)
    (tmp_path / "home/.config/pip/pip.conf").write_text(
        f"[global]\n# index-url = {GROUP}\nindex-url = {MIRROR.replace('://', '://ci:x@')}\nproxy = http://squid.example:3128\n"
    )
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "index"\ndependencies = ["six", "sources>=1"]\n')
    (tmp_path / "requirements.txt").write_text("# --index-url x\nsix==1.0\n-r other.txt\n")
    (tmp_path / "Pipfile").write_text('[[source]]\nname = "public"\nurl = "https://a.example"\n')
    login = MIRROR.replace("://", "://ci:x@").rstrip("/")
    step = Step(tmp_path, {**PUBLIC, "PIP_INDEX_URL": login}, shell)
    assert (step.refused, step.direct) == (False, True)
    assert step.environ["PIP_CONFIG_FILE"] == os.devnull
    assert "UV_NO_CONFIG" not in step.environ


def test_what_was_set_to_trust_the_proxy_is_unset_and_nothing_else(tmp_path: Path, shell: str) -> None:
    own = {"PYPIPROXY_CA_FILE": "/etc/ca.pem", "PIP_CERT": "/etc/ca.pem", "SSL_CERT_FILE": "/etc/all.pem"}
    step = Step(tmp_path, {**PUBLIC, **own, "PIP_TRUSTED_HOST": "packages.corp.example", "PIP_TIMEOUT": "5"}, shell)
    assert step.direct
    assert {"PIP_CERT", "PIP_TRUSTED_HOST"}.isdisjoint(step.environ)
    assert (step.environ["SSL_CERT_FILE"], step.environ["PIP_TIMEOUT"]) == ("/etc/all.pem", "5")


def test_a_step_that_is_traced_shows_no_credential(tmp_path: Path, shell: str) -> None:
    login = {"PIP_INDEX_URL": MIRROR.replace("://", f"://ci:{SECRET}@"), "PIP_EXTRA_INDEX_URL": f"https://x:{SECRET}@a.example"}
    step = Step(tmp_path, {**PUBLIC, **login}, shell, before="set -x")
    assert step.refused
    assert "+ env" in step.said
    assert SECRET not in step.said


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=_TEXT, extra=_TEXT, declared=_TEXT)
def test_only_the_public_index_and_nothing_beside_it_is_ever_switched(
    tmp_path: Path, index: str, extra: str, declared: str
) -> None:
    """Whatever is in the variables is text, never a command; a step is pointed elsewhere only if all of it is public."""
    for one, two, three in ((index, extra, declared), (index, "", "public"), (MIRROR, extra, "public"), (MIRROR, "", declared)):
        variables = {**PUBLIC, "PIP_INDEX_URL": one, "PIP_EXTRA_INDEX_URL": two, "PYPIPROXY_PROJECTS": three}
        step = Step(tmp_path, variables)
        harmless = one.rstrip("/") in ("", MIRROR.rstrip("/")) and not two.rstrip("/") and three == "public"
        assert step.refused is not harmless
        if not harmless:
            assert step.environ.get("PIP_INDEX_URL", "") == one
