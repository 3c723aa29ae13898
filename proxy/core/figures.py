"""Figures of a stretch of time: what was answered to whom, counted by what it was about, in bounded space.

Theory of operation.  What happens is counted into the *bucket* of its minute.  When an hour is over, its minutes are merged
into one bucket, and the hours of a day into another; each kind is kept for a time of its own.  So every record is written
once, and what a question about the last week needs is seven days' worth of buckets at most.  A bucket has a table per
:class:`Dimension` with a limited number of rows: the rows with the fewest requests are added up in one that is called
:data:`OTHERS`, so sums stay right.

Times are seconds since 1970, and hours and days are those of UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise

import msgspec
from msgspec import Struct

#: What the row of everything that has no row of its own is called.
OTHERS = "(others)"


class Resolution(enum.Enum):
    """How long the stretch of a bucket is.  ``seconds`` is that length, ``kept`` for how long buckets of it are kept."""

    seconds: int
    kept: int

    def __new__(cls, label: str, seconds: int, kept: int) -> Resolution:
        member = object.__new__(cls)
        member._value_ = label
        member.seconds = seconds
        member.kept = kept
        return member

    MINUTE = "minute", 60, 3 * 3600
    HOUR = "hour", 3600, 8 * 86400
    DAY = "day", 86400, 400 * 86400

    def start(self, moment: float) -> int:
        """When the stretch that *moment* is in begins."""
        return int(moment // self.seconds) * self.seconds


#: What the buckets of each resolution are merged into.
_COARSER = {Resolution.MINUTE: Resolution.HOUR, Resolution.HOUR: Resolution.DAY}


class Dimension(enum.Enum):
    """What is counted by.  ``columns`` name the parts of a row's key; ``limits`` are rows per minute, hour and day.

    The first ``fixed`` parts stay as they are in the row of the others.
    """

    columns: tuple[str, ...]
    limits: tuple[int, int, int]
    fixed: int

    def __new__(cls, label: str, columns: tuple[str, ...], limits: tuple[int, int, int], fixed: int = 0) -> Dimension:
        member = object.__new__(cls)
        member._value_ = label
        member.columns = columns
        member.limits = limits
        member.fixed = fixed
        return member

    ANSWERS = "answers", ("index", "area", "cache"), (500, 500, 500), 2
    PROJECTS = "projects", ("index", "project"), (200, 1000, 3000), 1
    VERSIONS = "versions", ("index", "project", "version"), (200, 1000, 3000), 1
    CLIENTS = "clients", ("client", "version"), (50, 100, 200), 0
    PYTHONS = "pythons", ("python",), (20, 30, 50), 0
    CI = "ci", ("ci",), (3, 3, 3), 0
    UPSTREAMS = "upstreams", ("upstream", "address"), (50, 100, 200), 1
    #: Every download of a file, as PEP 381 counts them.
    DOWNLOADS = "downloads", ("index", "project", "filename", "agent"), (300, 2000, 10_000), 1
    #: Which address asked for which file.
    REQUESTERS = "requesters", ("address", "filename"), (200, 1000, 3000), 0
    #: Which address asked for pages, and which for files.
    ADDRESSES = "addresses", ("address", "area"), (200, 1000, 2000), 0

    def limit(self, resolution: Resolution) -> int:
        """How many rows a bucket of *resolution* has at the most, besides those of the others."""
        return self.limits[list(Resolution).index(resolution)]


RowKey = tuple[str, ...]


class Sums(msgspec.Struct, array_like=True):
    """Sums over answers.

    *hits* are answers from the cache, *waited* those that an upstream was waited for, each with its bytes and seconds; *stale*
    are those of the hits that were past their lifetime, *failed* those that no client wanted (status 500 and above).
    """

    requests: int = 0
    bytes: int = 0
    hits: int = 0
    hit_bytes: int = 0
    hit_seconds: float = 0.0
    waited: int = 0
    waited_seconds: float = 0.0
    stale: int = 0
    failed: int = 0

    def add(self, other: Sums) -> None:
        """Add *other* to this."""
        self.requests += other.requests
        self.bytes += other.bytes
        self.hits += other.hits
        self.hit_bytes += other.hit_bytes
        self.hit_seconds += other.hit_seconds
        self.waited += other.waited
        self.waited_seconds += other.waited_seconds
        self.stale += other.stale
        self.failed += other.failed

    @property
    def saved_seconds(self) -> float:
        """An estimate: for each hit, what an answer took on average that upstream was waited for, less what it took itself."""
        if not self.waited:
            return 0.0
        return max(0.0, self.hits * self.waited_seconds / self.waited - self.hit_seconds)


_Table = dict[RowKey, Sums]


class Bucket:
    """The figures of one stretch of *resolution*."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution
        self._tables: dict[Dimension, _Table] = {each: {} for each in Dimension}

    def __getitem__(self, dimension: Dimension) -> Mapping[RowKey, Sums]:
        """The rows of *dimension*."""
        return self._tables[dimension]

    def __bool__(self) -> bool:
        return any(self._tables.values())

    def count(self, dimension: Dimension, key: RowKey, tally: Sums) -> None:
        """Add *tally* to the row *key* of *dimension*."""
        table = self._tables[dimension]
        row = table.get(key)
        if row is None:
            row = table[key] = Sums()
            # So rarely that sorting does not matter, and so often that the table cannot become large.
            if len(table) > 2 * dimension.limit(self.resolution) + 16:
                self._trim(dimension, table, key)
                row = table.setdefault(key, row)
        row.add(tally)

    def add(self, other: Bucket) -> None:
        """Add all figures of *other*."""
        for dimension in Dimension:
            for key, tally in other[dimension].items():
                self.count(dimension, key, tally)

    def trim(self) -> None:
        """Bring each table within its limit."""
        for dimension, table in self._tables.items():
            self._trim(dimension, table)

    def _trim(self, dimension: Dimension, table: _Table, newest: RowKey = ()) -> None:
        limit = dimension.limit(self.resolution)
        if len(table) <= limit:
            return
        ordered = sorted((each for each in table if OTHERS not in each), key=lambda key: (-table[key].requests, key))
        for key in ordered[limit:]:
            if key == newest:
                continue
            gone = table.pop(key)
            table.setdefault(others_row(dimension, key), Sums()).add(gone)

    def encoded(self) -> bytes:
        """The bytes that :func:`bucket_of` makes a bucket of."""
        rows = {each.value: [(*key, tally) for key, tally in table.items()] for each, table in self._tables.items() if table}
        return _encoder.encode(rows)


