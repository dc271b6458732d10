"""Listeners that count the events of the policies, for OpenTelemetry and for Prometheus."""

DURATION_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Default upper bounds of the histogram buckets, in seconds, for both listeners."""
