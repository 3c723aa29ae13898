"""What leads clients past the proxy: recognised in an environment and in configuration files, and reported by client-config."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from proxy.core.bypasses import PIP, UV, OtherSources, cautions, elsewhere, in_environment
from proxy.core.client_files import in_pip_conf, in_uv_toml
from proxy.core.clients import CLIENTS, Address
from proxy.host.clients import past_the_proxy
from tests.support.process import ROOT, environment

PROXY = Address.of("http://build-host.example:3143")
OTHER = "https://other.example/simple"
PROGRAM = "from proxy.cli import main; main()"


Named = list[tuple[str, tuple[str, ...], bool]]


def named(sources: Iterable[OtherSources]) -> Named:
    return [(each.setting, each.urls, each.instead) for each in sources]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"PIP_EXTRA_INDEX_URL": ""}, []),
        (
            {"PIP_EXTRA_INDEX_URL": f"{OTHER} https://b.example/"},
            [("PIP_EXTRA_INDEX_URL", (OTHER, "https://b.example/"), False)],
        ),
        ({"PIP_FIND_LINKS": "/opt/wheels"}, [("PIP_FIND_LINKS", ("/opt/wheels",), False)]),
        ({"PIP_INDEX_URL": OTHER}, [("PIP_INDEX_URL", (OTHER,), True)]),
        ({"UV_INDEX_URL": OTHER, "PIP_TIMEOUT": "3"}, []),
    ],
)
def test_variables_of_pip(environ: dict[str, str], expected: Named) -> None:
    assert named(in_environment(PIP, environ)) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"UV_INDEX": f"corp={OTHER} {OTHER}/?a=b"}, [("UV_INDEX", (OTHER, f"{OTHER}/?a=b"), False)]),
        ({"UV_DEFAULT_INDEX": OTHER}, [("UV_DEFAULT_INDEX", (OTHER,), True)]),
        (
            {"UV_EXTRA_INDEX_URL": OTHER, "UV_FIND_LINKS": "x"},
            [("UV_EXTRA_INDEX_URL", (OTHER,), False), ("UV_FIND_LINKS", ("x",), False)],
        ),
        ({"PIP_EXTRA_INDEX_URL": OTHER}, []),
    ],
)
def test_variables_of_uv(environ: dict[str, str], expected: Named) -> None:
    assert named(in_environment(UV, environ)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("[global]\ntimeout = 3\n", []),
        (
            f"[global]\nextra-index-url =\n    {OTHER}\n    file:///opt\n",
            [("[global] extra-index-url", (OTHER, "file:///opt"), False)],
        ),
        ("[install]\nfind_links = /opt/%(a)s\n", [("[install] find-links", ("/opt/%(a)s",), False)]),
        (f"[global]\nindex-url = {OTHER}\n", [("[global] index-url", (OTHER,), True)]),
    ],
)
def test_settings_in_a_pip_conf(text: str, expected: Named) -> None:
    assert named(in_pip_conf(text, "pip.conf")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (f'[[index]]\nurl = "{OTHER}"\ndefault = true\n', [("[[index]]", (OTHER,), True)]),
        (f'[[index]]\nname = "corp"\nurl = "{OTHER}"\n', [("[[index]]", (OTHER,), False)]),
        (
            f'extra-index-url = ["{OTHER}"]\nindex-url = "{OTHER}"\n',
            [("extra-index-url", (OTHER,), False), ("index-url", (OTHER,), True)],
        ),
        ('[pip]\nfind-links = ["/opt", "b"]\n', [("pip.find-links", ("/opt", "b"), False)]),
        ("pip = 3\nindex = [1, {}, {url = 2}]\nfind-links = [3]\nextra-index-url = 3\n", []),
        ("index = 3\n[[pip]]\n", []),
    ],
)
def test_settings_in_a_uv_toml(text: str, expected: Named) -> None:
    assert named(in_uv_toml(text, "uv.toml")) == expected


def test_what_is_at_the_proxy_is_no_bypass() -> None:
    here = OtherSources(
        "x", "PIP_INDEX_URL", ("http://build-host.example:3143/simple", "http://build-host.example:3143"), instead=True
    )
    near = OtherSources("x", "PIP_EXTRA_INDEX_URL", ("http://build-host.example:3143/index/corp/simple/", OTHER), instead=False)
    port = OtherSources("x", "PIP_INDEX_URL", ("http://build-host.example:31430/simple/",), instead=True)
    assert named(elsewhere([here, near, port], PROXY.base)) == [("PIP_EXTRA_INDEX_URL", (OTHER,), False), *named([port])]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environ = {"UV_INDEX": "corp=https://ci:hunter2@other.example/simple?token=hunter2 https://:hunter2@b/"}
    (said,) = past_the_proxy("uv", PROXY, environ, tmp_path)
    assert "hunter2" not in said
    assert "other.example/simple" in said


def machine(root: Path, files: dict[str, str]) -> None:
    """A machine with *files* below *root*."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def test_the_files_of_a_machine_are_found(tmp_path: Path) -> None:
    conf = "[global]\nextra-index-url = https://{}.example/\n".format
    machine(
        tmp_path,
        {
            "etc/pip.conf": conf("global"),
            "etc/xdg/pip/pip.conf": conf("xdg"),
            "home/.config/pip/pip.conf": conf("user"),
            "home/.pip/pip.conf": conf("legacy"),
            "venv/pip.conf": conf("site"),
            "named.conf": conf("named"),
            "etc/uv/uv.toml": 'find-links = ["/of-uv"]',
            "home/.config/uv/uv.toml": f'[[index]]\nurl = "{PROXY.index}"\ndefault = true\n',
        },
    )
    environ = {"HOME": f"{tmp_path}/home", "VIRTUAL_ENV": f"{tmp_path}/venv", "PIP_CONFIG_FILE": f"{tmp_path}/named.conf"}

    def found(client: str, **more: str) -> list[str]:
        said = past_the_proxy(client, PROXY, {**environ, **more}, tmp_path)
        return [re.sub(r".*\((?:https://)?(.*?)(?:\.example/)?\).*", r"\1", each) for each in said]

    assert found("pip") == ["xdg", "global", "site", "named"]
    assert found("pip", PIP_CONFIG_FILE=f"{tmp_path}/nothing") == ["xdg", "global", "legacy", "user", "site"]
    assert found("pip", PIP_CONFIG_FILE=os.devnull) == []
    assert found("uv") == ["/of-uv"]
    assert found("uv", UV_CONFIG_FILE=f"{tmp_path}/nothing.toml") == []
    assert found("uv", UV_FIND_LINKS="/more") == ["/more", "/of-uv"]
    assert found("hatch") == ["xdg", "global", "site", "named", "/of-uv"]
    assert found("poetry", PIP_EXTRA_INDEX_URL=OTHER, UV_INDEX=OTHER) == []


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    machine(
        tmp_path, {"etc/pip.conf": "no section\n", "etc/uv/uv.toml": "[[", "home/.pip": "no folder", "etc/xdg/uv/uv.toml/x": ""}
    )
    environ = {"HOME": f"{tmp_path}/home"}
    (pip,) = past_the_proxy("pip", PROXY, environ, tmp_path)
    assert pip.startswith(f"{tmp_path}/etc/pip.conf cannot be read: File contains no section headers")
    folder, toml = past_the_proxy("uv", PROXY, environ, tmp_path)
    assert folder == f"{tmp_path}/etc/xdg/uv/uv.toml cannot be read: Is a directory"
    assert toml.startswith(f"{tmp_path}/etc/uv/uv.toml cannot be read: ")