def others_row(dimension: Dimension, key: RowKey) -> RowKey:
    """The row that *key* is counted in when it has none of its own."""
    return (*key[: dimension.fixed], *(OTHERS for _ in key[dimension.fixed :]))


_DIMENSIONS: Mapping[str, Dimension] = {each.value: each for each in Dimension}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, list[list[msgspec.Raw]]])
_text, _tally = msgspec.msgpack.Decoder(str), msgspec.msgpack.Decoder(Sums)


def bucket_of(resolution: Resolution, data: bytes) -> Bucket:
    """The bucket that *data* was made of.  Dimensions that are not known (a later version has more) are left out.

    Raises ValueError for what is none.
    """
    bucket = Bucket(resolution)
    try:
        for label, rows in _decoder.decode(data).items():
            dimension = _DIMENSIONS.get(label)
            if dimension is None:
                continue
            for *parts, tally in rows:
                key = tuple(map(_text.decode, parts))
                if len(key) != len(dimension.columns):
                    raise ValueError(f"a row of {label} has {len(key)} columns")
                bucket.count(dimension, key, _tally.decode(tally))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    return bucket


# -- which buckets there are -------------------------------------------------------------------------------------------------

#: A resolution and the start of a stretch.
Stretch = tuple[Resolution, int]


class Merging(Struct, frozen=True):
    """What is to be done so that a longer stretch has a bucket: those of its *parts* are added up in that of the *whole*."""

    whole: Stretch
    parts: tuple[Stretch, ...]


def wholes_of(stretch: Stretch) -> Iterator[Stretch]:
    """The longer stretches that *stretch* is a part of."""
    resolution, start = stretch
    while (coarser := _COARSER.get(resolution)) is not None:
        resolution, start = coarser, coarser.start(start)
        yield resolution, start


def due(there: Collection[Stretch], now: float) -> list[Merging]:
    """What is to be merged at *now* of what is *there*: the parts of each hour and each day that is over, once.

    Hours come before days, so that a day finds all of its hours.
    """
    found: list[Merging] = []
    known = set(there)
    for finer, coarser in _COARSER.items():
        parts: dict[Stretch, list[Stretch]] = {}
        for each in sorted((each for each in known if each[0] is finer), key=_start):
            whole = coarser, coarser.start(each[1])
            if whole[1] + coarser.seconds <= now and whole not in known:
                parts.setdefault(whole, []).append(each)
        found += [Merging(whole, tuple(those)) for whole, those in parts.items()]
        known.update(parts)
    return found


def outdated(there: Collection[Stretch], now: float) -> list[Stretch]:
    """Those of *there* that have been kept long enough at *now*: all parts of a longer stretch at once, and never before it
    has a bucket of its own.
    """
    known = set(there)
    gone = []
    for each in known:
        whole = next(wholes_of(each), each)
        if whole in known and whole[1] + whole[0].seconds + each[0].kept <= now:
            gone.append(each)
    return sorted(gone, key=_start)


def covering(there: Collection[Stretch], since: float, until: float) -> list[Stretch]:
    """Those of *there* that together have what was counted between *since* and *until*, each thing once.

    Where that begins or ends inside of a stretch, its parts are taken if they are still there, else the stretch as a whole.
    """
    known = set(there)
    parts: dict[Stretch, list[Stretch]] = {}
    roots: set[Stretch] = set()
    for each in known:
        line = [each, *wholes_of(each)]
        roots.add(line[-1])
        for part, whole in pairwise(line):
            if part not in (those := parts.setdefault(whole, [])):
                those.append(part)
    chosen: list[Stretch] = []
    open_ = sorted(roots, key=_start)
    while open_:
        each = open_.pop()
        start, end = each[1], each[1] + each[0].seconds
        if end <= since or until <= start:
            continue
        if each in known and ((since <= start and end <= until) or each not in parts):
            chosen.append(each)
        else:
            open_ += parts[each]
    return sorted(chosen, key=_start)


def _start(stretch: Stretch) -> int:
    return stretch[1]
