"""When a circuit breaker opens, for how long, and when it closes again."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

DEFAULT_FAILURE_THRESHOLD = 5
SHORTEST_RENEWAL_SECONDS = 1.0
OPENINGS_COMPUTED = 20
"""Openings in a row for which `open_seconds_of` is called; its last time holds for all further ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions:
    """When a breaker opens, for how long, and what it takes to close it again.

    Attributes:
        failure_threshold: Opens at this many failures in a row, at least 1. A row never ages. None: 5 if no
            other rule is set; otherwise failures in a row do not open it.
        failures_in_window: Opens at this many failures in the window, at least 1: 5 failures within 60 s, or
            3 of the last 10 calls. None: not by that.
        failure_rate_threshold: Opens at this share of failed calls in the window, in (0, 1]; None: not by
            that.
        slow_call_rate_threshold: Opens at this share of slow calls in the window, in (0, 1]; None: not by
            that. Where it is set, a slow probe does not close the breaker either.
        slow_call_seconds: A call that took this long is slow; set exactly where the rate is.
        window_calls: Length of the window in calls, at least 1, unless `window_seconds` is set.
        window_seconds: Length of the window in seconds, exact to a tenth of it; None: it is told in calls.
        minimum_calls: Calls the window must hold before a rate means anything, at least 1.
        open_seconds: How long the breaker stays open.
        open_seconds_factor: What that grows by each time probing fails, at least 1, which is not at all.
        open_seconds_max: What it grows to; needed with a factor above 1.
        open_seconds_of: Returns how long the breaker stays open, in seconds, in place of the three options
            before: called with 1 for the first opening, 2 for the next one if probing failed, and so on up to
            `OPENINGS_COMPUTED`, once, when the options are made.
        half_open_permits: Calls let through to probe, at least 1; all the others are rejected meanwhile.
        half_open_successes: How many of these must succeed, from 1 to all; None: all, or the share below.
        half_open_success_rate: What share of them must succeed, in (0, 1], rounded up to whole probes; None:
            all, or the number above. Only one of the two can be set.
        probe_lease_seconds: How long a probe may take before its permit goes to another caller. Longer than
            the longest call. If its process dies, that takes no longer than `open_seconds`: see
            `probe_renewal_seconds`.

    Every duration is finite and at least a millisecond.

    Raises:
        ValueError: An option is out of its range; the message begins with its name.
    """

    failure_threshold: int | None = None
    failures_in_window: int | None = None
    failure_rate_threshold: float | None = None
    slow_call_rate_threshold: float | None = None
    slow_call_seconds: float | None = None
    window_calls: int = 100
    window_seconds: float | None = None
    minimum_calls: int = 10
    open_seconds: float = 30.0
    open_seconds_factor: float = 1.0
    open_seconds_max: float | None = None
    open_seconds_of: Callable[[int], float] | None = None
    half_open_permits: int = 1
    half_open_successes: int | None = None
    half_open_success_rate: float | None = None
    probe_lease_seconds: float = 30.0
    open_lengths: tuple[float, ...] = field(init=False, default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.open_seconds_of is not None:
            lengths = tuple(self.open_seconds_of(opening) for opening in range(1, OPENINGS_COMPUTED + 1))
            object.__setattr__(self, "open_lengths", lengths)
            for length in lengths:
                _require(
                    0.001 <= length < math.inf,
                    "open_seconds_of",
                    "must return finite times of at least 0.001",
                )
            _require(
                self.open_seconds_factor == 1,
                "open_seconds_of",
                "and open_seconds_factor exclude one another",
            )
        for counted in _COUNTS:
            value = getattr(self, counted)
            _require(value is None or value >= 1, counted, "must be at least 1")
        for share in _SHARES:
            value = getattr(self, share)
            _require(value is None or 0 < value <= 1, share, "must be above 0 and at most 1")
        for duration in _DURATIONS:
            value = getattr(self, duration)
            _require(value is None or 0.001 <= value < math.inf, duration, "must be finite, at least 0.001")
        _require(
            (self.slow_call_seconds is None) == (self.slow_call_rate_threshold is None),
            "slow_call_seconds",
            "and slow_call_rate_threshold go together",
        )
        _require(
            self.window_seconds is not None or (self.failures_in_window or 1) <= self.window_calls,
            "failures_in_window",
            "must not exceed window_calls",
        )
        has_rate = self.failure_rate_threshold is not None or self.slow_call_rate_threshold is not None
        _require(
            self.window_seconds is not None or not has_rate or self.minimum_calls <= self.window_calls,
            "minimum_calls",
            "must not exceed window_calls",
        )
        _require(
            1 <= self.open_seconds_factor < math.inf, "open_seconds_factor", "must be finite, at least 1"
        )
        _require(
            self.open_seconds_factor == 1 or self.open_seconds_max is not None,
            "open_seconds_max",
            "is needed with open_seconds_factor",
        )
        _require(
            self.open_seconds_max is None or self.open_seconds_max >= self.open_seconds,
            "open_seconds_max",
            "must not be below open_seconds",
        )
        _require(
            self.half_open_successes is None or self.half_open_successes <= self.half_open_permits,
            "half_open_successes",
            "must not exceed half_open_permits",
        )
        _require(
            self.half_open_success_rate is None or self.half_open_successes is None,
            "half_open_success_rate",
            "and half_open_successes exclude one another",
        )

    @property
    def failures_to_open(self) -> int | None:
        """How many failures in a row open the breaker; None: no number of them."""
        others = (self.failures_in_window, self.failure_rate_threshold, self.slow_call_rate_threshold)
        if self.failure_threshold is None and all(rule is None for rule in others):
            return DEFAULT_FAILURE_THRESHOLD
        return self.failure_threshold

    def open_seconds_at(self, opening: int) -> float:
        """Return how long the breaker stays open the `opening`-th time in a row, from 1, in seconds."""
        if self.open_lengths:
            return self.open_lengths[min(opening, OPENINGS_COMPUTED) - 1]
        try:
            grown = self.open_seconds * self.open_seconds_factor ** (opening - 1)
        except OverflowError:  # past the largest float, and so past the maximum
            grown = math.inf
        return min(grown, self.open_seconds_max or math.inf)

    @property
    def probe_renewal_seconds(self) -> float:
        """For how long a probe gets its permit, and again with each renewal, in seconds.

        No longer than the breaker stays open, so that a probe whose process died holds it up no longer than a
        failed one; but a second where that is shorter, since a worker cannot renew in time much sooner.
        """
        return min(self.probe_lease_seconds, max(self.open_seconds_at(1), SHORTEST_RENEWAL_SECONDS))

    @property
    def successes_to_close(self) -> int:
        """How many probes must succeed."""
        if self.half_open_success_rate is not None:
            # A hair less, or 0.07 of 100, which comes to 7.000000000000001, would be 8.
            return math.ceil(self.half_open_success_rate * self.half_open_permits * (1 - 1e-9))
        return self.half_open_successes or self.half_open_permits


_COUNTS = (
    "failure_threshold", "failures_in_window", "window_calls", "minimum_calls", "half_open_permits",
    "half_open_successes",
)  # fmt: skip
_SHARES = ("failure_rate_threshold", "slow_call_rate_threshold", "half_open_success_rate")


_DURATIONS = (
    "slow_call_seconds", "window_seconds", "open_seconds", "open_seconds_max", "probe_lease_seconds",
)  # fmt: skip


def _require(holds: bool, option: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{option} {rule}")
