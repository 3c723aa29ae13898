"""The parts of the dashboard that are kept live: what is in each of them for one viewer.  Pure.

Each part is an element with an id; the page has all of them, and the stream sends those that have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from twisted.web.template import Tag, tags

from proxy.core.amounts import NONE, clock_time, counted, duration, moment, size
from proxy.core.figures import OTHERS, Dimension, Sums
from proxy.statistics.problems import RecentProblem, by_kind
from proxy.statistics.report import FigureReport, hit_rate
from proxy.upstream.pool.upstream import UpstreamState
from proxy.web.dashboard.markup import element, nothing, table
from proxy.web.dashboard.plots import PlotBar, plot
from proxy.web.dashboard.state import DashboardState, DownloadState, HourFigures
from proxy.web.dashboard.viewers import Viewer

#: Rows of each table.
_ROWS = 10
#: Names of projects and files that are listed of one kind of problem.
_NAMED = 3
#: Problems that happened within so many seconds are recent.
_RECENT = 86400.0

#: What a part has in it.
PartContent = Callable[[DashboardState, Viewer], Sequence[Tag]]


def parts(state: DashboardState, viewer: Viewer) -> Mapping[str, Sequence[Tag]]:
    """The content of each part that *viewer* is shown, by its id."""
    shown = {**_PARTS, **(_OPERATIONAL if viewer.operational else {})}
    return {name: part(state, viewer) for name, part in shown.items()}


# -- health -------------------------------------------------------------------------------------------------------------------


def _health(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    if not state.ready:
        return [tags.p("Stopping: no new requests should be sent here.", class_="bad")]
    if not state.troubles:
        return [tags.p("Ready: everything works.", class_="good")]
    # Words may name what only the host itself should know; others are told by /-/ready what it is.
    told = [each.words if viewer.administers else each.reason.value.replace("-", " ") for each in state.troubles]
    words = "Degraded: builds are served, but something needs attention."
    where = "" if viewer.administers else tags.span(" ", tags.a("/-/ready", href="-/ready"), " says what it is.")
    return [tags.p(words, where, class_="bad"), tags.ul([tags.li(each) for each in told])]


# -- figures ------------------------------------------------------------------------------------------------------------------


def _savings(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    total = _total(state.hours)
    rate = hit_rate(total)
    most = max((each.total.hit_bytes for each in state.hours), default=0)
    saved = FigureReport(state.day).saved_seconds()
    figures = [
        _figure("Hit rate", NONE if rate is None else f"{rate:.1%}"),
        _figure("Requests", f"{total.requests:,}"),
        _figure("Bytes saved", size(total.hit_bytes)),
        _figure("Waiting saved", duration(saved) if saved else NONE),
        _figure("Failed", f"{total.failed:,}"),
        _figure("Served stale", f"{total.stale:,}"),
    ]
    return [
        element("dl", *figures, class_="figures"),
        tags.div(
            plot(
                "Hit rate",
                "share of answers from the cache, per hour",
                [_bar(each, _share(each.total), _rate_in_words(each.total)) for each in state.hours],
            ),
            plot(
                "Bytes saved",
                f"not fetched from upstream, per hour; at most {size(most)}",
                [_bar(each, each.total.hit_bytes / most if most else None, size(each.total.hit_bytes)) for each in state.hours],
            ),
            class_="plots",
        ),
    ]


def _figure(name: str, value: str) -> Tag:
    return tags.div(element("dt", name), element("dd", value))


def _total(hours: Sequence[HourFigures]) -> Sums:
    total = Sums()
    for each in hours:
        total.add(each.total)
    return total


def _bar(hour: HourFigures, share: float | None, words: str) -> PlotBar:
    return PlotBar(clock_time(hour.start)[:5], share, words)


def _share(tally: Sums) -> float | None:
    return hit_rate(tally)


def _rate_in_words(tally: Sums) -> str:
    rate = hit_rate(tally)
    return "no requests" if rate is None else f"{rate:.1%} of {counted(tally.hits + tally.waited, 'answer')}"


def _busy(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    report = FigureReport(state.day, viewer.may_name)
    projects = [each for each in report.table(Dimension.PROJECTS, _ROWS + 1) if each["project"] != OTHERS][:_ROWS]
    rows = [
        [_project(each["index"], each["project"]), each["index"], f"{each['requests']:,}", size(each["saved_bytes"])]
        for each in projects
    ]
    worth = report.wheels_worth_building(_ROWS)
    built = [[_project(each["index"], each["project"]), each["version"], f"{each['downloads']:,}"] for each in worth]
    found: list[Tag] = [
        table("Projects requested most in 24 hours", ("Project", "Index", "Requests", "Saved"), rows, (2, 3))
        if rows
        else nothing("No project was requested in the last 24 hours.")
    ]
    if built:
        found.append(
            table(
                "Wheels worth building: releases that are downloaded as source archives again and again",
                ("Project", "Version", "Downloads"),
                built,
                (2,),
            )
        )
    return found


def _project(index: str, project: str) -> Tag:
    """A link to the page of *project*, from the page at ``/``."""
    return tags.a(project, href=project_path(index, project))


def project_path(index: str, project: str) -> str:
    """The path of the page of *project* (normalised) of *index*, below ``/``."""
    return f"-/project/{quote(index, safe='')}/{project}"


# -- the service --------------------------------------------------------------------------------------------------------------


def _upstreams(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    if not state.upstreams:
        return [nothing("No upstream is asked: every index is hosted here or offline.")]
    rows: list[list[Tag | str]] = []
    for index, each in state.upstreams:
        latency = NONE if each.latency is None else duration(each.latency)
        rows.append([each.name, index, _standing(each), latency, f"{each.in_flight:,}", f"{each.waiting:,}", _addresses(each)])
        if viewer.administers and each.last_failure is not None and each.last_failure_at is not None:
            rows[-1][2] = tags.span(_standing(each), tags.br(), f"{moment(each.last_failure_at)} {each.last_failure}")
    heads = ("Upstream", "Index", "State", "Latency", "In flight", "Waiting", "Addresses")
    return [table("Upstreams, the preferred one of each index first", heads, rows, (3, 4, 5))]


def _standing(state: UpstreamState) -> Tag:
    word = state.state
    if word == "down" and state.paused_until is not None:
        word = f"down until {clock_time(state.paused_until)}"
    if state.marked:
        word = f"{word}, distrusted"
    return tags.span(word, class_="good" if word == "up" else "bad")


def _addresses(state: UpstreamState) -> Tag:
    resting = set(state.resting)
    known = dict.fromkeys([*state.addresses, *state.resting])
    if not known:
        return tags.span("not resolved yet", class_="dim")
    items = [
        tags.li(each, " ", tags.span("resting after a failure", class_="bad")) if each in resting else tags.li(each)
        for each in known
    ]
    return tags.ul(items, class_="plain")


def _downloads(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    shown = [each for each in state.downloads if viewer.may_name(each.index, each.project)]
    others = len(state.downloads) - len(shown)
    if not state.downloads:
        return [nothing("No file is being downloaded.")]
    items = [tags.li(*_progress(each), class_="download") for each in shown[:_ROWS]]
    left = len(shown) - len(items) + others
    more = [tags.p(f"{'And ' if items else ''}{counted(left, 'other download')} in progress.", class_="dim")] if left else []
    return [tags.ul(items, class_="plain"), *more] if items else more


def _progress(each: DownloadState) -> Sequence[Tag]:
    if each.size:
        arrived = min(each.arrived, each.size)
        words = f"{size(arrived)} of {size(each.size)}"
        bar = element("progress", words, value=str(arrived), max=str(each.size), **{"aria-label": each.filename})
    else:
        words = size(each.arrived)
        bar = element("progress", words, **{"aria-label": each.filename})
    return [tags.span(each.filename, class_="name"), bar, tags.span(words, class_="dim")]


def _disk(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    space = state.space
    counts = "not counted yet" if space.stored is None else f"{size(space.stored)} in {counted(space.files or 0, 'file')}"
    found = [_figure("Stored", counts), _figure("Free on the file system", NONE if space.free is None else size(space.free))]
    if space.limit is not None:
        found.append(_figure("Limit (max_size)", size(space.limit)))
    shown: list[Tag] = [element("dl", *found, class_="figures")]
    if space.limit and space.stored is not None:
        words = f"{space.stored / space.limit:.0%} of max_size in use"
        used = {"value": str(min(space.stored, space.limit)), "max": str(space.limit), "aria-label": "Space in use"}
        shown.append(tags.p(element("meter", words, **used), f" {words}"))
    return shown


def _problems(state: DashboardState, viewer: Viewer) -> Sequence[Tag]:
    since = state.taken - _RECENT
    shown = [
        each
        for each in state.problems
        if each.last >= since and (not each.project or viewer.may_name(each.index, each.project))
    ]
    if not shown:
        return [nothing("Nothing went wrong in the last 24 hours.")]
    kinds = by_kind(shown)
    rows: list[list[Tag | str]] = [
        [
            moment(those[0].last),
            those[0].reason,
            _what_it_is_about(those),
            those[0].index or NONE,
            f"{sum(each.times for each in those):,}",
        ]
        for those in kinds[:_ROWS]
    ]
    heads = ("Last", "What happened", "To what", "Index", "Times")
    return [table("Problems of the last 24 hours, the latest first", heads, rows, (4,))]


def _what_it_is_about(problems: Sequence[RecentProblem]) -> Tag | str:
    """What *problems* of one kind are about, the latest first."""
    names = [each.filename or each.project for each in problems if each.project]
    if not names:
        return NONE
    more = len(names) - _NAMED
    if len(names) < len(problems):
        names = [*names[:_NAMED], "and others"]
    elif more > 0:
        names = [*names[:_NAMED], f"and {counted(more, 'other')}"]
    return tags.ul([tags.li(each) for each in names], class_="plain")


_PARTS: Mapping[str, PartContent] = {"health": _health, "savings": _savings, "busy": _busy, "problems": _problems}
_OPERATIONAL: Mapping[str, PartContent] = {"downloads": _downloads, "upstreams": _upstreams, "disk": _disk}
