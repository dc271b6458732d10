"""The read-through cache."""
