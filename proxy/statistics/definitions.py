"""What can be asked of ``/-/metrics``: each metric with its labels and its meaning.  ``docs/metrics.md`` is generated from it.

A label takes few values: those that are listed here, names from the configuration, and addresses of upstreams, of which a
bounded number is known (:mod:`proxy.statistics.address_labels`).  No text that a client or an upstream sends becomes a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from msgspec import Struct

from proxy.core.events import Incident, Labelled, RefusalReason, RouteLabel, ShedReason, StaleReason, UpstreamResult
from proxy.core.troubles import Reason

#: Limits of the buckets of all histograms (seconds).
BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Definition(Struct, frozen=True, eq=False):
    """A metric called ``pypiproxy_`` and *name*, without the ``_total`` of counters; *meaning* may have several lines.

    *values*: those of its first label that there are from the start, so that a rate over them is never empty.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    values: type[Enum] | None = None

    @property
    def full_name(self) -> str:
        """As queries name it (a histogram has series with ``_bucket``, ``_sum`` and ``_count`` behind it)."""
        return f"pypiproxy_{self.name}" + ("_total" if self.kind == "counter" else "")


class ThreadPool(Labelled):
    """The threads that do what would make the reactor wait, by their label ``pool``."""

    DISK = "disk", "Reading and writing files and databases."
    WORK = "work", "Parsing, rendering and compressing pages."
    CHECKING = "checking", "Examining whole files: uploads, verify, moves."
    ROTATION = "rotation", "Looking whether certificates and secrets have been replaced."
    PASSWORDS = "passwords", "Verifying passwords."


class FlightKind(Labelled):
    """What many may wait for together, by its label ``kind`` in ``pypiproxy_flights`` and ``pypiproxy_waiters``."""

    PAGE = "page", "A page that upstream is asked for."
    DOCUMENT = "document", "A legacy JSON document or provenance that upstream is asked for."
    LIST = "list", "The list of all projects that upstream is asked for."
    METADATA = "metadata", "Metadata of a wheel that is looked for."
    REQUEST = "request", "A request whose answer is that of others which ask the same."


class DigestKind(Labelled):
    """Whose bytes or digests were wrong, by its label in ``pypiproxy_digest_mismatches``."""

    PAGE = "page", "A page states another digest than the one first served (event: changed digest refused)."
    DOWNLOAD = "download", "A download did not have the digest of its page (file with wrong bytes refused)."
    STORED = "stored", "A stored file no longer has its digest (damaged file set aside)."
    MIRROR = "mirror", "Two upstreams of one index disagree (mirror with other digests, mirror with other bytes)."


