"""Repositories: what exists on an index and may be seen there."""
