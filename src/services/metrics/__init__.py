"""Metrics in, summaries and lists out."""
