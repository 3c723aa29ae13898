"""The data directory and the files with secrets: whose they are and who may read or write them.  Blocks; writes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from proxy.composition.exposed import exposed
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.errors import ConfigError
from proxy.host import datadir
from proxy.host.owner import line_as
from proxy.settings import Settings

_SUBJECT = "data directory"


def directory_findings(path: Path, user: int) -> Iterator[Diagnosis]:
    """What is found about the data directory *path* for a proxy that runs as the user with the number *user*."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        yield from _missing(path)
        return
    except OSError as error:
        yield fault(_SUBJECT, "permissions", f"{path}: {error.strerror}", "run this command as the user of the proxy")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(_SUBJECT, "permissions", f"{path} is not a directory", "name another one in server.data_dir")
        return
    yield from _modes(path, stat.S_IMODE(found.st_mode))
    if found.st_uid != user:
        seen = f"{path} belongs to user {found.st_uid}, and this command runs as user {user}"
        yield warning(_SUBJECT, "owner", f"{seen}: what the proxy may do there was not examined", _as_owner(found))
    elif unusable := [each for each in _own(path) if not os.access(each, os.R_OK | os.W_OK)]:
        seen = f"{unusable[0]} cannot be read and written by the owner of {path} (user {user})"
        yield fault(_SUBJECT, "owner", seen, f"chown -R {user} {path}, and look at what made files of other users there")
    else:
        yield fine(_SUBJECT, "owner", f"{path} belongs to user {user}, who runs this command")
    yield from _format(path)


def _missing(path: Path) -> Iterator[Diagnosis]:
    above = next((each for each in path.parents if each.is_dir()), Path("/"))
    if os.access(above, os.W_OK | os.X_OK):
        yield fine(_SUBJECT, "permissions", f"{path} does not exist yet: the first start makes it")
    else:
        advice = f"make it and give it to the user of the proxy: install -d -m 0700 -o USER {path}"
        yield fault(_SUBJECT, "permissions", f"{path} does not exist, and this user may not make it in {above}", advice)


def _modes(path: Path, mode: int) -> Iterator[Diagnosis]:
    advice = f"chmod 0700 {path}"
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield fault(
            _SUBJECT, "permissions", f"everybody may write in {path} (mode {mode:04o}): the proxy does not start", advice
        )
    elif mode & (stat.S_IWOTH | stat.S_IWGRP | stat.S_IROTH):
        who = "others may write" if mode & (stat.S_IWOTH | stat.S_IWGRP) else "every user may read"
        yield warning(_SUBJECT, "permissions", f"{who} in {path} (mode {mode:04o}); 0700 is expected", advice)
    else:
        yield fine(_SUBJECT, "permissions", f"{path} has mode {mode:04o}")


def _own(path: Path) -> Iterator[Path]:
    """The directory and what is directly in it."""
    yield path
    try:
        yield from (Path(each.path) for each in os.scandir(path) if each.is_dir() or each.is_file())
    except OSError:
        return


def _format(path: Path) -> Iterator[Diagnosis]:
    try:
        datadir.refuse_newer(path)
    except ConfigError as error:
        yield fault(_SUBJECT, "format", str(error), "start the newer version, or restore its backup (docs/upgrade.md)")
        return
    if datadir.is_new(path):
        return
    try:
        datadir.refuse_earlier(path)
    except ConfigError:
        seen = f"{path} has the format of an earlier version: the next start converts it"
        yield warning(_SUBJECT, "format", seen, "make a backup first (pypiproxy backup), then start the proxy")


def _as_owner(facts: os.stat_result) -> str:
    return f"run this command as the user of the proxy: {line_as(facts.st_uid, facts.st_gid)}"


def secret_findings(settings: Settings) -> Iterator[Diagnosis]:
    """What is found about files with secrets."""
    found = exposed(settings)
    for each in found:
        seen, _, advice = each.rpartition(": ")
        yield warning("secrets", "permissions", seen, advice)
    if not found:
        yield fine("secrets", "permissions", "no file with a secret can be read by every user")
