"""The use cases, and the ports that storage implements."""
