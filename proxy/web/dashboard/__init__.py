"""The dashboard: what the proxy is doing, for people, at ``/`` and below ``/-/``."""