def test_a_python_that_the_system_manages_is_named_outside_of_virtual_environments(tmp_path: Path) -> None:
    machine(tmp_path, {"usr/lib/python3.13/EXTERNALLY-MANAGED": "[externally-managed]\n"})
    environ = {"HOME": f"{tmp_path}/home"}
    (said,) = past_the_proxy("pip", PROXY, environ, tmp_path)
    assert said.startswith(f"{tmp_path}/usr/lib/python3.13 is managed by the system (externally-managed-environment)")
    assert list(past_the_proxy("pip", PROXY, {**environ, "VIRTUAL_ENV": str(tmp_path / "venv")}, tmp_path)) == []
    assert list(past_the_proxy("uv", PROXY, environ, tmp_path)) == []


@pytest.mark.parametrize("named", [True, False])
def test_pip_itself_reads_the_same_files(tmp_path: Path, named: bool) -> None:
    files = {
        ".config/pip/pip.conf": f"[install]\nfind_links = /opt/wheels\n[global]\nextra-index-url = {OTHER}\n",
        ".pip/pip.conf": "[download]\nextra-index-url = https://b.example/\n",
        "named.conf": "[wheel]\nfind-links = /opt/more\n",
    }
    machine(tmp_path, files)
    env = environment(tmp_path, PIP_FIND_LINKS="/opt/most", **({"PIP_CONFIG_FILE": f"{tmp_path}/named.conf"} if named else {}))
    command = [sys.executable, "-m", "pip", "config", "list"]
    of_pip = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    ours = list(past_the_proxy("pip", PROXY, env))
    for url in ("/opt/wheels", OTHER, "https://b.example/", "/opt/more", "/opt/most"):
        assert (f"'{url}'" in of_pip) == any(f"({url})" in each for each in ours), (url, of_pip)
    assert f"'{OTHER}'" in of_pip or named


