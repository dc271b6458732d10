"""The options of a circuit breaker: when it opens, how long it stays open, and when it closes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

DEFAULT_FAILURE_THRESHOLD = 5
SHORTEST_RENEWAL_SECONDS = 1.0
OPENINGS_COMPUTED = 20
"""The number of openings in a row for which `open_seconds_of` is called. Further openings use the last
time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions:
    """The options. Every duration is in seconds, finite, and at least 0.001.

    The breaker opens as soon as one of the four rules applies: `failure_threshold`, `failures_in_window`,
    `failure_rate_threshold` or `slow_call_rate_threshold`. A rule that is None is off.

    Attributes:
        failure_threshold: The number of failures in a row that opens the breaker, at least 1. The time
            between these failures does not matter. None: 5 if no other rule is set; otherwise this rule is
            off.
        failures_in_window: The number of failures in the window that opens the breaker, at least 1.
        failure_rate_threshold: The share of failed calls in the window that opens the breaker, in (0, 1].
        slow_call_rate_threshold: The share of slow calls in the window that opens the breaker, in (0, 1]. If
            this rule is set, a slow probe counts as failed.
        slow_call_seconds: The duration from which a call is slow. Set it together with
            `slow_call_rate_threshold`.
        window_calls: The length of the window in calls, at least 1. It is ignored if `window_seconds` is set.
        window_seconds: The length of the window in seconds, exact to a tenth. None: `window_calls` applies.
        minimum_calls: The smallest number of calls in the window at which the two shares apply, at least 1.
        open_seconds: The time for which the breaker stays open.
        open_seconds_factor: The factor by which the open time grows after each failed probing, at least 1.
        open_seconds_max: The longest open time. It is required if the factor is above 1.
        open_seconds_of: Returns the open time, and replaces the three options above. The argument is 1 for
            the first opening, 2 if the first probing failed, and so on. When the options are created, it is
            called for 1 to `OPENINGS_COMPUTED`.
        half_open_permits: The number of calls that a half-open breaker admits as probes, at least 1. It
            rejects all other calls.
        half_open_successes: The number of probes that must succeed, from 1 to `half_open_permits`. None:
            `half_open_success_rate` applies, or all probes must succeed.
        half_open_success_rate: The share of probes that must succeed, in (0, 1], rounded up to whole probes.
            It cannot be combined with `half_open_successes`.
        probe_lease_seconds: The longest time for which a probe keeps its permit. It should exceed the longest
            call. If the process of a probe dies, its permit is free after `probe_renewal_seconds`.

    Raises:
        ValueError: An option is out of its range. The message begins with the name of the option.
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
        """The number of failures in a row that opens the breaker. None: this rule is off."""
        others = (self.failures_in_window, self.failure_rate_threshold, self.slow_call_rate_threshold)
        if self.failure_threshold is None and all(rule is None for rule in others):
            return DEFAULT_FAILURE_THRESHOLD
        return self.failure_threshold

    def open_seconds_at(self, opening: int) -> float:
        """Return the open time in seconds of the `opening`-th opening in a row, counted from 1."""
        if self.open_lengths:
            return self.open_lengths[min(opening, OPENINGS_COMPUTED) - 1]
        try:
            length = self.open_seconds * self.open_seconds_factor ** (opening - 1)
        except OverflowError:  # the time is above the largest float, and so above the maximum
            length = math.inf
        return min(length, self.open_seconds_max or math.inf)

    @property
    def probe_renewal_seconds(self) -> float:
        """The length of a probe's lease in seconds. Each renewal starts it again.

        It is at most the open time: a probe whose process died delays recovery no longer than a failed probe.
        It is at least `SHORTEST_RENEWAL_SECONDS` if `probe_lease_seconds` allows, so that a worker can renew
        it in time.
        """
        return min(self.probe_lease_seconds, max(self.open_seconds_at(1), SHORTEST_RENEWAL_SECONDS))

    @property
    def successes_to_close(self) -> int:
        """The number of probes that must succeed before the breaker closes."""
        if self.half_open_success_rate is not None:
            # The factor corrects rounding: 0.07 * 100 is 7.000000000000001, which would be rounded up to 8.
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
