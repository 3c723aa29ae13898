"""Where to listen, as people write it."""

from __future__ import annotations

import pytest

from proxy.core.endpoint import endpoint_of, of_port


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("3143", "tcp:3143"),
        (":3143", "tcp:3143"),
        ("*:3143", "tcp:3143"),
        ("0.0.0.0:3143", "tcp:3143:interface=0.0.0.0"),
        ("127.0.0.1:3143", "tcp:3143:interface=127.0.0.1"),
        ("localhost:3143", "tcp:3143:interface=localhost"),
        ("build-host.example:3143", "tcp:3143:interface=build-host.example"),
        ("[::1]:3143", "tcp6:3143:interface=\\:\\:1"),
        ("[::]:3143", "tcp6:3143:interface=\\:\\:"),
        ("[fe80::1%eth0]:3143", "tcp6:3143:interface=fe80\\:\\:1%eth0"),
        # endpoints stay what they are
        ("tcp:3143", "tcp:3143"),
        ("tcp:3143:interface=127.0.0.1", "tcp:3143:interface=127.0.0.1"),
        ("unix:/run/pypiproxy.sock", "unix:/run/pypiproxy.sock"),
        ("ssl:3143:privateKey=key.pem:certKey=cert.pem", "ssl:3143:privateKey=key.pem:certKey=cert.pem"),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_each_form_means_an_endpoint(written: str, means: str) -> None:
    assert endpoint_of(written) == means


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("65536", "there is no port 65536"),
        ("127.0.0.1:99999", "there is no port 99999"),
        ("127.0.0.1", "write 127.0.0.1:3143"),
        ("[::1]", r"write \[::1\]:3143"),
        ("::1", r"such as \[::1\]:3143"),
        ("::1:3143", r"such as \[::1\]:3143"),
        ("[localhost]:3143", "localhost is not an IPv6 address"),
    ],
)
def test_a_short_form_with_a_mistake_is_explained(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        endpoint_of(written)


def test_a_port_by_itself_is_one_of_the_default_address() -> None:
    assert of_port("3144") == "tcp:3144:interface=127.0.0.1"
    for wrong in ("", ":1", "x", "65536", "-1"):
        with pytest.raises(ValueError, match="between 0 and 65535"):
            of_port(wrong)
