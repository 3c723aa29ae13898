"""``pypiproxy doctor``: examine the host of a proxy, or with ``--agent`` a machine with clients of one."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict
from twisted.internet.defer import CancelledError

import proxy
from proxy import config
from proxy.commands import asking
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.reacting import until_done
from proxy.commands.speaking import interrupted, quiet
from proxy.composition.means import build_means
from proxy.core.amounts import counted
from proxy.core.clients import Address
from proxy.doctor.agent import Machine, examine_agent
from proxy.doctor.findings import Diagnosis, Grade, worst
from proxy.doctor.host import ExaminedHost, examine_host
from proxy.doctor.probing import ProbeMeans
from proxy.errors import ConfigError
from proxy.names import is_project_name, normalize
from proxy.simple.links import shown
from proxy.upstream.http.identity import Identity

#: Takes what probes are made with, and tells findings.
_Work = Callable[[ProbeMeans, Callable[[Diagnosis], None]], Awaitable[None]]


@click.command()
@click.option("--agent", "agent", metavar="URL", help="Examine this machine as a client of the proxy at URL instead.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="With --agent: what signed the proxy's certificate.")
@click.option("--project", default="pip", show_default=True, help="The project whose page is asked for.")
@click.option("--upstream", "upstreams", multiple=True, metavar="NAME", help="Ask only this upstream; may be repeated.")
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1, 300), help="Seconds for each request.")
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings too.")
@options
def doctor(
    place: ProxyPlace,
    agent: str | None,
    ca_file: Path | None,
    project: str,
    upstreams: tuple[str, ...],
    timeout: float,
    strict: bool,
) -> None:
    """Examine everything that can keep builds from working, and print what to do about it.

    On the host of a proxy, running or not: its configuration, data directory, disk, descriptors and listeners; and for each
    upstream its name, every address, certificates, clock, JSON, ranges and metadata, with a handful of requests.

    With --agent URL, on a machine with builds: which index pip, uv and other clients use there, what bypasses the proxy,
    whether they trust it, and whether URL leads to it.  In the directory of a project, its settings are examined too.

    Credentials are never printed.  Exit status: 0 if there is no fault, 1 if there is (or a warning, with --strict), 2 for a
    usage error, 130 if it was interrupted.
    """
    if not is_project_name(project):
        raise click.UsageError(f"--project {project}: expected the name of a project")
    name = normalize(project)
    if agent is None:
        if ca_file is not None:
            raise click.UsageError("--ca-file needs --agent; an upstream's authority is its ca_file in the configuration")
        _refuse_unknown(place, upstreams)
        # A look at the process as a whole takes no longer than the timeout.
        ask = partial(_upstreams_of_running, patience=timeout / 2)
        host = ExaminedHost(place.config, place.data_dir, ask, name, upstreams)

        def work(means: ProbeMeans, tell: Callable[[Diagnosis], None]) -> Awaitable[None]:
            return examine_host(host, means, tell)
    else:
        try:
            address = Address.of(agent, None, None if ca_file is None else str(ca_file))
        except ValueError as error:
            raise click.UsageError(f"--agent {shown(agent)}: {error}") from None
        machine = Machine(os.environ, Path.cwd())

        def work(means: ProbeMeans, tell: Callable[[Diagnosis], None]) -> Awaitable[None]:
            return examine_agent(machine, address, name, means, tell)

    until_done(lambda reactor: _examine(reactor, work, timeout, as_json=place.as_json, strict=strict))


def _refuse_unknown(place: ProxyPlace, upstreams: Sequence[str]) -> None:
    """Raise UsageError for a configuration that does not exist, or for one of *upstreams* that it has not."""
    if place.config is not None and not os.path.exists(place.config):  # pathlib's own fails for a name that is too long
        raise click.UsageError(f"--config {without_controls(str(place.config))}: there is no such file")
    if not upstreams:
        return
    try:
        names = [each.name for each in config.load(place.config, config.CommandLine(data_dir=place.data_dir)).upstreams]
    except ConfigError:
        return  # which is a finding
    for each in upstreams:
        if each not in names:
            known = f"expected one of: {', '.join(names)}" if names else "the configuration has none"
            raise click.UsageError(f"--upstream {without_controls(each)}: {known}")


def without_controls(text: str) -> str:
    """*text*, of which a part may come from anybody's files, without what a terminal would obey."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _upstreams_of_running(data_dir: Path, patience: float) -> Sequence[Mapping[str, Any]]:
    try:
        states: list[dict[str, Any]] = asking.ask(data_dir, "upstreams", {}, lambda said: None, patience)
    except asking.NotRunning as error:
        raise asking.OperationFailed(str(error)) from error
    return states


async def _examine(reactor: Any, work: _Work, timeout: float, *, as_json: bool, strict: bool) -> int:
    """Have *work* done, print its findings as they come, and return the exit status."""
    found: list[Diagnosis] = []

    def tell(finding: Diagnosis) -> None:
        found.append(finding)
        if as_json:
            say({**asdict(finding), "grade": finding.grade.value})
        elif finding.grade is not Grade.OK or not quiet():
            click.echo(f"{finding.grade.value:7}  {finding.subject}: {without_controls(finding.seen)}")
            if finding.advice is not None:
                click.echo(f"         -> {without_controls(finding.advice)}")

    means = build_means(reactor, time.time)
    identity = Identity(user_agent=f"pypiproxy/{proxy.__version__} (doctor)", via="pypiproxy-doctor")
    try:
        await work(ProbeMeans(reactor, means.work, means.rotation, means.observing, time.time, identity, timeout), tell)
    except CancelledError:
        interrupted()
    finally:
        means.stop()
    grade = worst(found)
    failed = grade is Grade.FAULT or (strict and grade is Grade.WARNING)
    if failed:
        click.echo(_summary(found), err=True)
    elif not as_json and not quiet():
        click.echo(_summary(found))
    return int(failed)


def _summary(found: Sequence[Diagnosis]) -> str:
    counts = {grade: sum(1 for each in found if each.grade is grade) for grade in Grade}
    return ", ".join(
        (f"{counts[Grade.OK]} ok", counted(counts[Grade.WARNING], "warning"), counted(counts[Grade.FAULT], "fault"))
    )
