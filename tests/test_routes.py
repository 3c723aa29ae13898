"""Where a path leads, as a table: every route below an index, at the root and by the name of the index."""

from __future__ import annotations

import pytest

from proxy.core.events import RequestPlace, RouteLabel
from proxy.web.routes import Below, Elsewhere, NoRoute, OperationsRoute, Route, Slashless, TopLevel, UrlSpace
from proxy.web.site import ROUTES

#: What the segments of a pattern may be, and what else a client may write in their place.
GOOD = {
    "{project}": "six",
    "{version}": "1.0",
    "{digest}": "sha256-" + "ab" * 32,
    "{file}": "six-1.0.tar.gz",
    "{day}": "2024-10-04.bz2",
}
BAD = {"{project}": "..", "{version}": "1 0 <", "{digest}": "sha256", "{file}": "a\\b", "{day}": "2024-10-04"}

#: What a client is told that asks for what is not there.
INSTEAD = "indexes are at /simple/ and /index/NAME/simple/"

SPACE = UrlSpace(ROUTES, ["pypi", "my index"], "pypi")


def leads(path: str, space: UrlSpace = SPACE) -> Route:
    return space.route(path.encode(), path)


def filled(pattern: str, by: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """*pattern* with its segments in braces replaced, and what they are replaced by."""
    parts = pattern.split("/")
    return "/".join(by.get(part, part) for part in parts), tuple(by[part] for part in parts if part in by)


@pytest.mark.parametrize("pattern", ROUTES)
def test_every_pattern_is_reached_at_the_root_and_by_name(pattern: str) -> None:
    path, values = filled(pattern, GOOD)
    area = pattern.split("/")[0]
    counted = area if area in ("simple", "files", "packages", "pypi") else None
    for root, index in (("/", "pypi"), ("/index/pypi/", "pypi"), ("/index/my%20index/", "my index")):
        found = leads(root + path)
        assert isinstance(found, Below)
        assert found == Below(index, root, pattern, values, RequestPlace(index, counted, found.place.route))


@pytest.mark.parametrize(("pattern", "part"), [(pattern, part) for pattern in ROUTES for part in GOOD if part in pattern])
def test_a_segment_that_is_not_what_it_stands_for_leads_nowhere(pattern: str, part: str) -> None:
    path, _ = filled(pattern, {**GOOD, part: BAD[part]})
    assert isinstance(leads(f"/{path}"), NoRoute)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/-/live", OperationsRoute(("live",))),
        ("/-/", OperationsRoute(("",))),
        ("/-", Slashless("-/")),
        ("/", Below("pypi", "/", "", (), RequestPlace("pypi", None, RouteLabel.OVERVIEW))),
        ("/index", Slashless("index/")),
        ("/index/", TopLevel("/index/")),
        ("/index/my%20index", Slashless("my%20index/", "my index")),
        (
            "/index/my%20index/",
            Below("my index", "/index/my%20index/", "", (), RequestPlace("my index", None, RouteLabel.OVERVIEW)),
        ),
        ("/index/other", NoRoute("there is no index named 'other' here; there is my index, pypi")),
        ("/favicon.ico", TopLevel("/favicon.ico")),
        ("/six/", Below("pypi", "/", "{project}/", ("six",), RequestPlace("pypi", None, RouteLabel.REDIRECT))),
        ("/%73imple/six/", Below("pypi", "/", "simple/{project}/", ("six",), RequestPlace("pypi", "simple", RouteLabel.PAGE))),
        ("/simple/a%2fb/", NoRoute(f"/simple/a%2fb/: 'a/b' is no project; {INSTEAD}", RequestPlace("pypi", "simple"))),
        ("/nothing", NoRoute(f"/nothing: there is nothing at this path; {INSTEAD}")),
        ("/index/other/simple/", NoRoute("there is no index named 'other' here; there is my index, pypi")),
    ],
)
def test_paths_of_all_kinds(path: str, route: Route) -> None:
    assert leads(path) == route


def test_without_a_default_index_nothing_is_served_at_the_root() -> None:
    space = UrlSpace(ROUTES, ["pypi"], None)
    assert leads("/simple/six/", space) == NoRoute(
        "/simple/six/: no index is served at the root; indexes are at /index/NAME/simple/",
        elsewhere=Elsewhere("/simple/", "/index/pypi/simple/"),
    )
    assert isinstance(leads("/index/pypi/simple/six/", space), Below)
    assert isinstance(leads("/six/", space), NoRoute)
    assert leads("/", space) == TopLevel("/")


