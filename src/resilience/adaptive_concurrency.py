"""Adaptive concurrency: a bulkhead whose limit adapts to the service.

The number of calls that a service can process at once is seldom known, and it changes with the service. Below
that number, more concurrent calls give more answers per second. Above it, calls only wait in the service.
Therefore the limit changes like the congestion window of TCP: it is raised while calls succeed, and lowered
when they fail. (Netflix's concurrency-limits use the same idea, which is based on Little's law.)

Calls are evaluated in rounds. A round has as many calls as the limit allows at once. A `LimitAlgorithm`
computes the next limit from a round:

- `Aimd` needs a target for the latency. Begin with this one.
- `Gradient` measures that latency itself. For this purpose it lowers the limit to the minimum for a round at
  regular intervals.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from .building_blocks.outcomes import report_outcomes
from .building_blocks.permit import BlockPolicy
from .clock import SYSTEM_CLOCK, Clock
from .errors import RejectedError
from .events import LimitChanged, Listener, ignore, notify
from .policy import AsyncPartial, Call, ErrorJudge, is_misuse, require_async, require_judge, selects

T = TypeVar("T")


@dataclass(slots=True)
class Round:
    """The outcomes of some calls.

    Attributes:
        seconds: The duration of each call that succeeded.
        failures: The number of calls that failed in a way that indicates overload.
        was_full: Whether at some time as many calls were running as the limit allowed. If not, their
            success is no reason to raise the limit. (RFC 7661 on TCP's window.)
    """

    seconds: list[float] = field(default_factory=list)
    failures: int = 0
    was_full: bool = False

    @property
    def calls(self) -> int:
        """The number of calls in the round."""
        return len(self.seconds) + self.failures


class LimitAlgorithm(Protocol):
    """Computes the next limit from a round. An algorithm with state is for one policy only."""

    def next_limit(self, limit: int, ended: Round) -> float:
        """Return the limit for the next round. The policy rounds it down and keeps it within the bounds.

        Args:
            limit: The limit during the round, at least 1.
            ended: The round, of at least one call. The algorithm must not keep it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Aimd:
    """Additive increase, multiplicative decrease.

    The limit grows by one after a good round, and shrinks by a share after a bad one. By this rule TCP shares
    a connection fairly and does not overload it for long. (Chiu and Jain, "Analysis of the Increase and
    Decrease Algorithms for Congestion Avoidance in Computer Networks", 1989.)

    Attributes:
        target_seconds: A call that takes longer is as bad as a call that fails; finite, above 0.
        tolerance: The share of bad calls that a good round may have, at least 0 and below 1.
        backoff: The factor for the limit after a bad round, above 0 and below 1; by default that of CUBIC
            (RFC 9438).
    """

    target_seconds: float
    tolerance: float = 0.1
    backoff: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.target_seconds < math.inf:
            raise ValueError(f"target_seconds must be finite and above 0, not {self.target_seconds}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be at least 0 and below 1, not {self.tolerance}")
        if not 0 < self.backoff < 1:
            raise ValueError(f"backoff must be above 0 and below 1, not {self.backoff}")

    def next_limit(self, limit: int, ended: Round) -> float:
        """Return limit + 1, limit, or limit · backoff."""
        bad = ended.failures + sum(seconds > self.target_seconds for seconds in ended.seconds)
        if bad > self.tolerance * ended.calls:
            return limit * self.backoff
        return limit + 1 if ended.was_full else limit


class Gradient:
    """Follows the ratio of the latency without load to the present latency.

    The latency without load is measured: for one round, first and then at regular intervals, the limit drops
    to its minimum. After any other round the limit becomes limit · gradient + √(limit · gradient). The
    gradient is (1 + tolerance) · latency without load / present latency, from 0.5 to 2. The root is the short
    queue that keeps a service busy. By this formula the limit does not fall below 2. Formula and measurement
    are those of Envoy's gradient controller (`GradientController::calculateNewLimit`). In addition the
    gradient is multiplied by the share of calls that did not fail, because a rejection is quick. A service
    that is slow during the measurement is considered that slow until the next one.

    Args:
        tolerance: The tolerated increase of the latency over that without load, as a share; finite, at
            least 0.
        probe_every_rounds: Rounds from one measurement to the next, at least 1.
    """

    def __init__(self, tolerance: float = 0.25, probe_every_rounds: int = 100) -> None:
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"tolerance must be finite and at least 0, not {tolerance}")
        if not probe_every_rounds >= 1:
            raise ValueError(f"probe_every_rounds must be at least 1, not {probe_every_rounds}")
        self._tolerance = tolerance
        self._probe_every_rounds = probe_every_rounds
        self._rounds_to_probe = 0
        self._resume_at: int | None = None  # the limit before the running measurement
        self._unloaded_seconds = 0.0

    def next_limit(self, limit: int, ended: Round) -> float:
        """Return the limit by the formula, or 1 to measure."""
        if self._resume_at is not None:
            return self._resume(self._resume_at, ended)
        if self._rounds_to_probe == 0:
            self._resume_at = limit
            return 1
        self._rounds_to_probe -= 1
        wanted = limit * self._gradient(ended)
        wanted += math.sqrt(wanted)
        return wanted if ended.was_full else min(limit, wanted)

    def _resume(self, limit: int, probe: Round) -> int:
        if not probe.seconds:  # every call failed: nothing was measured
            return 1
        self._unloaded_seconds = _mean(probe.seconds)
        self._rounds_to_probe = self._probe_every_rounds
        self._resume_at = None
        return limit

    def _gradient(self, ended: Round) -> float:
        if not ended.seconds:
            return 0.5
        share_succeeded = len(ended.seconds) / ended.calls
        tolerated = self._unloaded_seconds * (1 + self._tolerance) * share_succeeded
        seconds = _mean(ended.seconds)
        # Compare first, since the divisor may be 0: on a coarse clock a call may take no time.
        return 2.0 if tolerated >= 2 * seconds else max(0.5, tolerated / seconds)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


