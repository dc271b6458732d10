"""Resilience events: all workers write them to one log, and followers read the log."""
