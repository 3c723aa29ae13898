"""A machine with clients of a proxy: what they are told, what bypasses the proxy, whether they trust and reach it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from msgspec.structs import replace

from proxy.core.bypasses import PIP
from proxy.core.clients import Address
from proxy.doctor import machine as on
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.machine import Machine, Stated
from proxy.doctor.probing import Probed, ProbeMeans, Prober, at_once
from proxy.doctor.running import Identified, condition, identity_of
from proxy.doctor.sources import Client, client_findings, project_findings
from proxy.doctor.switch import switch_findings
from proxy.doctor.trust import Authority, diverted, pip_options, plain_http, trusted_authorities
from proxy.doctor.upstreams import certificate_finding, clock_findings
from proxy.errors import ConfigError
from proxy.host.clients import configuration_files
from proxy.model import PageFound, PageMissing
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.upstream.http.failures import Failed, speaks_no_tls
from proxy.upstream.http.handshake import ShownCertificate

__all__ = ["Machine", "examine_agent"]

_PROXY = "proxy"
#: What each client is told, the programs that it has, and the files of a project that is built with it.
_CLIENTS: Mapping[str, tuple[Callable[[Machine], Iterator[Stated]], tuple[str, ...], tuple[str, ...]]] = {
    "pip": (on.told_pip, ("pip", "pip3"), ()),
    "uv": (on.told_uv, ("uv",), ("uv.lock",)),
    "poetry": (on.told_poetry, (), ("poetry.lock",)),
    "pdm": (on.told_pdm, ("pdm",), ("pdm.lock",)),
    "pipenv": (on.told_pipenv, ("pipenv",), ("Pipfile",)),
    "buildout": (on.told_buildout, ("buildout",), ("buildout.cfg",)),
    "setuptools": (on.told_setuptools, (), ()),
}


async def examine_agent(
    machine: Machine, address: Address, project: str, means: ProbeMeans, tell: Callable[[Diagnosis], None]
) -> None:
    """Examine *machine* as a client of the proxy at *address*, and *tell* each finding."""
    login = _login(machine, address)
    address = _without_login(address)

    def told(findings: Iterable[Diagnosis]) -> None:
        for each in findings:
            tell(each)

    clients = await means.files.run(_clients, machine)
    for each in clients:
        told(client_findings(each, address))
    told(project_findings(await means.files.run(lambda: list(on.told_project(machine))), address))
    pip = await means.files.run(pip_options, machine, configuration_files(PIP, machine.environ, machine.root))
    told(diverted(address, machine, pip))
    told(plain_http(address, pip, [each.name for each in clients if each.present]))
    told(await means.files.run(lambda: list(_netrc(machine, address))))
    said, findings = await _reached(address, login, project, means)
    told(findings)
    if not address.plain:
        told(await _trusted(address, trusted_authorities(machine, pip), [each.name for each in clients if each.present], means))
    told(switch_findings(machine, address, None if said is None else said.public))


def _clients(machine: Machine) -> list[Client]:
    found = []
    for name, (told, programs, files) in _CLIENTS.items():
        present = machine.has(*programs) or any((machine.here / each).is_file() for each in files)
        found.append(Client(name, tuple(told(machine)), present))
    return found


# -- credentials -------------------------------------------------------------------------------------------------------------


def _without_login(address: Address) -> Address:
    parts = urlsplit(address.base)
    base = urlunsplit(parts._replace(netloc=address.host))
    return replace(address, base=base, index=f"{base}/{address.index.removeprefix(address.base).lstrip('/')}")


def _login(machine: Machine, address: Address) -> tuple[str, str] | None:
    """The user and the password for the proxy: of its URL, else of the netrc file."""
    parts = urlsplit(address.base)
    if parts.username is not None:
        return unquote(parts.username), unquote(parts.password or "")
    try:
        found = netrc(_netrc_file(machine)).authenticators(parts.hostname or "")
    except (OSError, NetrcParseError, UnicodeDecodeError):
        return None
    return None if not found or not found[0] or not found[2] else (found[0], found[2])


def _netrc_file(machine: Machine) -> Path:
    return Path(machine.environ.get("NETRC") or machine.home / ".netrc")


def _netrc(machine: Machine, address: Address) -> Iterator[Diagnosis]:
    """Whether the netrc file has a login for the proxy, and who can read it; never what is in it."""
    file, host = _netrc_file(machine), urlsplit(address.base).hostname or ""
    try:
        mode = file.stat().st_mode
        found = netrc(file).authenticators(host)
    except FileNotFoundError:
        return
    except OSError as error:
        yield warning("netrc", "files", f"{file}: {error.strerror}", "make it readable for this user alone: chmod 0600")
        return
    except (NetrcParseError, UnicodeDecodeError):
        yield fault("netrc", "files", f"{file} is not understood: clients send no login at all", "correct its syntax")
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        yield warning(
            "netrc", "permissions", f"{file} can be read by other users (mode {mode & 0o777:04o})", f"chmod 0600 {file}"
        )
    words = f"has a login for {host}" if found else f"has no login for {host}, which clients of public indexes do not need"
    yield fine("netrc", "login", f"{file} {words}")


# -- the proxy ---------------------------------------------------------------------------------------------------------------


async def _reached(
    address: Address, login: tuple[str, str] | None, project: str, means: ProbeMeans
) -> tuple[Identified | None, list[Diagnosis]]:
    """What the proxy says of itself, and what is found about the way to it."""
    user, password = login or (None, None)
    ca_file = None if address.ca_file is None else Path(address.ca_file)
    settings = UpstreamSettings(
        name=_PROXY, url=address.index, username=user, password=password, ca_file=ca_file, allow_private_addresses=True
    )
    try:
        prober = Prober(settings, means)
    except ConfigError:
        return None, [fault(_PROXY, "tls", f"{address.ca_file} is not the PEM file it should be", "name another --ca-file")]
    try:
        identity, probed = await at_once([_identity(prober, address), prober.probe(project)])
    finally:
        await prober.close()
    found = list(_way(address, probed, project))
    if isinstance(identity, Identified):
        found.insert(0, condition(_PROXY, f"{address.base} is pypiproxy {identity.version} and", identity))
        return identity, found
    if any(each.page for each in probed.addresses) and identity is None:
        seen = f"{address.base} answers, and is no pypiproxy"
        found.insert(0, fault(_PROXY, "identity", seen, "check the URL: host, port, and a path that a server in front adds"))
    return None, found


async def _identity(prober: Prober, address: Address) -> Identified | Failed | None:
    try:
        body, _ = await prober.document(f"{address.base}/", "application/json")
    except Failed as error:
        return error
    return identity_of(body)


def _way(address: Address, probed: Probed, project: str) -> Iterator[Diagnosis]:
    if probed.unresolved is not None:
        seen = f"the host of {address.base} has no address: {probed.unresolved}"
        yield fault(_PROXY, "dns", seen, "check the name in the URL, and /etc/resolv.conf (getent ahosts HOST)")
        return
    for each in probed.addresses:
        if each.failure is not None:
            yield fault(_PROXY, "address", f"{each.address}: {each.failure}", _advice(address, each.failure, each.certificate))
        elif isinstance(each.page, PageMissing):
            seen = f"{each.address}: {address.index} has no project {project}"
            yield warning(_PROXY, "page", seen, "name a project that it has with --project; if it has that, check the URL")
        elif isinstance(each.page, PageFound):
            yield fine(_PROXY, "page", f"{each.address}: serves the page of {project}")
    yield from clock_findings(_PROXY, probed.addresses)


def _advice(address: Address, failure: str, certificate: ShownCertificate | str | None) -> str:
    if address.base.startswith("https:") and speaks_no_tls(failure):
        return _plain(address)
    if isinstance(certificate, ShownCertificate) and certificate.wrong:
        return f"its certificate {' and '.join(certificate.wrong)}: name what signed it with --ca-file, as clients need it too"
    if "401" in failure or "403" in failure:
        return "put a login for it into ~/.netrc (docs/rights.md)"
    return "run pypiproxy doctor on its host; between here and there, look at firewalls (curl -v)"


def _plain(address: Address) -> str:
    """The advice to who speaks TLS to a port of plain HTTP."""
    plain = shown(address.base).replace("https:", "http:", 1)
    return f"no TLS is spoken there: write http:// in the URL of the proxy, here ({plain}) and in the settings of the clients"


async def _trusted(address: Address, found: Iterable[Authority], present: list[str], means: ProbeMeans) -> list[Diagnosis]:
    """Whether clients trust the certificate of the proxy."""
    files = {each.file for each in found if each.client in present}
    outcomes: dict[Path | None, Diagnosis | None] = {}
    for file in files:
        outcomes[file] = None if file is not None and not os.access(file, os.R_OK) else await _with(address, file, means)
    findings = []
    for each in found:
        if each.client not in present:
            continue
        outcome = outcomes[each.file]
        if outcome is None:
            seen = f"{each.setting} = {each.file} cannot be read: no https works"
            findings.append(fault(each.client, "tls", seen, "correct the path, or remove the setting"))
        else:
            by = "the authorities of the system" if each.file is None else f"{each.setting} = {each.file}"
            findings.append(replace(outcome, subject=each.client, seen=f"with {by}: {outcome.seen}"))
    return findings


async def _with(address: Address, file: Path | None, means: ProbeMeans) -> Diagnosis:
    """What who trusts the authorities in *file* finds about the certificate of the proxy."""
    settings = UpstreamSettings(name=_PROXY, url=address.index, ca_file=file, allow_private_addresses=True)
    advice = (
        f"name what signed it: pypiproxy client-config CLIENT --url {shown(address.base)} --ca-file FILE prints the setting"
    )
    try:
        prober = Prober(settings, means)
    except ConfigError:
        return fault(_PROXY, "tls", f"{file} is not the PEM file it should be", advice)
    try:
        certificate = await prober.certificate()
    finally:
        await prober.close()
    if certificate is None or isinstance(certificate, str):
        advice = _plain(address) if certificate is not None and speaks_no_tls(certificate) else advice
        return fault(_PROXY, "tls", f"no TLS handshake: {certificate or 'it has no address'}", advice)
    return certificate_finding(_PROXY, "its certificate", certificate, means.clock(), advice)
