"""Mechanisms that every floor above may use: single flight, worker threads, clocks."""
