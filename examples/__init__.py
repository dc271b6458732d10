"""Examples of the patterns. Run them from the checkout, for example `python examples/circuit_breaker.py`.

They need neither Redis nor a network. They run in simulated time, so that each ends at once.
"""
