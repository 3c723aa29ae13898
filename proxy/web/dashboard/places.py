"""Where the dashboard is, for who asks whether a path is its own."""

from __future__ import annotations

#: What is below ``/-/``, by its first segment.
PLACES = frozenset({"static", "events", "setup", "search", "project", "login", "logout", "act"})
#: What forms are sent to.
POSTED = frozenset({("login",), ("logout",), ("act",)})
