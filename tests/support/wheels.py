"""Tiny wheels and sdists that real clients install, byte for byte the same each time they are made.

No build tool takes part.  An sdist brings its own PEP 517 backend (``backend-path``), so that building it needs no index.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from tests.support.digests import sha256_of

_THEN = (2024, 1, 2, 3, 4, 6)

_BACKEND = '''\
"""A PEP 517 backend that packs what lies beside it."""

import base64, hashlib, os, zipfile

NAME, VERSION, MODULE, METADATA = {name!r}, {version!r}, {module!r}, {metadata!r}


def get_requires_for_build_wheel(config_settings=None):
    return []


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    folder = NAME + "-" + VERSION + ".dist-info/"
    with open(MODULE + ".py", "rb") as file:
        members = [(MODULE + ".py", file.read())]
    members += [
        (folder + "METADATA", METADATA.encode()),
        (folder + "WHEEL", b"Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"),
    ]
    record = [f"{{name}},sha256={{_digest(data)}},{{len(data)}}" for name, data in members] + [folder + "RECORD,,"]
    members.append((folder + "RECORD", "\\n".join(record).encode()))
    wheel = NAME + "-" + VERSION + "-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, wheel), "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return wheel


def _digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
'''


class Distribution(Struct, frozen=True):
    """A distribution file: its name, its bytes, and its METADATA (or PKG-INFO)."""

    project: str
    filename: str
    data: bytes
    metadata: bytes

    @property
    def sha256(self) -> str:
        return sha256_of(self.data)


def _metadata(
    name: str,
    version: str,
    requires: Iterable[str],
    requires_python: str | None,
    extras: Mapping[str, Iterable[str]],
    description: str = "Nothing to see.",
) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Summary: made for a test"]
    if requires_python is not None:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {each}" for each in requires]
    for extra, wanted in extras.items():
        lines += [f"Provides-Extra: {extra}", *(f'Requires-Dist: {each}; extra == "{extra}"' for each in wanted)]
    return ("\n".join(lines) + f"\n\n{description}\n").encode()


def wheel(
    name: str,
    version: str = "1.0",
    *,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    extras: Mapping[str, Iterable[str]] | None = None,
    size: int = 0,
    seed: int = 0,
    files: Mapping[str, bytes] | None = None,
    description: str = "Nothing to see.",
) -> Distribution:
    """A pure-Python wheel with a module that knows its ``version``, *size* random bytes of ballast, and *files*.

    *extras* says what each of its extras requires.
    """
    module = name.replace("-", "_").replace(".", "_").lower()
    metadata = _metadata(name, version, requires, requires_python, extras or {}, description)
    folder = f"{module}-{version}.dist-info"
    members = {f"{module}.py": f'version = "{version}"\n'.encode(), **(files or {})}
    if size:
        members[f"{module}_ballast.bin"] = seeded(seed).randbytes(size)
    members[f"{folder}/METADATA"] = metadata
    members[f"{folder}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = []
    for each, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{each},sha256={digest},{len(data)}")
    record.append(f"{folder}/RECORD,,")
    members[f"{folder}/RECORD"] = ("\n".join(record) + "\n").encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for each, data in members.items():
            packed.writestr(zipfile.ZipInfo(each, _THEN), data)
    return Distribution(name, f"{module}-{version}-py3-none-any.whl", archive.getvalue(), metadata)


def sdist(
    name: str,
    version: str = "1.0",
    *,
    size: int = 0,
    seed: int = 0,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    build_requires: Iterable[str] = (),
    metadata_version: str = "2.1",
) -> Distribution:
    """A source distribution that builds itself, with *size* random bytes of ballast.

    *build_requires* is what it claims to need for that.
    """
    module = name.replace("-", "_").replace(".", "_").lower()
    metadata = _metadata(name, version, requires, requires_python, {})
    metadata = metadata.replace(b"Metadata-Version: 2.1", f"Metadata-Version: {metadata_version}".encode(), 1)
    folder = f"{module}-{version}"
    backend = _BACKEND.format(name=module, version=version, module=module, metadata=metadata.decode())
    members = {
        "PKG-INFO": metadata,
        "pyproject.toml": f"[build-system]\nrequires = {json.dumps([*build_requires])}\n".encode()
        + b'build-backend = "in_tree_backend"\nbackend-path = ["."]\n',
        "in_tree_backend.py": backend.encode(),
        f"{module}.py": f'version = "{version}"\n'.encode(),
        **({"ballast.bin": seeded(seed).randbytes(size)} if size else {}),
    }
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each, data in members.items():
            entry = tarfile.TarInfo(f"{folder}/{each}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return Distribution(name, f"{folder}.tar.gz", gzip.compress(plain.getvalue(), mtime=0), metadata)


def seeded(seed: int | str) -> random.Random:
    """Randomness that is the same in every run."""
    return random.Random(seed)  # noqa: S311  # nobody has to guess it


@lru_cache(4)
def data_of(size: int, seed: int = 0) -> bytes:
    """*size* bytes of noise, the same for the same *seed*: a file where nobody looks inside."""
    return seeded(seed).randbytes(size)
