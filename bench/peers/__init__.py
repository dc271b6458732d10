"""The peers of this API for `python -m bench`.

They do the same work, and follow the documentation of their parts.
"""
