"""The admission of requests."""
