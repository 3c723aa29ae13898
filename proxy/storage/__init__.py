"""Stores: where records and files are kept."""
