"""The Redis forms of the resilience patterns."""
