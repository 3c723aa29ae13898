"""Whether clients on a machine trust the proxy: plain http, authorities, and HTTP proxies on the way.  Pure."""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.core.clients import Address
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.machine import Machine
from proxy.simple.links import shown

#: Variables that name authorities, by the client that reads them; the first one that is set wins.
AUTHORITIES: Mapping[str, tuple[str, ...]] = {
    "pip": ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "uv": ("SSL_CERT_FILE",),
    "poetry": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "pdm": ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    "pipenv": ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}


class Authority(Struct, frozen=True):
    """The file with the authorities that *client* trusts, and what names it; ``None``: those that it has by itself."""

    client: str
    file: Path | None
    setting: str


def pip_options(machine: Machine, files: Iterable[Path]) -> dict[str, str]:
    """``cert``, ``trusted-host`` and ``proxy`` as pip has them from *files*, later ones first, and from the environment.

    Hosts that are trusted anywhere are trusted.
    """
    found: dict[str, str] = {}
    trusted = []
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(machine.text(file) or "")
        except (OSError, ValueError, configparser.Error):
            continue  # which is said where its indexes are looked for
        for section in parser.sections():
            values = {key.replace("_", "-"): value for key, value in parser.items(section)}
            found.update({key: values[key] for key in ("cert", "proxy") if values.get(key)})
            trusted.append(values.get("trusted-host", ""))
    environ = machine.environ
    for key in ("cert", "proxy"):
        if value := environ.get(f"PIP_{key.upper()}"):
            found[key] = value
    found["trusted-host"] = " ".join([*trusted, environ.get("PIP_TRUSTED_HOST", "")])
    return found


def trusted_authorities(machine: Machine, pip: Mapping[str, str]) -> list[Authority]:
    """What each client trusts; *pip* are its options."""
    found = []
    for client, names in AUTHORITIES.items():
        name = next((each for each in names if machine.environ.get(each)), None)
        if client == "pip" and pip.get("cert") and name != "PIP_CERT":
            found.append(Authority(client, Path(pip["cert"]), "cert in pip.conf"))
        else:
            found.append(Authority(client, None if name is None else Path(machine.environ[name]), name or "its own list"))
    return found


def plain_http(address: Address, pip: Mapping[str, str], clients: Iterable[str]) -> Iterator[Diagnosis]:
    """Whether pip accepts the proxy over plain http, and whether anything is trusted that need not be."""
    host = urlsplit(address.base).hostname or ""
    trusted = (
        host in {each.rpartition(":")[0] or each for each in pip["trusted-host"].split()}
        or address.host in pip["trusted-host"].split()
    )
    if address.doubted and not trusted and "pip" in clients:
        advice = f"export PIP_TRUSTED_HOST={address.host}, or serve https (docs/configuration.md)"
        yield fault("pip", "trust", f"refuses {address.base}: it is plain http to a host that is not trusted", advice)
    elif address.doubted and "pip" in clients:
        yield fine("pip", "trust", f"trusts {address.host} over plain http")
    elif not address.plain and trusted:
        advice = f"remove {host} from trusted-host and PIP_TRUSTED_HOST, and name the authority instead (PIP_CERT)"
        yield warning("pip", "trust", f"does not check the certificate of {host}: it is a trusted-host", advice)


def _exempt(host: str, port: int | None, exceptions: str) -> bool:
    """Whether *exceptions* (``NO_PROXY``) has the host, one of its domains, or everything; with its port or without."""
    for each in (each.strip().lower().lstrip(".") for each in exceptions.split(",")):
        name, _, stated = each.rpartition(":") if each.rpartition(":")[2].isdecimal() else (each, "", "")
        if each == "*" or (name and (host == name or host.endswith(f".{name}")) and stated in ("", str(port))):
            return True
    return False


def diverted(address: Address, machine: Machine, pip: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Whether requests for the proxy go through another one."""
    parts = urlsplit(address.base)
    proxies = {}
    for name, value in machine.environ.items():
        scheme = name.lower().removesuffix("_proxy")
        if value and name.lower().endswith("_proxy") and (name.islower() or scheme not in proxies):
            proxies[scheme] = value
    used = proxies.get(parts.scheme) or proxies.get("all")
    if pip.get("proxy"):
        advice = "remove PIP_PROXY and proxy from pip.conf, or have that proxy pass requests for this host on"
        yield warning("pip", "detour", f"sends its requests through {shown(pip['proxy'])} (PIP_PROXY or proxy)", advice)
    if used is None:
        yield fine("environment", "detour", f"no HTTP proxy is set for {parts.scheme}")
    elif _exempt(parts.hostname or "", parts.port, proxies.get("no", "")):
        yield fine("environment", "detour", f"NO_PROXY exempts {parts.hostname} from {shown(used)}")
    else:
        variable = f"{parts.scheme}_proxy" if parts.scheme in proxies else "all_proxy"
        seen = f"requests for {parts.hostname} go through {shown(used)} ({variable})"
        others = f"{proxies['no']}," if proxies.get("no") else ""
        yield fault(
            "environment", "detour", seen, f"export NO_PROXY={others}{parts.hostname} no_proxy={others}{parts.hostname}"
        )
