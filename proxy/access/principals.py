"""Principals: who a request comes from."""

from __future__ import annotations

from attrs import frozen


@frozen(slots=True)
class Principal:
    """Someone who asks, by *name*."""

    name: str


#: A client that says nothing of who it is.  As yet every client is this one.
ANONYMOUS = Principal("anonymous")
