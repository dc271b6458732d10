"""Resilient Analytics API: a metrics service that keeps standing when what it depends on fails."""
