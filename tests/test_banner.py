"""What is said at the start."""

from __future__ import annotations

from pathlib import Path

from proxy.host.banner import banner
from proxy.settings import IndexSettings, ServerSettings, Settings, UpstreamSettings

CORP = UpstreamSettings(name="corp", url="https://corp.example/simple/")
MIRROR = UpstreamSettings(name="mirror", url="https://mirror.example/simple/")
MAIN = IndexSettings(name="main", upstreams=("corp", "mirror"), default=True)


def shown(*urls: str, indexes: tuple[IndexSettings, ...] = (MAIN,)) -> list[str]:
    settings = Settings(server=ServerSettings(data_dir=Path("/srv/data")), upstreams=(CORP, MIRROR), indexes=indexes)
    return banner("1.2.3", settings, urls, "standard output", "build-host")


def test_it_has_all_that_is_needed_to_use_the_proxy() -> None:
    assert shown("http://127.0.0.1:3143/") == [
        "pypiproxy 1.2.3",
        "  data       /srv/data",
        "  index      /simple/ and /index/main/simple/ from corp <https://corp.example/simple/>, mirror <https://mirror.example/simple/>",
        "  listening  http://127.0.0.1:3143/",
        "  log        standard output",
        "  pip        export PIP_INDEX_URL=http://127.0.0.1:3143/simple/",
        "  uv         export UV_DEFAULT_INDEX=http://127.0.0.1:3143/simple/",
    ]


def test_what_listens_everywhere_is_named_as_other_machines_name_it() -> None:
    lines = shown("http://0.0.0.0:3143/", "http://[::]:3144/")
    assert "  listening  http://build-host:3143/" in lines
    assert "             http://build-host:3144/" in lines
    pip = "  pip        export PIP_INDEX_URL=http://build-host:3143/simple/ PIP_TRUSTED_HOST=build-host:3143"
    assert pip in lines


def test_an_ipv6_address_is_in_brackets() -> None:
    assert "  uv         export UV_DEFAULT_INDEX=http://[::1]:3143/simple/" in shown("http://[::1]:3143/")


def test_what_no_client_can_use_directly_is_listed_without_settings() -> None:
    lines = shown("unix:/run/pypiproxy.sock")
    assert "  listening  unix:/run/pypiproxy.sock" in lines
    assert not [line for line in lines if "export" in line]


def test_several_indexes_are_listed_up_to_a_number() -> None:
    others = tuple(IndexSettings(name=f"other-{number}", offline=True) for number in range(20))
    lines = shown("http://127.0.0.1:3143/", indexes=(MAIN, *others))
    assert "  indexes    /simple/ and /index/main/simple/ from corp" in lines[2]
    assert "             /index/other-0/simple/ from what is stored alone: it is offline" in lines
    assert "             11 more: pypiproxy check-config lists them" in lines
