"""The same work done by others, written from their documentation; `python -m bench` runs them."""
