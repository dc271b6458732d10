"""The HTTP headers with the state of a client's quota.

`RateLimit-Policy` and `RateLimit` are defined by draft-ietf-httpapi-ratelimit-headers. The `X-RateLimit-*`
headers are older, and `X-RateLimit-Reset` is Unix time. All numbers are whole.
"""

import math
from typing import TypeAlias

from .options import Quota
from .store import Decision

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, each with its value: the form of ASGI."""


class QuotaHeaders:
    """Writes the headers of one quota.

    Args:
        name: Names the quota to clients: printable ASCII without quotes and backslashes, not empty.
        quota: The quota.

    Attributes:
        quota: The quota of the headers.
        policy: The `RateLimit-Policy` header, for a response without a decision.

    Raises:
        ValueError: The name contains a character that the header cannot carry, or is empty.
    """

    def __init__(self, name: str, quota: Quota) -> None:
        if not (name.isascii() and name.isprintable() and name) or '"' in name or "\\" in name:
            raise ValueError(f"name must be printable ASCII without quotes and backslashes, not {name!r}")
        self.quota = quota
        policy = f'"{name}";q={quota.limit};w={quota.window_seconds:g}'
        self.policy = (b"ratelimit-policy", policy.encode("ascii"))
        self._name = name.encode("ascii")
        self._limit = (b"x-ratelimit-limit", b"%d" % quota.limit)

    def of_decision(self, decision: Decision, now: float) -> Headers:
        """Return the headers for `decision`, which was made at `now`, as Unix time in seconds."""
        return self.of_figures(*figures(decision, now))

    def of_figures(self, remaining: int, reset_seconds: int, resets_at: int) -> Headers:
        """Return the headers for the numbers that `figures` returns."""
        return (
            self.policy,
            (b"ratelimit", b'"%s";r=%d;t=%d' % (self._name, remaining, reset_seconds)),
            self._limit,
            (b"x-ratelimit-remaining", b"%d" % remaining),
            (b"x-ratelimit-reset", b"%d" % resets_at),
        )


def figures(decision: Decision, now: float) -> tuple[int, int, int]:
    """Return the remaining units, the seconds until all units are free, and the Unix time of that moment.

    All three are those of the quota that limits most.
    """
    reset_after = decision.reset_after
    for part in decision.parts:
        if part.quota is decision.quota:
            reset_after = part.reset_after
    return decision.remaining, math.ceil(reset_after), math.ceil(now + reset_after)
