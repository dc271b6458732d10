"""Stores of the resilience patterns in Redis that batch the requests of one tick of the event loop."""
