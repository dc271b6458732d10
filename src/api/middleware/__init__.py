"""Pure ASGI middleware, one to a file."""
