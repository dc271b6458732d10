"""The access of callers to endpoints."""