REQUESTS = Definition(
    "counter",
    "requests",
    "Requests answered.\nThe label cache is the cache status, or the code of the problem that was the answer;\n"
    "warm: a request of pypiproxy warm on this machine.",
    ("route", "index", "status", "cache"),
)
REQUEST_SECONDS = Definition("histogram", "request_seconds", "Time from a request to the end of its response.", ("route",))
FIRST_BYTE_SECONDS = Definition(
    "histogram", "first_byte_seconds", "Time from a request to the first byte of its response.", ("route",)
)
IN_PROGRESS = Definition("gauge", "responses_in_progress", "Responses under way.")
SENT_BYTES = Definition("counter", "sent_bytes", "Body bytes sent to clients, counted at the end of each response.")
SAVED_REQUESTS = Definition(
    "counter", "saved_requests", "Requests below an index that were answered without waiting for upstream (hit, stale)."
)
SAVED_BYTES = Definition("counter", "saved_bytes", "Body bytes of the answers in pypiproxy_saved_requests_total.")
UPSTREAM_REQUESTS = Definition(
    "counter",
    "upstream_requests",
    "Requests to one address of an upstream, by what came of them; a redirect is followed by another request.",
    ("upstream", "address", "result"),
)
UPSTREAM_SECONDS = Definition(
    "histogram",
    "upstream_request_seconds",
    "Time from sending a request to an upstream to the end of the answer's body.\n"
    "It includes pauses while clients or the disk are slower than upstream.",
    ("upstream", "address"),
)
UPSTREAM_FIRST_BYTE_SECONDS = Definition(
    "histogram",
    "upstream_first_byte_seconds",
    "Time from sending a request to an upstream to the headers of the answer, connecting included.",
    ("upstream", "address"),
)
UPSTREAM_UP = Definition("gauge", "upstream_up", "Whether the upstream is up (1), or down or being probed (0).", ("upstream",))
UPSTREAM_ADDRESS_UP = Definition(
    "gauge",
    "upstream_address_up",
    "Whether this address of the upstream's host is asked like any other (1), or last because it failed lately (0).",
    ("upstream", "address"),
)
RECEIVED_BYTES = Definition("counter", "received_bytes", "Body bytes received from an upstream.", ("upstream",))
FLIGHTS = Definition("gauge", "flights", "Pieces of work under way that all who want the same wait for together.", ("kind",))
WAITERS = Definition("gauge", "waiters", "Those who wait for these pieces of work.", ("kind",))
DOWNLOADS = Definition("gauge", "downloads", "Files that are being downloaded from upstream.")
QUEUE_LENGTH = Definition(
    "gauge",
    "queue_length",
    "Requests that wait in a queue. upstream:NAME: for a connection to that upstream (max_connections), or their turn\n"
    "(max_rate); passwords: credentials that wait for their verification.",
    ("queue",),
)
STALE_ANSWERS = Definition("counter", "stale_answers", "Stale answers, by reason.", ("reason",), StaleReason)
ACCESS_REFUSALS = Definition("counter", "access_refusals", "Requests refused for want of a right.", ("reason",), RefusalReason)
DIGEST_MISMATCHES = Definition("counter", "digest_mismatches", "Wrong bytes or digests, by kind.", ("kind",), DigestKind)
EVENTS = Definition("counter", "events", "Things worth a look, by name.", ("event",), Incident)
EVICTED_FILES = Definition("counter", "evicted_files", "Files evicted to make room.")
EVICTED_BYTES = Definition("counter", "evicted_bytes", "Bytes of files evicted to make room.")
STORE_BYTES = Definition(
    "gauge",
    "store_bytes",
    "Bytes of all stored files. They are counted soon after the start, and again once an hour; there is no value before.",
)
STORE_FILES = Definition("gauge", "store_files", "Number of stored files, counted as pypiproxy_store_bytes is.")
DISK_FREE = Definition("gauge", "disk_free_bytes", "Free bytes on the file system of the data directory.")
REACTOR_LAG = Definition(
    "gauge",
    "reactor_lag_seconds",
    "How much later than due the reactor did what it does once a second, the last time; pypiproxy_reactor_delay_seconds\n"
    "has all of them. While it lags, no client is answered.",
)
REACTOR_DELAY = Definition("histogram", "reactor_delay_seconds", "How much later than due the reactor did things.")
THREAD_QUEUE = Definition("gauge", "thread_queue", "Calls that wait for a thread of the pool.", ("pool",))
THREADS_BUSY = Definition("gauge", "threads_busy", "Threads of the pool that work on a call.", ("pool",))
CERTIFICATE_EXPIRY = Definition(
    "gauge",
    "certificate_expiry_timestamp_seconds",
    "When a certificate expires, in seconds since 1970, by the name of its listener or upstream in the configuration;\n"
    "the earliest, where there are several.",
    ("certificate",),
)
SHED = Definition("counter", "shed", "Requests refused because of an overload (503), by reason.", ("reason",), ShedReason)
DEGRADED = Definition("gauge", "degraded", "Whether this is wrong now (/-/ready says more).", ("reason",), Reason)
BUILD_INFO = Definition(
    "gauge", "build_info", "Always 1; the labels are the versions that are running.", ("version", "python", "twisted")
)

#: Every metric of our own.
DEFINITIONS = tuple(each for each in list(globals().values()) if isinstance(each, Definition))

#: What the labels are, whose values are not in :data:`VALUES`.
LABELS: Mapping[str, str] = {
    "index": "The name of an index, or nothing for what concerns none.",
    "status": "The HTTP status; 0: the client left before one was sent.",
    "cache": (
        "`hit`, `stale`, `collapsed`, `refreshed` or `miss` (as in [Cache-Status](operations.md)), `-` for what is not "
        "cached, the code of a problem, or `warm`."
    ),
    "upstream": "The name of an upstream.",
    "address": (
        "An IP address of one of its hosts; `-`: not known (a name that is not resolved, or an outbound proxy); `other`: not "
        "one of the {most} addresses of this upstream that have a label. An address that was not used for a day loses its "
        "label to a new one."
    ),
    "queue": "`upstream:NAME` or `passwords`.",
    "certificate": "`listen N`: that of the listener N (from 1) in `server.listen`; `metrics_listen N` and `dashboard_listen N`"
    " likewise; `upstream NAME`: a client certificate.",
    "version": "The version of pypiproxy.",
    "python": "The version of Python.",
    "twisted": "The version of Twisted.",
}

#: The values of other labels, by the label and the metric's name where they differ.
VALUES: Mapping[tuple[str, str | None], type[Labelled]] = {
    ("route", None): RouteLabel,
    ("result", None): UpstreamResult,
    ("kind", "flights"): FlightKind,
    ("kind", "waiters"): FlightKind,
    ("kind", "digest_mismatches"): DigestKind,
    ("reason", "stale_answers"): StaleReason,
    ("reason", "access_refusals"): RefusalReason,
    ("reason", "shed"): ShedReason,
    ("pool", None): ThreadPool,
}
