"""The short form of a line in the access log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.access_line import WIDTH, short, short_agent, short_path
from proxy.web.answers import printable

PIP = printable(b'pip/26.3 {"ci":null,"cpu":"x86_64","implementation":{"name":"CPython","version":"3.11.7"},"python":"3.11.7"}')
DIGEST = "sha256-" + "0123456789abcdef" * 4
WHEEL = "charset_normalizer-3.4.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"


def line(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "time": "2026-11-26T20:11:38+0000",
        "client": "10.20.30.40",
        "method": "GET",
        "target": "/simple/six/",
        "status": 200,
        "sent": 12_345,
        "seconds": 0.0034,
        "cache": "hit",
        "shown": short_agent(PIP),
        "cut": "",
        "request_id": "0a1b2c3d-000001",
    }
    return short(**fields | changes)


def test_it_has_one_field_each_and_the_agent_last() -> None:
    assert line() == "2026-11-26T20:11:38+0000 10.20.30.40 GET /simple/six/ 200 12.3kB 3.4ms hit pip/26.3 py3.11"
    assert line(cut=" cut off").endswith(" hit cut off pip/26.3 py3.11 id=0a1b2c3d-000001")


def test_an_error_has_the_id_of_its_request() -> None:
    assert line(status=404, cache="not-found").endswith(" not-found pip/26.3 py3.11 id=0a1b2c3d-000001")
    longest = line(status=503, cache="upstream-failed", target="/simple/" + "x" * 200 + "/")
    assert longest.endswith(" upstream-failed pip/26.3 py3.11 id=0a1b2c3d-000001")
    assert len(longest) <= WIDTH + 16


@given(
    client=st.sampled_from(["10.200.30.140", "::1", "-"]),
    method=st.binary(max_size=30).map(printable),
    target=st.binary(max_size=2000).map(printable),
    agent=st.binary(max_size=2000).map(printable),
    cache=st.sampled_from(["hit", "refreshed", "-"]),
    sent=st.integers(0, 10**13),
    seconds=st.floats(0, 10**6),
)
def test_whatever_the_client_says_it_is_one_line_of_limited_width_with_its_fields_in_place(
    client: str, method: str, target: str, agent: str, cache: str, sent: int, seconds: float
) -> None:
    made = line(client=client, method=method, target=target, shown=short_agent(agent), cache=cache, sent=sent, seconds=seconds)
    assert made.isprintable()
    assert len(made) <= WIDTH + 16
    fields = made.split(" ", 8)
    assert (fields[1], fields[4], fields[7]) == (client, "200", cache)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/simple/six/", "/simple/six/"),
        ("/simple/six/?token=x", "/simple/six/?…"),
        ("/-/live 200 1B 1ms hit", "/-/live\\x20200\\x201B\\x201ms\\x20hit"),
        (f"/files/six/{DIGEST}/six-1.0-py3-none-any.whl", "/files/six/…/six-1.0-py3-none-any.whl"),
        (f"/index/corp/files/charset-normalizer/{DIGEST}/{WHEEL}", "…/charset_normalizer-3.4.0-cp311-…x2014_x86_64.whl"),
        ("/simple/" + "x" * 60 + "/", "/simple/" + "x" * 25 + "…" + "x" * 15 + "/"),
    ],
)
def test_a_path_keeps_what_tells_it_from_others(target: str, shown: str) -> None:
    assert short_path(target, 50) == shown
    assert len(short_path(target, 50)) <= 50


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (PIP, "pip/26.3 py3.11"),
        (printable(b'uv/0.9.1 {"installer":{"name":"uv","version":"0.9.1"},"python":"3.13.1"}'), "uv/0.9.1 py3.13"),
        ("poetry/1.8.3 CPython/3.11.9 Linux/6.1", "poetry/1.8.3 py3.11"),
        ("Python/3.12 aiohttp/3.10", "Python/3.12"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("-", "-"),
        ("", "-"),
        ("a" * 40, "a" * 23 + "…"),
        ("{}", "?"),
    ],
)
def test_an_agent_is_its_first_product_and_its_python(agent: str, shown: str) -> None:
    assert short_agent(agent) == shown
