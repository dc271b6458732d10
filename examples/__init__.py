"""Examples, run from the checkout by `python examples/circuit_breaker.py`, for instance.

None needs Redis, a network or patience: they play in simulated time, where half a minute is over at once.
"""
