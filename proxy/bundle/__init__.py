"""Bundles: what a cache holds, in one file that can be carried over an air gap."""