@pytest.mark.parametrize(
    ("path", "default", "asked", "meant"),
    [
        ("/pypi/simple/six/", "pypi", "/pypi/simple/", "/simple/"),
        ("/root/pypi/+simple/six/", "pypi", "/root/pypi/+simple/", "/simple/"),
        ("/a%20b/simple/six/", "pypi", "/a%20b/simple/", "/simple/"),
        ("/simple/simple/six/", "pypi", "/simple/simple/", "/simple/"),
        ("/index/pypi/x/simple/six/", "pypi", "/index/pypi/x/simple/", "/simple/"),
        ("/repository/my%20index/simple/six/", "pypi", "/repository/my%20index/simple/", "/index/my%20index/simple/"),
        ("/artifactory/api/pypi/my%20index/simple/six/", "pypi", None, "/index/my%20index/simple/"),
        ("/artifactory/api/pypi/pypi/simple/six/", "my index", None, "/index/pypi/simple/"),
        ("/artifactory/api/python/simple/six/", "my index", None, "/simple/"),
        ("/index/pipy/simple/six/", "pypi", "/index/pipy/simple/", "/index/NAME/simple/ (NAME: my index, pypi)"),
        ("/simple/six/", None, "/simple/", "/index/NAME/simple/ (NAME: my index, pypi)"),
        ("/pypi/simple/six/", None, "/pypi/simple/", "/index/pypi/simple/"),
    ],
)
def test_the_url_of_another_product_names_the_index_that_is_meant(
    path: str, default: str | None, asked: str | None, meant: str
) -> None:
    route = leads(path, UrlSpace(ROUTES, ["pypi", "my index"], default))
    assert isinstance(route, NoRoute)
    assert route.elsewhere == Elsewhere(asked or path.removesuffix("six/"), meant)


@pytest.mark.parametrize(
    "path",
    ["/pypi/simple/", "/pypi/simple/six", "/pypi/simple//six/", "/pypi/simple/a%2fb/", "/pypi/files/six/", "/simple/a%20b/"],
)
def test_what_is_no_page_of_a_project_means_no_index(path: str) -> None:
    route = leads(path)
    assert isinstance(route, NoRoute)
    assert route.elsewhere is None


def test_what_a_client_is_told_repeats_little_of_what_it_wrote() -> None:
    for path in ("/" + "a" * 5000, "/simple/" + "a" * 5000 + "/", "/index/" + "a" * 5000 + "/simple/"):
        route = leads(path)
        assert isinstance(route, NoRoute)
        assert len(route.why) < 700
    misplaced = leads("/" + "a" * 5000 + "/simple/six/")
    assert isinstance(misplaced, NoRoute)
    assert misplaced.elsewhere is not None
    assert len(misplaced.elsewhere.asked) < 300


_FILE = f"/files/six/{GOOD['{digest}']}/{GOOD['{file}']}"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/simple/six/", RouteLabel.PAGE),
        ("/simple/six", RouteLabel.REDIRECT),
        ("/simple/", RouteLabel.LIST),
        (_FILE, RouteLabel.FILE),
        (f"{_FILE}.metadata", RouteLabel.METADATA),
        (f"{_FILE}.provenance", RouteLabel.PROVENANCE),
        ("/pypi/six/json", RouteLabel.DOCUMENT),
        ("/links/", RouteLabel.LINKS),
        ("/legacy/", RouteLabel.UPLOAD),
        ("/_/oidc/mint-token", RouteLabel.EXCHANGE),
        ("/", RouteLabel.OVERVIEW),
        ("/-/live", RouteLabel.PROBE),
        ("/-/metrics", RouteLabel.METRICS),
        ("/-/", RouteLabel.OPERATIONS),
        ("/-/nothing", RouteLabel.OPERATIONS),
        ("/-", RouteLabel.REDIRECT),
        ("/nothing", RouteLabel.NONE),
        ("/simple/a%2fb/", RouteLabel.NONE),
    ],
)
def test_each_route_is_counted_under_a_label_of_its_kind(path: str, label: RouteLabel) -> None:
    assert leads(path).place.route is label
