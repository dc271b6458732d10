"""The rules for using an answer again, read from its headers (RFC 9111).

An answer is *fresh* while its age is below the lifetime that it states, and *stale* afterwards. Where RFC
9111 leaves a choice, this module makes the stricter one:

- An invalid value of a directive counts as 0, and of several values the lowest counts (section 4.2.1).
- A directive that is limited to some fields (`no-cache="set-cookie"`) counts as one for the whole answer.
- An answer with `must-revalidate` or `proxy-revalidate` that states no lifetime has a lifetime of 0.
- `Pragma: no-cache` counts as `Cache-Control: no-cache` in answers, too, if there is no `Cache-Control`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from src.resilience.http.http_date import http_date
from src.services.proxy.headers import SHARED_BY, Headers, first, listed, values

MAX_SECONDS = 2**31
"""The longest duration in a header. A longer one counts as this (RFC 9111, section 1.2.2)."""

_DIRECTIVE = re.compile(rb'([^\s",;=]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",;]*))?')
_SECONDS = re.compile(rb"\s*0*([0-9]+)\s*\Z")

_ONE_REQUEST = frozenset({b"private", b"no-store", b"no-cache"})
"""Directives by which an answer must not go to another request, even if that waits for the same call (RFC
9111, sections 5.2.2.4, 5.2.2.5 and 5.2.2.7)."""

_NEVER_STALE = frozenset({b"must-revalidate", b"proxy-revalidate", b"s-maxage"})
"""Directives that forbid a stale copy even if the upstream is unreachable (RFC 9111, section 4.2.4)."""


@dataclass(frozen=True, slots=True)
class ReuseRules:
    """The rules for using one answer again.

    Attributes:
        is_shared: Whether the answer may go to other callers of the same request: to those who wait for the
            same call, and, from a copy, to those who come later.
        generated_at: The time when the age of the answer was 0, as a monotonic reading in seconds.
        lifetime_seconds: The age from which the answer is stale; infinite if the answer states no lifetime.
        is_stale_allowed: Whether a stale copy may take the place of an error.
    """

    is_shared: bool = True
    generated_at: float = 0.0
    lifetime_seconds: float = math.inf
    is_stale_allowed: bool = True


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """The limits of fresh copies for one request. They do not apply to a stale copy in place of an error.

    Attributes:
        max_age_seconds: A copy must be younger; 0 accepts none.
        min_fresh_seconds: A copy must stay fresh for longer.
    """

    max_age_seconds: float = math.inf
    min_fresh_seconds: float = 0.0


def reuse_rules(headers: Headers, *, now: float, sent_at: float, received_at: float) -> ReuseRules:
    """Return how an answer with `headers` may be used again.

    Args:
        headers: All headers of the answer, also those that are not passed on.
        now: Unix time when its head was received, in seconds.
        sent_at: The time of the request, as a monotonic reading in seconds.
        received_at: The time of the head, as a monotonic reading in seconds.
    """
    directives = _directives(headers)
    varies = listed(headers, b"vary") - SHARED_BY - {b"accept-encoding"}  # always sent with the same value
    is_for_all = not varies and first(headers, b"set-cookie") is None
    is_shared = is_for_all and not directives.keys() & _ONE_REQUEST
    return ReuseRules(
        is_shared,
        received_at - _age(headers, now, received_at - sent_at),
        _lifetime(headers, directives, now),
        not directives.keys() & _NEVER_STALE,
    )


def copy_limits(headers: Headers) -> CopyLimits:
    """Return which copies a request with `headers` accepts."""
    directives = _directives(headers)
    if b"no-cache" in directives:
        return CopyLimits(max_age_seconds=0)
    max_age, min_fresh = (_seconds(directives, name) for name in (b"max-age", b"min-fresh"))
    return CopyLimits(math.inf if max_age is None else max_age, min_fresh or 0)


def forbids_storing(headers: Headers) -> bool:
    """Return whether a request with `headers` forbids that its answer is kept."""
    return b"no-store" in _directives(headers)


def _age(headers: Headers, now: float, delay_seconds: float) -> float:
    """Return the age of an answer (RFC 9111, section 4.2.3)."""
    date = _date(first(headers, b"date") or b"")
    apparent = 0.0 if date is None else now - date
    stated = _whole_seconds((first(headers, b"age") or b"").partition(b",")[0])
    return max(apparent, (stated or 0) + delay_seconds)  # an invalid age is ignored


def _lifetime(headers: Headers, directives: Mapping[bytes, list[bytes]], now: float) -> float:
    """Return the lifetime of an answer (RFC 9111, section 4.2.1)."""
    for name in (b"s-maxage", b"max-age"):
        if (seconds := _seconds(directives, name)) is not None:
            return seconds
    if expires := values(headers, b"expires"):
        date = _date(first(headers, b"date") or b"")
        until = min(-math.inf if (end := _date(value)) is None else end for value in expires)
        return until - (now if date is None else date)
    return 0 if directives.keys() & _NEVER_STALE else math.inf


def _directives(headers: Headers) -> dict[bytes, list[bytes]]:
    """Return the values of each Cache-Control directive, by its name in lower case."""
    stated = values(headers, b"cache-control")
    if not stated and b"no-cache" in listed(headers, b"pragma"):
        stated = [b"no-cache"]
    found: dict[bytes, list[bytes]] = {}
    for name, value in chain.from_iterable(map(_DIRECTIVE.findall, stated)):
        found.setdefault(name.lower(), []).append(value.strip(b'"'))
    return found


def _seconds(directives: Mapping[bytes, list[bytes]], name: bytes) -> int | None:
    """Return the duration that a directive states; None if there is no such directive."""
    if name not in directives:
        return None
    return min(_whole_seconds(value) or 0 for value in directives[name])


def _whole_seconds(value: bytes) -> int | None:
    """Return a duration in whole seconds; None if `value` is invalid."""
    digits = _SECONDS.match(value)
    return None if digits is None else min(int(digits[1][:20]), MAX_SECONDS)


def _date(value: bytes) -> float | None:
    return http_date(value.decode("latin-1"))
