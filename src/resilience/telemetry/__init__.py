"""Listeners that hand the events of the policies to OpenTelemetry and to Prometheus, a module each."""

DURATION_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the buckets in which both count durations, unless others are given."""
