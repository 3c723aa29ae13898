"""How one upstream is to be asked for pages: what it has shown to understand, and whether its URL is that of an index.

Some gateways answer a request for JSON with an error where they would answer one for HTML with a page; some configured URLs
lack the ``simple/`` at their end.  Both look like an upstream that has nothing, so each is looked into before that is believed.

Theory of operation.  As long as no page came, an error in answer to JSON is followed by a request for HTML.  Once that was in
vain for :data:`FEW` different projects, HTML is asked for first, and JSON only where HTML had a page or was refused for its
type: a project that the upstream does not have then costs one request, and the first one that it has settles the matter.
"""

from __future__ import annotations

#: Seconds for which an upstream that answers HTML alone is asked for nothing else.
REMEMBERED_FOR = 24 * 3600.0
#: Different projects for which neither JSON nor HTML was answered, after which HTML is asked for first.
FEW = 5
#: Different projects for which it is looked at once whether the index is elsewhere; and seconds between two later looks.
LOOKS, LOOK_EVERY = 20, 60.0
#: What a server answers that does not know the media types that it is asked for.
NOT_UNDERSTOOD = (406, 415, 500)
#: What it answers that says so itself.
REFUSED_TYPE = (406, 415)


class Dialect:
    """What one upstream has shown.  Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._html_until = 0.0
        self._worked = False
        self._in_vain: set[str] = set()
        self._looked_for: set[str] = set()
        self._looked_at = 0.0
        #: The URL that its index really has; ``None`` as far as is known: the configured one.
        self.better_url: str | None = None

    def html_alone(self, now: float) -> bool:
        """Whether it is to be asked for HTML and nothing else."""
        return self._html_until > now

    def html_first(self) -> bool:
        """Whether HTML is to be asked for before JSON: no page ever came, for several projects."""
        return not self._worked and len(self._in_vain) >= FEW

    def may_want_html(self) -> bool:
        """Whether an error may be about the media types: no page ever came in answer to a request for JSON."""
        return not self._worked

    def may_be_elsewhere(self, project: str, now: float) -> bool:
        """Whether a 404 for *project* may be about the URL, and it is to be looked whether that is so: no page ever came."""
        if self._worked or self.better_url is not None:
            return False
        at_once = len(self._looked_for) < LOOKS and project not in self._looked_for
        if not at_once and 0.0 <= now - self._looked_at < LOOK_EVERY:
            return False
        if at_once:
            self._looked_for.add(project)
        self._looked_at = now
        return True

    def in_vain(self, project: str) -> None:
        """Neither JSON nor HTML was answered for *project*."""
        if len(self._in_vain) < FEW:
            self._in_vain.add(project)

    def worked(self, now: float, *, html: bool) -> None:
        """A page came, in answer to a request for JSON or, *html*, to one for HTML where one for JSON fails."""
        self.better_url = None
        if html:
            self._html_until = now + REMEMBERED_FOR
        else:
            self._worked = True
