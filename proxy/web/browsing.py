"""The projects of an index for people: those that are cached, with a search field, where installers get the list of all.

That list has tens of megabytes and is meant for programs.  A browser is told by ``application/xhtml+xml``, which no installer
accepts; ``?format=text/html`` gives it the list all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlencode

from twisted.web.template import Tag, tags

from proxy.interfaces import IOffload, IRepository
from proxy.names import is_project_name, normalize
from proxy.simple.media import MediaType
from proxy.web.answers import Answer, Ask
from proxy.web.door import Reading
from proxy.web.hypertext import html, hyperlink, main_element
from proxy.web.origin import origin

#: Projects on one page.
_SHOWN = 200
#: Characters of a search that are looked at.
_LONGEST = 100


class Browsing:
    """Answers with the cached projects of an index."""

    def __init__(self, offload: IOffload) -> None:
        self._offload = offload

    async def projects(self, repository: IRepository, root: str, reading: Reading | None, ask: Ask) -> Answer:
        """Answer a browser's request for ``simple/`` of *repository*, which is at the path *root*.

        *reading* is what may be shown, ``None``: all.
        """
        wanted = search_text(ask)
        cached = await repository.cached()
        if reading is not None:
            cached = await self._offload.run(list, filter(reading.visible, cached))
        found = await self._offload.run(matching_names, cached, wanted)
        everything = "?" + urlencode({"format": MediaType.TEXT_HTML.value})
        title = f"Projects of {repository.name}"
        return await html(
            self._offload,
            title,
            tags.header(tags.h1(title), tags.p("Index URL: ", tags.code(f"{origin(ask)}{root}simple/"))),
            main_element(
                search_form("Search the cached projects", wanted),
                tags.p(_counted(len(found), len(cached), wanted), role="status"),
                *_listed(found[:_SHOWN]),
                *_others(wanted, found),
            ),
            tags.footer(
                "A project is cached when a client requests it for the first time. Installers get the ",
                hyperlink(everything, "list of all projects"),
                " here, which can be tens of megabytes. ",
                hyperlink("../", "Settings for clients"),
            ),
        )


def search_text(ask: Ask) -> str:
    """What is searched for: a line of visible text, perhaps empty."""
    text = parse_qs(ask.query).get("q", [""])[0]
    return "".join(each for each in text[:_LONGEST] if each.isprintable()).strip()


def matching_names(projects: Sequence[str], wanted: str) -> Sequence[str]:
    """Those of *projects* (normalised, sorted) with *wanted* in their names: what is called so first, then what begins so."""
    part = normalize(wanted)
    if not part:
        return projects
    found = (name for name in projects if part in name)
    return sorted(found, key=lambda name: (name != part, not name.startswith(part), name))


def search_form(label: str, wanted: str, action: str = "") -> Tag:
    """A form that searches for *wanted* at *action*, a relative URL; empty: at the page that it is on."""
    field = tags.input(type="search", name="q", id="q", value=wanted, maxlength=str(_LONGEST), autocomplete="off")
    where = {"action": action} if action else {}
    return tags.form(tags.label(label, for_="q"), field, " ", tags.button("Search", type="submit"), role="search", **where)


def _counted(found: int, cached: int, wanted: str) -> str:
    """How many projects there are, in words."""
    projects = "1 project is cached" if cached == 1 else f"{cached:,} projects are cached"
    names = "1 name contains" if found == 1 else f"{found:,} names contain"
    matching = f"{projects}; {names} “{wanted}”" if wanted else projects
    return f"{matching}. The first {_SHOWN} are shown: search for others." if found > _SHOWN else f"{matching}."


def _listed(found: Sequence[str]) -> list[Tag]:
    items = [tags.li(hyperlink(f"{name}/", name)) for name in found]
    return [tags.ul(items, class_="columns")] if items else []


def _others(wanted: str, found: Sequence[str]) -> list[Tag]:
    """The way to a project that is searched for and not cached."""
    name = normalize(wanted)
    if not is_project_name(wanted) or name in found[:1]:
        return []
    return [tags.p(name, " is not cached. ", hyperlink(f"{name}/", f"Ask the index for {name}"), ".")]
