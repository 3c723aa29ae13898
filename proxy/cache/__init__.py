"""The cache: pages and files, each a store, a flight, a freshness rule and an upstream put together."""
