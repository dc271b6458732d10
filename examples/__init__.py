"""Examples: run each as a module, from the checkout, such as `python -m examples.circuit_breaker`.

None needs Redis, a network or patience: they play in simulated time, where half a minute is over at once.
"""
