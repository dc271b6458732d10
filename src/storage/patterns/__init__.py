"""The Redis forms of the resilience patterns that batch by tick of the event loop."""
