"""``pypiproxy client-config``: what it prints, and that docs/clients.md shows the same."""

from __future__ import annotations

import configparser
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.core.clients import CLIENTS, COMMAND, ENVIRONMENT, Address, Setting, printed, settings
from proxy.core.publishing import PUBLISHERS, publishing

DOCUMENT = Path(__file__).parent.parent / "docs" / "clients.md"
#: The address that the document speaks of.
SHOWN = "http://build-host.example:3143"
#: Plain http to another machine, to this one, https with a certificate of one's own: all that settings depend on.
ADDRESSES = {
    "plain": Address.of(SHOWN),
    "local": Address.of("http://127.0.0.1:3143"),
    "tls": Address.of("https://build-host.example", ca_file="/etc/ssl/corp-ca.pem"),
    "named": Address.of("https://build-host.example", "corp"),
}
#: What needs the default index, and why is said by the command.
AT_THE_ROOT = ("bandersnatch",)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["client-config", *arguments])


def every_setting() -> list[tuple[str, str, Setting]]:
    return [
        (client, kind, each)
        for client in CLIENTS
        for kind, address in ADDRESSES.items()
        if kind != "named" or client not in AT_THE_ROOT
        for each in settings(client, address)
    ]


def test_an_index_is_found_below_the_url() -> None:
    assert Address.of("http://127.0.0.1:3143").index == "http://127.0.0.1:3143/simple/"
    assert Address.of("http://127.0.0.1:3143/simple/", "corp").index == "http://127.0.0.1:3143/index/corp/simple/"
    assert Address.of("https://host.example/pypi/").index == "https://host.example/pypi/simple/"


@pytest.mark.parametrize(
    ("url", "doubted"),
    [
        ("http://127.0.0.1:3143", False),
        ("http://127.1.2.3", False),
        ("http://[::1]:3143", False),
        ("http://localhost:3143", False),
        ("https://build-host.example", False),
        ("http://build-host.example", True),
        ("http://192.0.2.7:3143", True),
        ("http://[2001:db8::1]:3143", True),
    ],
)
def test_pip_is_told_to_trust_plain_http_from_other_machines(url: str, doubted: bool) -> None:
    """As its own list of secure origins has it."""
    trusted = url.removeprefix("http://") if doubted else None
    assert settings("pip", Address.of(url))[0].variables.get("PIP_TRUSTED_HOST") == trusted
    assert ("trusted-host" in run("pip", "--url", url).stdout) == doubted


@pytest.mark.parametrize("client", CLIENTS)
def test_the_command_prints_every_setting_with_the_index_in_it(client: str) -> None:
    result = run(client, "--url", "https://build-host.example", "--ca-file", "/etc/ssl/corp-ca.pem")
    assert result.exit_code == 0
    assert result.stdout == printed(client, ADDRESSES["tls"])
    assert "/etc/ssl/corp-ca.pem" in result.stdout
    for each in settings(client, ADDRESSES["tls"]):
        assert f"# {each.where}: {each.about}\n{each.text}" in result.stdout


@pytest.mark.parametrize("client", [each for each in CLIENTS if each not in AT_THE_ROOT])
def test_another_index_can_be_named(client: str) -> None:
    result = run(client, "--url", "https://build-host.example", "--index", "corp")
    assert result.stdout == printed(client, ADDRESSES["named"])
    assert "https://build-host.example/index/corp/simple/" in result.stdout


def test_the_variables_are_for_a_shell() -> None:
    output = run("pip", "--url", SHOWN, "--index", "corp").stdout
    exports = "\n".join(line for line in output.splitlines() if line.startswith("export"))
    told = subprocess.run(["/bin/sh", "-c", f"{exports}\necho $PIP_INDEX_URL"], capture_output=True, text=True, check=True)
    assert told.stdout == f"{SHOWN}/index/corp/simple/\n"


@pytest.mark.parametrize(("client", "kind", "setting"), every_setting())
def test_each_setting_is_whole_and_names_the_proxy(client: str, kind: str, setting: Setting) -> None:
    """Files can be read by what reads their format; nothing is left of the public index."""
    address = ADDRESSES[kind]
    assert setting.text.endswith("\n")
    assert address.base in setting.text or (address.ca_file or "-") in setting.text
    if setting.where == ENVIRONMENT:
        assert set(setting.variables.values()) <= {address.index, address.host, address.ca_file, "false"}
    elif setting.where == "Pipfile" or setting.where.endswith(".toml"):
        assert address.index in str(tomllib.loads(setting.text))
    elif setting.where != COMMAND:
        parser = configparser.ConfigParser()
        parser.read_string(setting.text)
        assert len(parser.sections()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("conda",), "'conda' is not one of 'pip', 'uv', 'poetry'"),
        (("pip", "--url", "build-host.example"), "build-host.example: expected http:// or https://"),
        (("pip", "--url", "http://"), "expected http:// or https://, a host"),
        (("pip", "--ca-file", "ca.pem"), "there is a certificate to check over https only"),
        (("pip", "--index", "Not One"), "--index Not One: expected a name of a-z"),
        (("bandersnatch", "--index", "corp"), "bandersnatch can mirror the default index alone"),
        (("bandersnatch", "--url", "https://build-host.example/pypi/"), "of a proxy at the root of its host"),
    ],
)
def test_a_mistake_is_told_as_one_of_usage(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("client", PUBLISHERS)
def test_what_a_tool_needs_to_publish_is_for_a_shell_and_has_no_secret(client: str) -> None:
    result = run(client, "--publish", "--index", "corp", "--url", "https://build-host.example", "--ca-file", "/etc/ca.pem")
    assert result.exit_code == 0, result.output
    (setting,) = publishing(client, Address.of("https://build-host.example", "corp", "/etc/ca.pem"))
    values = list(setting.variables.values())
    assert values[:2] == ["https://build-host.example/index/corp/legacy/", "__token__"]
    assert values[-1] == "/etc/ca.pem"
    assert setting.text in result.stdout
    assert f"put the token into {PUBLISHERS[client].password}" in result.stdout
    assert PUBLISHERS[client].password not in setting.variables


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pip", "--publish", "--index", "corp"), "pip uploads nothing; these do: twine, uv, poetry, pdm, flit, hatch"),
        (("twine", "--publish"), "--publish needs --index with the name of a hosted index"),
        (("twine",), "twine installs nothing; print what it uploads with by --publish"),
    ],
)
def test_who_does_not_publish_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, said in result.stderr) == (2, True)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_document_shows_the_same(client: str) -> None:
    """All of it, and no line more: each code block of the client's section is a setting."""
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE))
    assert [each for each in sections if each in CLIENTS] == list(CLIENTS)
    blocks = re.findall(r"^```\w+\n(.*?)^```$", sections[client], re.DOTALL | re.MULTILINE)
    shown = [re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in blocks]
    assert shown == [each.text for each in settings(client, ADDRESSES["plain"])]
