"""What answers at the listeners that the dashboard has for itself: its pages, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import MethodNotAllowed, NotFound
from proxy.mechanism.late import Late
from proxy.web.answers import Answer, Ask
from proxy.web.dashboard.places import PLACES, POSTED
from proxy.web.pages import redirect
from proxy.web.routes import SHOWN, OperationsRoute, TopLevel
from proxy.web.site import no_icon, refuse_body

if TYPE_CHECKING:
    from proxy.web.dashboard.home import Dashboard


class DashboardApart:
    """Answers for *dashboard*, ``None`` while it is switched off."""

    def __init__(self, dashboard: Late[Dashboard] | None) -> None:
        self._dashboard = dashboard

    async def __call__(self, ask: Ask) -> Answer:
        """The answer to *ask*.  Raises ProxyError."""
        if self._dashboard is None:
            raise NotFound("the dashboard is switched off: server.dashboard")
        dashboard, route = await self._dashboard.loaded(), ask.route
        segments = route.segments if isinstance(route, OperationsRoute) else ()
        if ask.method == "POST" and segments in POSTED:
            return await dashboard.posted(segments, ask)
        refuse_body(ask)
        if ask.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{ask.method} {ask.path[:SHOWN]}: only GET, HEAD is answered here", allow="GET, HEAD")
        match route:
            case TopLevel("/"):
                return await dashboard.home(ask)
            case TopLevel("/favicon.ico"):
                return no_icon()
            case OperationsRoute(("",)):
                return redirect("../")
            case OperationsRoute() if segments[0] in PLACES:
                return await dashboard.answer(segments, ask)
        raise NotFound(
            f"{ask.path[:SHOWN]}: this address serves the dashboard and nothing else (server.dashboard_listen); indexes are at "
            "those of server.listen"
        )
