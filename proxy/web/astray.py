"""Installers whose index URL lacks ``simple/`` at its end, the most common mistake in a client's configuration.

An installer that is given ``http://host:3143/`` asks for ``/six/``.  Nothing is there, and all that pip prints is that there is
no such project.  No other request looks like this one, so the installer is redirected to the page that it looks for, and the
operator is told once per client what to set.  Other programs get a 404 that names the right URL.
"""

from __future__ import annotations

from twisted.logger import Logger

from proxy.core.bounded import Told
from proxy.errors import NotFound
from proxy.names import normalize
from proxy.web.answers import Answer, Ask
from proxy.web.origin import origin
from proxy.web.pages import redirect
from proxy.web.visitors import installer


class Astray:
    """Answers those that ask for an index where it is not."""

    log = Logger()

    def __init__(self) -> None:
        self._told = Told()

    async def page(self, root: str, project: str, ask: Ask) -> Answer:
        """Answer a request for the page of *project* right below *root*, the path of an index.  Raises NotFound."""
        wrong = origin(ask) + root
        client = installer(ask)
        if client is None:
            raise NotFound(
                f"there is nothing at {root}{project}/: the page of a project is at {root}simple/{normalize(project)}/"
            )
        if self._told.is_first(ask.caller.address):
            self.log.warn(
                "{client} at {address} has the index URL {wrong}, which lacks simple/ at its end: it is redirected. "
                "Set its index URL to {right}",
                client=client,
                address=ask.caller.address,
                wrong=wrong,
                right=f"{wrong}simple/",
            )
        return redirect(f"../simple/{normalize(project)}/")
