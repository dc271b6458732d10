"""All access of the service to Redis."""
