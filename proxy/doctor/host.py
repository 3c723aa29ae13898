"""The host of a proxy: everything that keeps it from starting, or from serving what it should.

Works beside a running proxy and without one, and writes nothing.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from twisted.internet.error import TimeoutError

from proxy import config
from proxy.composition.starting import refuse_start
from proxy.core.amounts import duration
from proxy.doctor.directory import directory_findings, secret_findings
from proxy.doctor.disk import disk_findings, file_system_of
from proxy.doctor.findings import Diagnosis, fault, fine
from proxy.doctor.probing import ProbeMeans, Prober, at_once, bounded
from proxy.doctor.running import (
    Running,
    descriptor_findings,
    listener_findings,
    port_findings,
    running_on,
    state_findings,
)
from proxy.doctor.upstreams import judged
from proxy.errors import ConfigError, ProxyError
from proxy.host import listening
from proxy.settings import Settings, UpstreamSettings


class ExaminedHost(Struct, frozen=True):
    """What to examine: the configuration *file* (``None``: the defaults) and a data directory that takes the place of its own.

    *ask* has the proxy that runs on a data directory say what it knows of its upstreams.  Raises ProxyError.
    """

    file: Path | None
    data_dir: Path | None
    ask: Callable[[Path], Sequence[Mapping[str, Any]]]
    #: The project whose page upstreams are asked for, and the upstreams to ask; ``None``: all that an index uses.
    project: str
    upstreams: tuple[str, ...] = ()


def configuration(host: ExaminedHost, reactor: Any) -> tuple[Settings | None, Diagnosis]:
    """The settings, if they can be used, and what is found about them."""
    name = str(host.file or "the defaults")
    try:
        settings = config.load(host.file, config.CommandLine(data_dir=host.data_dir))
    except ConfigError as error:
        return None, _refused(name, str(error))
    try:
        for description in settings.server.listen:
            listening.endpoint(description, reactor)
        refuse_start(settings, host.file)
    except ConfigError as error:
        return settings, _refused(name, str(error))
    except OSError as error:  # a path that no file system takes
        return settings, _refused(name, f"{error.strerror}: {error.filename}")
    return settings, fine("configuration", "file", f"{name}: fine")


def _refused(name: str, error: str) -> Diagnosis:
    advice = "correct it; pypiproxy check-config finds every mistake, and the proxy does not start before"
    return fault("configuration", "file", f"{name}: {error}", advice)


async def examine_host(host: ExaminedHost, means: ProbeMeans, tell: Callable[[Diagnosis], None]) -> None:
    """Examine all of it, and *tell* each finding as soon as it is there."""

    def told(findings: Iterable[Diagnosis]) -> None:
        for each in findings:
            tell(each)

    settings, found = configuration(host, means.reactor)
    tell(found)
    if settings is None:
        return
    told(await _looked(_on_this_machine, settings, host, means))
    told(await _looked(_of_the_process, settings, host, means))
    if await _answers(settings, means):
        told(await listener_findings(settings, means))
    for each in await at_once([_upstream(each, host.project, means) for each in _chosen(settings, host)]):
        told(each)


async def _looked(
    look: Callable[[Settings, ExaminedHost], list[Diagnosis]], settings: Settings, host: ExaminedHost, means: ProbeMeans
) -> list[Diagnosis]:
    """What *look* finds on this machine, in a thread that is left alone if the file system does not answer."""
    try:
        return await bounded(means.files.run(look, settings, host), means.limit, means.reactor)
    except TimeoutError:
        seen = f"{settings.server.data_dir} does not answer within {duration(means.limit)}"
        return [fault("disk", "answer", seen, "check the disk, or the server that it is on: findmnt, dmesg")]


async def _answers(settings: Settings, means: ProbeMeans) -> bool:
    """Whether a proxy runs on the data directory, as far as that can be found out."""
    try:
        return await bounded(means.files.run(_runs, settings), means.limit, means.reactor)
    except TimeoutError:
        return True


def _chosen(settings: Settings, host: ExaminedHost) -> list[UpstreamSettings]:
    """The upstreams to ask.  Those of offline indexes alone are asked by nobody."""
    used = {name for index in settings.indexes if not index.offline for name in index.upstreams}
    return [each for each in settings.upstreams if each.name in (host.upstreams or used)]


async def _upstream(settings: UpstreamSettings, project: str, means: ProbeMeans) -> list[Diagnosis]:
    try:
        prober = Prober(settings, means)
    except ConfigError as error:
        return [fault(f"upstream {settings.name}", "files", str(error), "correct the file that is named, or its key")]
    try:
        return judged(await prober.probe(project), means.clock())
    finally:
        await prober.close()


# -- in a thread -------------------------------------------------------------------------------------------------------------


def _on_this_machine(settings: Settings, host: ExaminedHost) -> list[Diagnosis]:
    data_dir = settings.server.data_dir
    found = [*directory_findings(data_dir, os.geteuid()), *secret_findings(settings)]
    try:
        found += disk_findings(settings.server, file_system_of(data_dir))
    except OSError as error:
        found.append(fault("disk", "space", f"{data_dir}: {error.strerror}", "look at the mount: findmnt, dmesg"))
    return found


def _runs(settings: Settings) -> bool:
    try:
        return running_on(settings.server.data_dir) is not None
    except OSError:
        return True


def _of_the_process(settings: Settings, host: ExaminedHost) -> list[Diagnosis]:
    data_dir = settings.server.data_dir
    try:
        running = running_on(data_dir)
    except OSError as error:
        advice = "run this command as the user of the proxy, or as root"
        return [fault("running proxy", "admin socket", f"the socket in {data_dir}: {error.strerror}", advice)]
    if running is None:
        (_, limit) = resource.getrlimit(resource.RLIMIT_NOFILE)
        return [
            fine("running proxy", "admin socket", f"no proxy runs on {data_dir}"),
            *port_findings(settings),
            *descriptor_findings(settings, limit, None),
        ]
    return _of_the_running(settings, host, running)


def _of_the_running(settings: Settings, host: ExaminedHost, running: Running) -> list[Diagnosis]:
    data_dir = settings.server.data_dir
    try:
        states = host.ask(data_dir)
    except ProxyError as error:
        advice = f"look at its log, and at what process {running.pid} does (top -p {running.pid}); restart it if it hangs"
        found = [fault("running proxy", "admin socket", f"process {running.pid} does not answer commands: {error}", advice)]
    else:
        words = f"process {running.pid} runs on {data_dir} and answers commands"
        found = [fine("running proxy", "admin socket", words), *state_findings(states)]
    if running.descriptors is not None:
        found += descriptor_findings(settings, running.descriptors, running.open)
    return found
