"""Measurements from a running service into a file, and from a file into a running service."""
