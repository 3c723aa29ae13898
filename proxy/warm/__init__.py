"""Filling a proxy's cache before builds ask for it: a client of the proxy that asks for what builds will ask for."""
