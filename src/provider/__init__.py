"""The provider: a simulated external service, in its own process, that fails on command."""
