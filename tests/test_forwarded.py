"""The address of a client behind proxies: only those that are trusted are believed, and only as far as they can know."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent

from proxy.access.forwarded import TrustedProxies
from tests.inprocess import Start
from tests.support.fake_upstream import FakeUpstream

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48"])


@pytest.mark.parametrize(
    ("peer", "x_forwarded_for", "forwarded", "client"),
    [
        ("192.0.2.1", ["198.51.100.7"], ["for=198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", [], [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], [], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], [], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7 ,10.2.3.4"], [], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7, 10.2.3.4"], [], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 10.2.3.4"], [], "10.9.9.9"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.2.3.4"], [], "10.2.3.4"),
        ("10.0.0.1", ["203.0.113.9, "], [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:4711"], [], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], [], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8::0001"], [], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], [], "198.51.100.7"),
        ("2001:db8:ffff::1", ["198.51.100.7"], [], "198.51.100.7"),
        ("10.0.0.1", [], ["for=198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", [], ['For="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        ("10.0.0.1", [], ["for=203.0.113.9;proto=http, by=10.0.0.1;for=198.51.100.7;host=a"], "198.51.100.7"),
        ("10.0.0.1", [], ['for=198.51.100.7;host="a,for=203.0.113.9"'], "198.51.100.7"),
        ("10.0.0.1", [], ["for=203.0.113.9, for=_hidden"], "10.0.0.1"),
        ("10.0.0.1", [], ["for=203.0.113.9, proto=http"], "10.0.0.1"),
        ("10.0.0.1", [], ['for="203.0.113.9'], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], ["for=198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7"], ["for=203.0.113.9"], "10.0.0.1"),
        ("-", ["198.51.100.7"], [], "-"),
    ],
)
def test_the_right_most_address_that_is_no_trusted_proxy_is_the_client(
    peer: str, x_forwarded_for: list[str], forwarded: list[str], client: str
) -> None:
    assert PROXIES.client(peer, x_forwarded_for, forwarded) == client


nodes = st.sampled_from(["10.1.1.1", "198.51.100.7", "unknown", "", "203.0.113.9:1", "[::1]", '"', "x" * 40]) | st.text(
    max_size=8
)


@given(st.lists(nodes, max_size=5), st.lists(nodes, max_size=5))
def test_what_a_client_writes_before_its_own_address_changes_nothing(forged: list[str], more: list[str]) -> None:
    own = "198.51.100.7, 10.2.2.2"
    assert PROXIES.client("10.0.0.1", [", ".join([*forged, own])], []) == "198.51.100.7"
    assert PROXIES.client("10.0.0.1", [*more, *forged, own], []) == "198.51.100.7"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("trusted", "client"), [((), "127.0.0.1"), (("127.0.0.0/8",), "198.51.100.7")])
async def test_the_access_log_names_the_client_on_every_way_to_an_answer(
    upstream: FakeUpstream, run: Start, logged: list[LogEvent], trusted: tuple[str, ...], client: str
) -> None:
    upstream.add_file("six", "six-1.0.tar.gz", b"six")
    proxy = await run(upstream, trusted_proxies=trusted)
    stated = {"X_Forwarded_For": "203.0.113.9, 198.51.100.7"}
    for number in range(4):
        await proxy.get("/simple/six/", User_Agent=f"pip/{number // 2}", **stated)
    assert (await proxy.get("/simple/six/", Content_Length="1", **stated)).status == 413
    assert (await proxy.get("/simple/six/", Transfer_Encoding="chunked", Content_Length="1", **stated)).status == 400
    assert [each["client"] for each in logged if each["log_namespace"] == "proxy.access"][:5] == [client] * 5
