"""The state of the whole service, over all workers."""
