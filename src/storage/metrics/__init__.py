"""Metrics in Redis."""