class Resizable(Protocol):
    """A policy that limits the concurrent calls by a limit that can change: a bulkhead."""

    @property
    def permits(self) -> int:
        """The limit of concurrent calls."""
        ...

    @property
    def in_use(self) -> int:
        """The number of running calls."""
        ...

    def resize(self, permits: int) -> None:
        """Change the number of permits."""
        ...

    async def run(self, call: Call[T]) -> T:
        """Run `call` as soon as there is a permit for it."""
        ...


def unless_rejected(error: Exception) -> bool:
    """Return True for any error except a rejection, since a rejected call did not begin."""
    return not isinstance(error, RejectedError)


@dataclass(frozen=True, slots=True)
class AdaptiveConcurrencyOptions:
    """The bounds of the limit, and the outcomes that count.

    Attributes:
        min_limit: The lowest limit, at least 1.
        max_limit: The highest limit, at least `min_limit`.
        round_calls: The smallest number of calls in a round, at least 1, also if the limit is lower. The
            latencies of few calls would vary too much.
        overload_on: The errors that indicate overload: their classes, or a function that returns whether an
            error does. A call with another error is not counted.
    """

    min_limit: int = 1
    max_limit: int = 100
    round_calls: int = 10
    overload_on: ErrorJudge = unless_rejected

    def __post_init__(self) -> None:
        if not self.min_limit >= 1:
            raise ValueError(f"min_limit must be at least 1, not {self.min_limit}")
        if not self.max_limit >= self.min_limit:
            raise ValueError(f"max_limit must be at least min_limit, not {self.max_limit}")
        if not self.round_calls >= 1:
            raise ValueError(f"round_calls must be at least 1, not {self.round_calls}")
        require_judge("overload_on", self.overload_on)


class AdaptiveConcurrency(BlockPolicy):
    """A policy that runs calls in a bulkhead, and adapts the limit of the bulkhead to their latencies.

    A call that began before the limit was last lowered shows the load before that. Such a call is not
    counted, so that one overload does not lower the limit several times. A cancelled call is not counted
    either. The wait for a permit is not part of a call's duration.

    Args:
        options: The bounds of the limit, and the outcomes that count.
        algorithm: Computes the next limit from a round.
        bulkhead: Its permits are the limit. At first they must be within the bounds; only this policy may
            change them later.
        clock: Measures the duration of calls.
        name: The policy's name in events.
        listener: Receives `LimitChanged`.
    """

    def __init__(
        self,
        options: AdaptiveConcurrencyOptions,
        algorithm: LimitAlgorithm,
        bulkhead: Resizable,
        clock: Clock = SYSTEM_CLOCK,
        *,
        name: str = "adaptive-concurrency",
        listener: Listener = ignore,
    ) -> None:
        if not options.min_limit <= bulkhead.permits <= options.max_limit:
            bounds = f"from {options.min_limit} to {options.max_limit}"
            raise ValueError(f"permits must be {bounds} at first, not {bulkhead.permits}")
        self.name = name
        self._options = options
        self._algorithm = algorithm
        self._bulkhead = bulkhead
        self._clock = clock
        self._listener = listener
        self._round = Round()
        self._reductions = 0
        report_outcomes(self, clock, listener)

    @property
    def limit(self) -> int:
        """The limit of concurrent calls."""
        return self._bulkhead.permits

    async def run(self, call: Call[T]) -> T:
        """Run `call` in the bulkhead. Returns and raises what the bulkhead does.

        Raises:
            TypeError: `call` is a plain function; it is not run.
        """
        require_async(call)
        try:
            return await self._bulkhead.run(AsyncPartial(self._watch, call))
        finally:  # not in `_watch`, so that the permit is released before the listener is called
            if self._round.calls >= max(self._options.round_calls, self._bulkhead.permits):
                self._end_round()

    async def _watch(self, call: Call[T]) -> T:
        reductions = self._reductions
        if self._bulkhead.in_use >= self._bulkhead.permits:
            self._round.was_full = True
        began = self._clock.monotonic()
        try:
            answer = await call()
        except Exception as error:
            if reductions == self._reductions and self._indicates_overload(error):
                self._round.failures += 1
            raise
        if reductions == self._reductions:
            self._round.seconds.append(self._clock.monotonic() - began)
        return answer

    def _indicates_overload(self, error: Exception) -> bool:
        return not is_misuse(error) and selects(self._options.overload_on, error)

    def _end_round(self) -> None:
        before = self._bulkhead.permits
        wanted = self._algorithm.next_limit(before, self._round)
        after = int(min(max(wanted, self._options.min_limit), self._options.max_limit))
        self._round = Round()
        if after == before:
            return
        if after < before:
            self._reductions += 1
        self._bulkhead.resize(after)
        notify(self._listener, LimitChanged(policy=self.name, before=before, after=after))
