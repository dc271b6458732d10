"""Which callers may use which endpoints."""
