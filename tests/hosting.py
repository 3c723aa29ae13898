"""A hosted index inside the test's process, uploads into it through its port, and what became of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from proxy.core.uploads import Uploaded, UploadForm
from proxy.interfaces import IReceiving
from proxy.names import normalize
from proxy.settings import HostedSettings, IndexSettings
from tests.inprocess import Running
from tests.support.wheels import Distribution

#: Bytes that are written at a time.
_PIECE = 64 * 1024


def hosted(name: str = "internal", *, default: bool = True, **settings: Any) -> IndexSettings:
    """The settings of a hosted index."""
    return IndexSettings(name=name, kind="hosted", default=default, hosted=HostedSettings(**settings))


def form_of(each: Distribution, **changes: Any) -> UploadForm:
    """What a client says of *each*."""
    version = each.filename.removesuffix(".tar.gz").split("-")[1]
    stated: dict[str, Any] = {
        "filename": each.filename,
        "project": normalize(each.project),
        "name": each.project,
        "version": version,
        "digests": {"sha256": each.sha256},
    }
    return UploadForm(**(stated | changes))


async def upload(receiving: IReceiving, each: Distribution, by: str = "ci", **changes: Any) -> Uploaded:
    """Upload *each*, as clients do."""
    incoming = await receiving.begin(each.filename, len(each.data))
    try:
        for start in range(0, len(each.data), _PIECE):
            await incoming.write(each.data[start : start + _PIECE])
        return await incoming.accept(form_of(each, **changes), by)
    finally:
        await incoming.discard()


def drop(folder: Path, each: Distribution, data: bytes | None = None) -> Path:
    """Put *each* into the directory of its project in *folder*, as `cp` does."""
    place = folder / normalize(each.project)
    place.mkdir(parents=True, exist_ok=True)
    (place / each.filename).write_bytes(each.data if data is None else data)
    return place / each.filename


async def listed(proxy: Running, project: str, index: str = "") -> dict[str, Any]:
    """The files on the page of *project*, by name; none if there is no such page."""
    reply = await proxy.get(f"{index}/simple/{project}/", Accept="application/vnd.pypi.simple.v1+json")
    if reply.status == 404:
        return {}
    assert reply.status == 200, reply
    return {each["filename"]: each for each in reply.json["files"]}


def standing(folder: Path) -> dict[str, str]:
    """Every file below *folder* but JSON files, hidden ones too, with its sha256."""
    return {
        str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and each.suffix != ".json"
    }
