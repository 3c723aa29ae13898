"""Makes ``twistd pypiproxy`` known to twistd."""

from twisted.application.service import ServiceMaker

pypiproxy = ServiceMaker(
    "pypiproxy",
    "proxy.tap",
    "A caching pull-through proxy for Python package indexes.",
    "pypiproxy",
)
