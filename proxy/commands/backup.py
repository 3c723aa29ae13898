"""``pypiproxy backup`` and ``pypiproxy restore``: a consistent copy of a data directory, and a directory made of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from proxy.bundle.restoring import Restored, refuse_filled, restore_backup
from proxy.bundle.saving import Saved
from proxy.commands.directory import claimed_anew
from proxy.commands.place import ProxyPlace, options, say
from proxy.commands.progress import Counting, interruptible
from proxy.commands.speaking import fail, interrupted, note
from proxy.commands.whole import check_replaceable, whole_file
from proxy.core.amounts import size
from proxy.errors import BadBundle, ConfigError, ProxyError
from proxy.host.owner import refuse_root


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--with-files", is_flag=True, help="The cached files as well, which upstream may still have.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@options
def backup(place: ProxyPlace, file: Path, with_files: bool, force: bool) -> None:
    """Write a consistent copy of the data directory to FILE (- is standard output), also while a proxy runs on it.

    The copy has the ledger (first-seen digests and pinned files), the pages and documents, and the number of the format.
    It has the JSON files of hosted indexes below the data directory, and with --with-files their distributions.

    Without --with-files, cached files are fetched again after a restore; back up the distributions of hosted indexes, which
    nobody can fetch, yourself.  FILE is there whole or not at all.
    """
    check_replaceable(file, force)
    counting = Counting()

    def hear(said: dict[str, Any]) -> None:
        counting.tell(said["records"], said["files"], said["read"], "records")

    try:
        with interruptible(), whole_file(file) as out, counting:
            saved = Saved(**place.ask("backup", hear, handed=out.fileno(), with_files=with_files))
            written_size = os.fstat(out.fileno()).st_size
    except OSError as error:
        fail(f"{file}: {error.strerror}; nothing was written")
    except KeyboardInterrupt:
        interrupted(f"{file} was not written")
    if str(file) == "-":
        note(f"{saved.records:,} records, {saved.files:,} files", err=True)
    elif place.as_json:
        say({"records": saved.records, "files": saved.files, "damaged": saved.damaged, "size": written_size})
    else:
        note(f"{file}: {saved.records:,} records, {saved.files:,} files, {size(written_size)}")
    if saved.damaged:
        fail(f"{len(saved.damaged)} stored files are damaged and will not be restored; pypiproxy verify names them")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path))
def restore(file: Path, directory: Path) -> None:
    """Make the data directory DIRECTORY, which is missing or empty, out of FILE, which pypiproxy backup has written.

    Every part is verified before anything is put in place: if FILE is damaged or was cut off, DIRECTORY stays as it was.
    """
    counting = Counting()

    def hear(so_far: Restored) -> None:
        counting.tell(so_far.records, so_far.files, so_far.read, "records")

    try:
        refuse_root(directory)
        with interruptible(), file.open("rb") as source:
            refuse_filled(directory)
            with claimed_anew(directory), counting:
                restored = restore_backup(source, directory, hear)
    except ConfigError as error:
        fail(str(error))
    except BadBundle as error:
        fail(f"{file}: {error}; nothing was restored")
    except ProxyError as error:
        fail(f"{directory}: {error}; nothing was restored")
    except OSError as error:
        fail(f"{file}: {error.strerror}; expected a file that pypiproxy backup has written")
    except KeyboardInterrupt:
        interrupted("nothing was restored")
    left_out = f"; {restored.damaged:,} files that were damaged before are left out" if restored.damaged else ""
    note(f"{directory}: {restored.records:,} records and {restored.files:,} files restored{left_out}")
