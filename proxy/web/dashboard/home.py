"""The pages of the dashboard, and which of them a path leads to.

Who may see what is decided here alone: the viewer of a request is found first, and a project is asked for at the door as its
page for installers is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.web.template import Tag, tags

from proxy.access.roles import Permission
from proxy.core.amounts import clock_time
from proxy.errors import MethodNotAllowed, NotFound
from proxy.interfaces import IOffload, IRepository
from proxy.names import is_project_name, normalize
from proxy.web.answers import Answer, Ask
from proxy.web.browsing import search_form
from proxy.web.dashboard.assets import Assets
from proxy.web.dashboard.gathering import StateGatherer
from proxy.web.dashboard.logins import BrowserLogins
from proxy.web.dashboard.markup import element
from proxy.web.dashboard.parts import parts
from proxy.web.dashboard.performing import ProjectActions
from proxy.web.dashboard.projects import ProjectPages
from proxy.web.dashboard.shell import Frame, Shell
from proxy.web.dashboard.streams import EventStreams
from proxy.web.dashboard.viewers import Viewer, Viewers
from proxy.web.door import Door, Question
from proxy.web.overview import Overview
from proxy.web.routes import SHOWN

#: The parts of the page in their order, with their headings; health has none.
_HEADINGS: Mapping[str, str] = {
    "savings": "The last 24 hours",
    "downloads": "Downloads in progress",
    "upstreams": "Upstreams",
    "disk": "Disk",
    "problems": "Recent problems",
    "busy": "Projects",
}


class Dashboard:
    """Answers for *repositories*, of which the one named *default* is at the root.

    *overview* has the settings for clients, ``None``: they are shown at other addresses, where the indexes are.
    """

    def __init__(
        self,
        viewers: Viewers,
        gatherer: StateGatherer,
        streams: EventStreams,
        shell: Shell,
        assets: Assets,
        overview: Overview | None,
        projects: ProjectPages,
        logins: BrowserLogins,
        actions: ProjectActions,
        door: Door,
        repositories: Mapping[str, IRepository],
        default: str | None,
        offload: IOffload,
    ) -> None:
        self._viewers = viewers
        self._gatherer = gatherer
        self._streams = streams
        self._shell = shell
        self._assets = assets
        self._overview = overview
        self._projects = projects
        self._logins = logins
        self._actions = actions
        self._door = door
        self._repositories = repositories
        self._default = default
        self._offload = offload

    def close(self) -> None:
        """End what is kept live."""
        self._streams.close()
        self._gatherer.close()

    async def home(self, ask: Ask) -> Answer:
        """Answer a browser's request for ``/``.  Raises ProxyError."""
        viewer, ask = await self._viewers.of(ask)
        state = await self._gatherer.newest()
        contents = await self._offload.run(parts, state, viewer)
        sections = [_section(name, heading, contents[name]) for name, heading in _HEADINGS.items() if name in contents]
        live = f"As of {clock_time(state.taken)}. Reload the page for newer figures."
        return await self._shell.page(
            "pypiproxy",
            self._frame("", viewer, "-/events"),
            tags.p(
                "A caching proxy for Python package indexes. It fetches pages and files from the index behind it once, and "
                "serves them from its cache while that index is slow or down."
            ),
            tags.div(*contents["health"], id="health", role="status"),
            search_form("Search projects", "", "-/search"),
            *sections,
            tags.p(live, id="live", class_="dim"),
            *self._for_clients(ask),
        )

    def _for_clients(self, ask: Ask) -> list[Tag]:
        """The settings for clients and the list of indexes; or where they are."""
        if self._overview is not None:
            return [*self._overview.client_setup(self._default, "/", ask), tags.h2("Indexes"), self._overview.listed("")]
        return [
            tags.h2("Indexes"),
            tags.ul([tags.li(name) for name in self._repositories]),
            tags.p(
                "They are served at the addresses in ",
                tags.code("server.listen"),
                ". The page / there has the settings for each client.",
            ),
        ]

    async def answer(self, segments: tuple[str, ...], ask: Ask) -> Answer:
        """Answer *ask* for what is below ``/-/`` at *segments*.  Raises ProxyError."""
        match segments:
            case ("static", digest, name):
                return self._assets.answer(digest, name, ask)
            case ("events",):
                viewer, _ = await self._viewers.of(ask)

                async def now() -> Viewer:
                    return (await self._viewers.of(ask))[0]

                return self._streams.answer(ask.caller.address, viewer, now)
            case ("login",):
                return await self._logins.page(ask)
            case ("logout",) | ("act",):
                raise MethodNotAllowed(f"{ask.path[:SHOWN]} takes forms: only POST is answered here", allow="POST")
            case ("setup",) if self._overview is not None:
                return await self._setup(self._overview, ask)
            case ("search",):
                viewer, ask = await self._viewers.of(ask)
                content = await self._projects.search(viewer, ask)
                return await self._shell.page("Projects", self._frame("../", viewer), *content)
            case ("project", index, project) if index in self._repositories and is_project_name(project):
                return await self._project(self._repositories[index], normalize(project), ask)
        setup = "" if self._overview is None else ", settings for clients at /-/setup"
        raise NotFound(f"the pages of the dashboard are at / and /-/search{setup}")

    async def posted(self, segments: tuple[str, ...], ask: Ask) -> Answer:
        """Answer *ask*, which sends a form to one of :data:`proxy.web.dashboard.places.POSTED`.  Raises ProxyError."""
        match segments:
            case ("login",):
                return await self._logins.begin(ask)
            case ("logout",):
                return await self._logins.end(ask)
        return await self._actions.perform(ask)

    async def _setup(self, overview: Overview, ask: Ask) -> Answer:
        viewer, ask = await self._viewers.of(ask)
        return await self._shell.page(
            "Set up a client",
            self._frame("../", viewer),
            *overview.client_setup(self._default, "/", ask),
            tags.h2("Other indexes"),
            tags.p("The page of each index has the settings for it."),
            overview.listed("../"),
        )

    async def _project(self, repository: IRepository, project: str, ask: Ask) -> Answer:
        viewer, ask = await self._viewers.of(ask)
        question = Question(Permission.READ, repository, project)
        admission = await self._door.admit(ask, question)
        try:
            buttons = self._actions.buttons(viewer, ask, repository, project)
            content = await self._projects.project(repository, project, viewer, buttons)
        except NotFound as error:
            raise await self._door.missing(ask, admission, question, error) from error
        await self._door.confirmed(ask, admission, question)
        return await self._shell.page(project, self._frame("../../../", viewer), *content)

    def _frame(self, up: str, viewer: Viewer, events: str | None = None) -> Frame:
        return Frame(up, events, self._logins.stated(viewer, up))


def _section(name: str, heading: str, content: Sequence[Tag]) -> Tag:
    body = tags.div(*content, id=name)
    return element("section", tags.h2(heading, id=f"{name}-heading"), body, **{"aria-labelledby": f"{name}-heading"})
