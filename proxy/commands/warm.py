"""``pypiproxy warm``: prefetch into the cache what builds will ask for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from proxy.commands.installing import Installed, installed_options
from proxy.commands.reacting import until_done
from proxy.commands.warming import Asked, Where, warm_up
from proxy.config import quantities
from proxy.settings import LEAST_INTERVAL
from proxy.simple.links import shown
from proxy.warm.choosing import Choice
from proxy.warm.looking import Goal
from proxy.warm.resolving import Wishes

DEFAULT_PROXY = "http://127.0.0.1:3143"


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return quantities.seconds_in(value)
    except ValueError:
        raise click.BadParameter(f'{value!r}: expected a duration such as "90s", "1h" or "30d"') from None


@click.command()
@click.argument("requirements", nargs=-1)
@installed_options
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Constraints file for the resolver; may be repeated.",
)
@click.option("--proxy", "--url", "url", help=f"URL of the running proxy or of an index of it.  [default: {DEFAULT_PROXY}]")
@click.option("--config", "-c", "config_file", type=click.Path(path_type=Path), help="The proxy's configuration file.")
@click.option(
    "--data-dir", "-d", type=click.Path(path_type=Path), help="The proxy's data directory [default: the configuration's]."
)
@click.option("--universal", is_flag=True, help="Fetch for all platforms and Python versions.")
@click.option("--no-deps", is_flag=True, help="Do not fetch dependencies.")
@click.option("--only-binary", is_flag=True, help="Do not fetch source archives.")
@click.option("--sdists", is_flag=True, help="Fetch source archives too, even where a wheel fits.")
@click.option(
    "--latest", type=click.IntRange(min=1), metavar="N", help="Also fetch the newest N versions of each named project."
)
@click.option("--all-files", is_flag=True, help="Fetch all files of each version.")
@click.option("--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Number of concurrent requests.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write a report to this file, as JSON.")
@click.option("--dry-run", is_flag=True, help="Resolve and list the files, but fetch none.")
@click.option("--pin", is_flag=True, help="Pin the files, so that they are never evicted (see pypiproxy pin).")
@click.option("--follow", is_flag=True, help="Look for new versions again and again until stopped.")
@click.option("--interval", default="1h", show_default=True, callback=_duration, help="Time between two looks of --follow.")
@click.option(
    "--recent",
    metavar="TIME",
    callback=_duration,
    help="Also fetch the newest version of each project that was requested within this time, such as 30d.",
)
def warm(
    requirements: tuple[str, ...],
    installed: Installed,
    constraints: tuple[Path, ...],
    url: str | None,
    config_file: Path | None,
    data_dir: Path | None,
    universal: bool,
    no_deps: bool,
    only_binary: bool,
    sdists: bool,
    latest: int | None,
    all_files: bool,
    jobs: int,
    report_file: Path | None,
    dry_run: bool,
    pin: bool,
    follow: bool,
    interval: float,
    recent: float | None,
) -> None:
    """Prefetch all that installing REQUIREMENTS and the files given with -r takes into the proxy's cache.

    Uses the proxy at --proxy, or without it the one that runs on the data directory of --config or --data-dir.  If none runs
    there, works on that directory itself.  Without any of these options, the proxy is the one at the default of --proxy.

    Exit status: 0 if everything is cached, 1 if something failed (the rest is fetched nevertheless), 2 for a usage error, 130
    if it was stopped.
    """
    if not requirements and not installed.files and recent is None:
        raise click.UsageError("nothing to warm; expected requirements, files with -r, or a time with --recent")
    if follow and (dry_run or interval < LEAST_INTERVAL):
        raise click.UsageError(
            f"--follow needs an --interval of at least {LEAST_INTERVAL:g}s and cannot be used with --dry-run"
        )
    if universal and installed.named:
        raise click.UsageError("--universal means all platforms and versions; it cannot be used with --python or --platform")
    if config_file is not None and config_file.suffix == ".txt":
        raise click.UsageError(f"-c {config_file}: -c names the configuration file; constraints are given with --constraint")
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise click.UsageError(f"--proxy {shown(url)}: expected the URL of an index or of a proxy, such as {DEFAULT_PROXY}")
    goal = Goal(
        requirements=requirements,
        files=installed.files,
        recent=recent,
        targets=() if universal else installed.targets,
        choice=Choice(only_binary, sdists, all_files),
        wishes=Wishes(not no_deps, only_binary, universal, installed.extras, installed.groups, constraints),
        latest=latest or 0,
        dry=dry_run,
        pin=pin,
        jobs=jobs,
    )
    asked = Asked(goal, interval if follow else None, report_file)
    where = Where(_slashed(url or DEFAULT_PROXY), url is not None, config_file, data_dir)
    until_done(lambda reactor: warm_up(reactor, where, asked))


def _slashed(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"