def test_pip_asks_the_proxy_alone_after_the_cure_in_the_manual(tmp_path: Path) -> None:
    machine(tmp_path, {".config/pip/pip.conf": f"[global]\nextra-index-url = {OTHER}\nfind-links = /opt/wheels\n"})
    env = environment(tmp_path, PYTHONPATH=os.getcwd(), PIP_EXTRA_INDEX_URL=OTHER, PIP_FIND_LINKS="/opt/more")
    section = (ROOT / "docs/troubleshooting.md").read_text("utf-8").partition("### Requests that bypass the proxy")[2]
    cure = section.partition("```sh\n")[2].partition("```")[0]
    command = f'pypiproxy() {{ "{sys.executable}" -c "{PROGRAM}" "$@"; }}'

    def sources(first: str) -> list[str]:
        shell = ["/bin/sh", "-ec", "\n".join([command, first, f'"{sys.executable}" -m pip config list'])]
        listed = subprocess.run(shell, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in listed if "index" in line or "links" in line]

    assert f"global.extra-index-url='{OTHER}'" in sources("export PIP_EXTRA_INDEX_URL=")
    assert sources(cure) == [":env:.index-url='http://build-host.example:3143/simple/'"]


def test_the_command_reports_it_on_standard_error_and_the_rest_is_for_the_shell(tmp_path: Path) -> None:
    def run(**more: str) -> subprocess.CompletedProcess[str]:
        arguments = ["client-config", "pip", "--url", PROXY.base]
        env = environment(tmp_path, PYTHONPATH=os.getcwd(), PIP_CONFIG_FILE=os.devnull, **more)
        return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=env, capture_output=True, text=True, check=True)

    found = run(PIP_EXTRA_INDEX_URL=OTHER)
    assert (
        f"on this machine: PIP_EXTRA_INDEX_URL in the environment ({OTHER}) is used beside the proxy: remove it\n"
        in found.stderr
    )
    assert found.stdout == run().stdout
    assert "PIP_EXTRA_INDEX_URL" not in run().stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_each_caution_names_its_client_or_what_it_runs(client: str) -> None:
    for each in cautions(client):
        assert re.search(r"\b(pip|uv)\b", each)
        assert each.endswith(".")
