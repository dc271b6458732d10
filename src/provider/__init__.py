"""The simulated external service: a program of its own that fails on command."""
