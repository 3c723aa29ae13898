"""Random requests while the disk is damaged between them and upstream fails at random: no answer is ever wrong.

What is checked of each answer: a complete one has the right bytes, and a status other than 200 and 206 is an honest failure (0:
the connection was cut before the first byte).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest_twisted

from tests.inprocess import Running, Start
from tests.support.fake_upstream import FakeUpstream, Fault
from tests.support.wheels import data_of, seeded, wheel

#: Enough to meet each kind of damage in each state; `run_at_random` takes more where time allows.
ANSWERS = 400


class Library:
    """Files of all sizes, with and without a digest, and what each must be."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.content: dict[str, tuple[str, bytes]] = {}
        for number, size in enumerate((10, 5_000, 60_000, 300_000, 2_000_000, 17_000_000)):
            self._add(upstream, f"noise{number}", f"noise{number}-1.0.tar.gz", data_of(size, number))
        for number, size in enumerate((0, 50_000, 500_000)):
            made = wheel(f"plain{number}", size=size)
            upstream.add_file(made.project, made.filename, made.data, hashes={}, size=None if number else len(made.data))
            self.content[made.filename] = made.project, made.data
            named = wheel(f"named{number}", size=size)
            upstream.add_file(named.project, named.filename, named.data, metadata=named.metadata)
            self.content[named.filename] = named.project, named.data

    def _add(self, upstream: FakeUpstream, project: str, filename: str, data: bytes) -> None:
        upstream.add_file(project, filename, data)
        self.content[filename] = project, data


def damage(rng: random.Random, folder: Path) -> None:
    """Do something to one of the files in *folder*."""
    found = sorted(each for each in folder.rglob("*") if each.is_file())
    if not found:
        return
    path = rng.choice(found)
    data = bytearray(path.read_bytes())
    match rng.randrange(6):
        case 0 if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data) + 1) :]
        case 2:
            data.clear()
        case 3:
            data += rng.randbytes(rng.randrange(1, 5_000))
        case 4:
            data[:] = bytes(len(data))
        case _:
            path.unlink()
            return
    path.write_bytes(data)


def fault(rng: random.Random, size: int, vouched_for: bool) -> Fault:
    """Something that goes wrong; a single wrong byte only where a digest vouches for the file: nothing else would tell."""
    at = rng.randrange(size + 1)
    return rng.choice(
        [
            Fault(corrupt_at=rng.randrange(size)) if vouched_for else Fault(drop=True),
            Fault(reset_after=at),
            Fault(cut_after=at),
            Fault(status=503),
            Fault(body=rng.randbytes(rng.randrange(2 * size + 10))),
            Fault(body=b"<html>sign in</html>", headers={"Content-Type": "text/html"}),
            Fault(body=b"", status=200),
            Fault(no_content_length=True, cut_after=at),
            Fault(ignore_range=True),
            Fault(chunked=True),
        ]
    )


async def run_at_random(upstream: FakeUpstream, start: Start, folder: Path, answers: int, seed: str) -> Counter[int]:
    """How often each status was answered; fails at the first wrong byte."""
    rng = seeded(seed)
    library = Library(upstream)
    proxy: Running = await start(upstream, stall_timeout=5.0)
    paths = {filename: await proxy.link(project, filename) for filename, (project, _) in library.content.items()}
    seen: Counter[int] = Counter()
    for number in range(answers):
        filename = rng.choice(sorted(paths))
        data = library.content[filename][1]
        if rng.random() < 0.4:
            damage(rng, folder / rng.choice(["files", "files", "partial"]))
        upstream.heal()
        if rng.random() < 0.4:
            upstream.script("GET /packages/*", fault(rng, len(data), "plain" not in filename), times=rng.randrange(1, 4))
        if rng.random() < 0.02:
            await proxy.stop()
            proxy = await start(upstream, stall_timeout=5.0)
        span = sorted(rng.randrange(len(data)) for _ in range(2))
        headers = {"Range": f"bytes={span[0]}-{span[1]}"} if rng.random() < 0.3 else {}
        reply = await proxy.get(paths[filename], **headers)
        seen[reply.status] += 1
        expected = data[span[0] : span[1] + 1] if reply.status == 206 else data
        where = f"answer {number} of {seed}: {filename} {headers} {reply.status} {reply.headers}"
        assert reply.status in (0, 200, 206, 503), where
        vouched = reply.headers.get("cache-control") != "no-store"
        if reply.status in (200, 206) and reply.complete and vouched:
            assert reply.body == expected, where
    await proxy.stop()
    for each in folder.glob("files/*/*"):
        os.unlink(each)
    return seen


@pytest_twisted.ensureDeferred
async def test_no_answer_is_wrong_whatever_happens_to_the_disk(upstream: FakeUpstream, run: Start, tmp_path: Path) -> None:
    seen = await run_at_random(upstream, run, tmp_path / "data", ANSWERS, "damage")
    assert seen[200] > ANSWERS // 3
