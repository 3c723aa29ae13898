"""pypiproxy: a caching pull-through proxy for Python package indexes, made for CI farms."""

__version__ = "0.1.0"
