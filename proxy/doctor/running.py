"""The proxy that runs on a data directory: its process, its limits, what its listeners answer, and what it says of itself."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from twisted.internet.endpoints import HostnameEndpoint

from proxy.composition.process import affordable
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.probing import ProbeMeans, Prober, at_once
from proxy.doctor.upstreams import certificate_finding
from proxy.host import adminaddress
from proxy.host.listening import speaks_tls
from proxy.host.ports import port_trouble, reached_at
from proxy.settings import Settings, UpstreamSettings
from proxy.simple.links import shown_in
from proxy.upstream.http.failures import Failed, reason
from proxy.upstream.http.handshake import TlsClient, shown_certificate

_SUBJECT = "running proxy"
#: What SO_PEERCRED gives: process, user and group.
_CREDENTIALS = struct.Struct("3i")
#: The part of the descriptors in use from which on they are soon all in use.
_MOST_USED = 0.9


class Running(Struct, frozen=True):
    """What is known of the process: its number, its limit of descriptors and how many it has open, as far as may be seen."""

    pid: int
    descriptors: int | None
    open: int | None


def running_on(data_dir: Path, processes: Path = Path("/proc")) -> Running | None:
    """The proxy that runs on *data_dir*, ``None`` if none does.  Raises OSError when it may not be asked."""
    try:
        connection = adminaddress.connect(data_dir)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    with connection:
        pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Running(pid, _limit(processes / str(pid)), _open(processes / str(pid)))


def _limit(process: Path) -> int | None:
    try:
        for line in (process / "limits").read_text("ascii", "replace").splitlines():
            if line.startswith("Max open files"):
                return int(line.split()[3])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _open(process: Path) -> int | None:
    try:
        return sum(1 for _ in (process / "fd").iterdir())
    except OSError:
        return None


def descriptor_findings(settings: Settings, limit: int, used: int | None) -> Iterator[Diagnosis]:
    """What a process of the proxy that may have *limit* descriptors, and has *used*, can do with them."""
    wanted = settings.server.max_connections
    upstream = sum(each.max_connections for each in settings.upstreams)
    clients = affordable(wanted, limit, upstream)
    advice = "raise the limit: LimitNOFILE= in the systemd unit, ulimit -n before the start, --ulimit nofile= of a container"
    if used is not None and used > limit * _MOST_USED:
        yield fault(
            "descriptors", "limit", f"{used:,} of {limit:,} descriptors are in use: connections are refused soon", advice
        )
    elif clients < wanted:
        seen = (
            f"with {limit:,} descriptors there is room for {clients:,} clients, fewer than server.max_connections = {wanted:,}"
        )
        yield warning("descriptors", "limit", seen, advice)
    else:
        now = "" if used is None else f", {used:,} in use"
        yield fine("descriptors", "limit", f"{limit:,} descriptors are allowed{now}; {wanted:,} clients need fewer")


def port_findings(settings: Settings) -> Iterator[Diagnosis]:
    """Whether a proxy that does not run could listen where it is configured to."""
    for description in settings.server.listen:
        trouble = port_trouble(description)
        if trouble is None:
            yield fine("listen", "port", f"{description}: free")
        else:
            yield fault("listen", "port", f"{description}: {trouble}", "stop what uses it, or change server.listen")


def state_findings(states: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    """What the running proxy says of its upstreams, as far as something is wrong."""
    for state in states:
        subject = f"upstream {state['name']}"
        if state.get("better_url"):
            seen = f"the running proxy found no pages at its url, but at {state['better_url']}"
            yield fault(subject, "state", seen, f"set upstream.{state['name']}.url to that")
        elif state["state"] != "up":
            seen = f"is {state['state']} for the running proxy: {shown_in(str(state['last_failure']))}"
            yield warning(subject, "state", seen, "see what is found below; pypiproxy upstreams says when it is probed again")
        if state.get("resting"):
            seen = f"the running proxy avoids {', '.join(state['resting'])}: requests there failed lately"
            yield warning(subject, "state", seen, "see what is found about these addresses")


async def listener_findings(settings: Settings, means: ProbeMeans) -> list[Diagnosis]:
    """What the listeners of a running proxy answer."""
    found: list[Diagnosis] = await at_once(
        [_listener(each, means) for each in settings.server.listen if reached_at(each) is not None]
    )
    return found


async def _listener(description: str, means: ProbeMeans) -> Diagnosis:
    found = reached_at(description)
    assert found is not None
    host, port = found
    if speaks_tls(description):
        return await _tls_listener(description, host, port, means)
    shown_host = f"[{host}]" if ":" in host else host
    base = f"http://{shown_host}:{port}"
    prober = Prober(UpstreamSettings(name="listener", url=f"{base}/simple/"), means)
    try:
        body, _ = await prober.document(f"{base}/", "application/json")
    except Failed as error:
        advice = "look at its log (journalctl -u pypiproxy): it is overloaded, stopping, or was started with other options"
        return fault("listen", "listener", f"{description}: {error}", advice)
    finally:
        await prober.close()
    said = identity_of(body)
    if said is None:
        advice = "find out what listens there (ss -ltnp), and stop it or change server.listen"
        return fault("listen", "listener", f"{description}: something answers that is no pypiproxy", advice)
    return condition("listen", f"{description}: pypiproxy {said.version}", said)


async def _tls_listener(description: str, host: str, port: int, means: ProbeMeans) -> Diagnosis:
    endpoint = HostnameEndpoint(means.reactor, host, port, timeout=means.limit)
    try:
        certificate = await shown_certificate(endpoint, TlsClient(host), means.reactor, means.limit)
    except Exception as error:  # noqa: BLE001  # whatever it is, there was no handshake
        words = f"{description}: no TLS handshake: {reason(error, means.limit)}"
        return fault("listen", "tls", words, "look at the log of the proxy (journalctl -u pypiproxy)")
    # Which authority signed it and for which names are matters of the clients (pypiproxy doctor --agent).
    own = certificate.about_itself
    return certificate_finding("listen", f"{description}: its certificate", own, means.clock(), "renew it")


class Identified(Struct, frozen=True):
    """What the root of a pypiproxy says: its version, whether it is ready, what is degraded, and which indexes are public."""

    version: str
    ready: bool
    degraded: tuple[str, ...]
    #: URLs of its indexes that serve what upstreams have and nothing else; ``None``: it does not say (an earlier version).
    public: tuple[str, ...] | None


def identity_of(body: bytes) -> Identified | None:
    """What *body*, the answer to a request for JSON at the root, says; ``None`` if that is no pypiproxy."""
    try:
        said = json.loads(body)
        if said["service"] != "pypiproxy":
            return None
        kinds = [(each.get("kind"), str(each["url"])) for each in said["indexes"]]
        public = tuple(url for kind, url in kinds if kind == "proxy") if all(kind for kind, _ in kinds) else None
        return Identified(str(said["version"])[:40], bool(said["ready"]), tuple(map(str, said["degraded"]))[:20], public)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def condition(subject: str, who: str, said: Identified) -> Diagnosis:
    """Whether *who*, which says this, serves as it should."""
    if not said.ready:
        return warning(subject, "listener", f"{who} starts or stops", "run this again in a minute")
    if said.degraded:
        advice = "ask its /-/ready what that is in detail, and see docs/troubleshooting.md"
        return warning(subject, "listener", f"{who} serves, but is degraded: {', '.join(said.degraded)}", advice)
    return fine(subject, "listener", f"{who} is ready")
