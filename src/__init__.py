"""Resilient Analytics API: a metrics service that keeps working when its dependencies fail."""
