"""Resilience patterns for asyncio: small, typed, framework-free.

Each module holds one pattern with its options, its memory form and its events. The patterns know only the
protocols in `policy`, `clock` and `events`; where state must be shared they ask a store, whose Redis form
lives in `src.storage`.
"""
