"""Measures of the proxy beside other servers, on one fake upstream, in one run."""
