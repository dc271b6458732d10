"""The embedded server: a private redis-server in a child process (`REDIS_URL=embedded://`)."""
