"""One request: connections, addresses, TLS, bodies, and what can go wrong on the way."""
