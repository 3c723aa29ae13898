"""Upstreams: how they are asked, how healthy they are, and how several of them are one."""
