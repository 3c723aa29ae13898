"""What the answers of an upstream mean: pure, from what :mod:`proxy.doctor.probing` has seen to findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime

from proxy.core.amounts import counted, duration, moment
from proxy.doctor.findings import Diagnosis, fault, fine, warning
from proxy.doctor.probing import AtAddress, FileProbe, Probed, SeenHead
from proxy.model import PageFound, PageMissing
from proxy.settings import UpstreamSettings
from proxy.simple.links import shown
from proxy.simple.numbers import whole
from proxy.upstream.http.handshake import UNTRUSTED, ShownCertificate
from proxy.upstream.http.transport import THE_PROXY

#: Differences between two clocks that are remarkable, and that break TLS, tokens and the ages of pages (seconds).
_REMARKABLE, _WRONG = 10.0, 300.0
#: A certificate that ends within this time is one to renew (seconds).
_SOON = 14 * 86400.0
#: An answer that takes longer than this makes builds wait (seconds).
_SLOW = 2.0
#: The longest ``Date`` that is looked at (characters).
_LONGEST_DATE = 64


def judged(probed: Probed, now: float) -> list[Diagnosis]:
    """The findings about one upstream."""
    settings = probed.settings
    subject = f"upstream {settings.name}"
    if probed.unresolved is not None:
        return [
            fault(
                subject,
                "dns",
                f"the host of {shown(settings.url)} has no address that can be asked: {probed.unresolved}",
                f"check the name in {settings.url_setting}, /etc/resolv.conf and the name server (getent ahosts HOST)",
            )
        ]
    return [
        _names(subject, probed),
        *(finding for each in probed.addresses for finding in _address(subject, settings, each)),
        *_certificates(subject, settings, probed.addresses, now),
        *clock_findings(subject, probed.addresses),
        *_page(subject, settings, probed),
        *([] if probed.file is None else _file(subject, settings, probed.file)),
    ]


def _names(subject: str, probed: Probed) -> Diagnosis:
    addresses = [each.address for each in probed.addresses]
    if addresses == [THE_PROXY]:
        return fine(subject, "dns", "is asked through the outbound proxy, which resolves its name")
    words = f"{counted(len(addresses), 'address').replace('addresss', 'addresses')}: {', '.join(addresses)}"
    return fine(subject, "dns", f"{words} (resolved in {duration(probed.resolved_in)})")


def _address(subject: str, settings: UpstreamSettings, at: AtAddress) -> Iterator[Diagnosis]:
    if at.failure is not None:
        yield fault(subject, "address", f"{at.address}: {at.failure}", _what_to_do(settings, at))
        return
    taken = None if at.answered is None else at.answered.seconds
    if taken is not None and taken > _SLOW:
        yield warning(
            subject,
            "latency",
            f"{at.address}: took {duration(taken)} to begin its answer",
            "look at the line to it, and at its load; another upstream in the index takes over if hedge_after is set",
        )
    elif taken is None:
        yield fine(subject, "address", f"{at.address}: answers")
    else:
        yield fine(subject, "address", f"{at.address}: answered in {duration(taken)}")


def _what_to_do(settings: UpstreamSettings, at: AtAddress) -> str:
    where = "the outbound proxy" if at.address == THE_PROXY else f"this address ({at.address})"
    if isinstance(at.certificate, ShownCertificate) and at.certificate.wrong:
        return f"see what is found about its certificate; {settings.table}.ca_file names authorities of your own"
    if "credentials" in (at.failure or ""):
        return f"correct the credentials of {settings.table}, and run this again"
    return (
        f"try curl -v {shown(settings.url)} from this host: does its server run? If a firewall lets nothing through to "
        f"{where}, open it; the proxy uses other addresses meanwhile, if there are any"
    )


def _certificates(subject: str, settings: UpstreamSettings, at: Sequence[AtAddress], now: float) -> Iterator[Diagnosis]:
    """What is found about the certificates, once for all addresses that show the same."""
    groups: dict[ShownCertificate | str, list[str]] = {}
    for each in at:
        if each.certificate is not None:
            groups.setdefault(each.certificate, []).append(each.address)
    for shown_there, addresses in groups.items():
        where = ", ".join(addresses)
        if isinstance(shown_there, str):
            advice = "see what is found about the address; perhaps its port speaks no TLS, or wants a client certificate"
            yield fault(subject, "tls", f"{where}: no TLS handshake: {shown_there}", advice)
        else:
            yield certificate_finding(subject, f"{where}: its certificate", shown_there, now, _authority(settings, shown_there))


def _authority(settings: UpstreamSettings, certificate: ShownCertificate) -> str:
    if certificate.errors and not UNTRUSTED.isdisjoint(certificate.errors):
        return (
            f"if you know this authority ({certificate.issuer}), name its certificate in {settings.table}.ca_file, or install "
            "it in the system's store (update-ca-certificates); if you do not, somebody is between you and this upstream"
        )
    if not certificate.fits:
        return f"correct the host in {settings.url_setting}, or have a certificate issued for that name"
    return "have the owner of the server renew it, and check the clock of this host"


def certificate_finding(subject: str, what: str, certificate: ShownCertificate, now: float, advice: str) -> Diagnosis:
    """What is to be said of *certificate*, called *what*; *advice* is for one that is refused."""
    if certificate.wrong:
        return fault(subject, "tls", f"{what} {' and '.join(certificate.wrong)} (it ends {moment(certificate.ends)})", advice)
    left = certificate.ends - now
    if left < _SOON:
        words = f"{what} ends {moment(certificate.ends)}, in {duration(max(0.0, left))}"
        return warning(subject, "tls", words, "have it renewed before that")
    words = f"{what} is valid until {moment(certificate.ends)} ({counted(certificate.chain, 'certificate')} in its chain)"
    return fine(subject, "tls", words)


def clock_difference(answered: SeenHead) -> float | None:
    """Seconds that the clock of who answered is ahead of this one; ``None`` if it states no time.

    A cache on the way may leave the ``Date`` of the answer that it has kept, and states its ``Age`` then.  What is less wins.
    """
    try:
        stated = parsedate_to_datetime((answered.date or "")[:_LONGEST_DATE]).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The answer was made before it came, and its Date has whole seconds.
    made = answered.at - answered.seconds
    candidates = [stated, stated + (whole(answered.age or "") or 0)]
    differences = [max(0.0, each - answered.at) or min(0.0, each + 1.0 - made) for each in candidates]
    return min(differences, key=abs)


def clock_findings(subject: str, at: Sequence[AtAddress]) -> Iterator[Diagnosis]:
    """Whether the clocks of who answered *at* addresses agree with that of this host."""
    found = [(clock_difference(each.answered), each.address) for each in at if each.answered is not None]
    stated = [(difference, address) for difference, address in found if difference is not None]
    if not stated:
        return
    difference, address = max(stated, key=lambda each: abs(each[0]))
    if abs(difference) < _REMARKABLE:
        yield fine(subject, "clock", "agrees with this host about the time")
        return
    side = "behind" if difference > 0 else "ahead of"
    words = f"the clock of this host is {duration(abs(difference))} {side} the Date of {address}"
    advice = (
        "compare with a third clock and synchronise this host (timedatectl; chronyc tracking): certificates, ID tokens and the "
        "ages of pages depend on it"
    )
    yield (fault if abs(difference) >= _WRONG else warning)(subject, "clock", words, advice)


def _page(subject: str, settings: UpstreamSettings, probed: Probed) -> Iterator[Diagnosis]:
    pages = [each.page for each in probed.addresses if isinstance(each.page, PageFound)]
    if pages:
        media = pages[0].record.head.content_type
        files = counted(len(pages[0].page.files), "file")
        if "json" in media:
            yield fine(subject, "json", f"sends JSON (PEP 691); {probed.project} has {files}")
        else:
            words = f"sends pages in HTML only ({probed.project} has {files}): sizes and upload times are missing"
            advice = (
                "use the URL of an index with JSON (PEP 691) if it has one, or a newer version of its server; without it "
                "builds work, and rules about the age of files do not apply"
            )
            yield warning(subject, "json", words, advice)
    elif any(isinstance(each.page, PageMissing) for each in probed.addresses):
        yield warning(
            subject,
            "page",
            f"has no project {probed.project} ({shown(settings.url)} answers 404): JSON, ranges and metadata were not examined",
            f"name a project that it has with --project; if it has {probed.project}, correct {settings.url_setting}",
        )


def _file(subject: str, settings: UpstreamSettings, probe: FileProbe) -> Iterator[Diagnosis]:
    name = shown(probe.file.filename)
    if probe.ranges is True:
        yield fine(subject, "ranges", f"sends parts of files ({name})")
    elif probe.ranges is False:
        advice = (
            "allow range requests in its server, or in the cache in front of it; until then an interrupted download begins anew"
        )
        yield warning(subject, "ranges", f"answers a request for a part of {name} with the whole file", advice)
    else:
        advice = f"try curl -v with its URL from this host; if it is on another host, see {settings.table}.file_hosts"
        yield fault(subject, "file", f"{name}: {probe.ranges}", advice)
    if probe.metadata is True:
        yield fine(subject, "metadata", f"has metadata beside its files (PEP 658; {name}.metadata)")
    elif probe.metadata is None:
        yield fine(subject, "metadata", "announces no metadata (PEP 658): the proxy reads it from the wheels")
    else:
        why = probe.metadata if isinstance(probe.metadata, str) else "the answer is empty"
        advice = "report it to the owner of the server; until then the proxy reads metadata from the wheels"
        yield warning(subject, "metadata", f"announces {name}.metadata and does not send it: {why}", advice)
