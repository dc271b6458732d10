"""Retry: run a failed call again, after a delay, a limited number of times.

Retries are limited by the number of attempts, by the time of all attempts together, and, with a budget, by
the share of calls that may be retried, so that retries do not overload a service which is already failing.

A call fails if it raises an error, or if it returns a result that `is_failure_result` judges a failure. When
no attempt is left, the caller gets the last outcome unchanged: the error is raised, the result is returned.
(Polly and resilience4j do the same.)

A backoff determines the delay. With many callers, use a backoff with jitter: without it all callers that
failed together also retry together. Formulas and names are those of Marc Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

from .building_blocks.outcomes import report_outcomes
from .clock import SYSTEM_CLOCK, SYSTEM_RANDOMIZER, Clock, Randomizer
from .errors import FailedResultError
from .events import Listener, Retried, RetriesExhausted, ignore, notify
from .policy import Call, ResultJudge, SyncPolicy, is_misuse, override, require_async

T = TypeVar("T")


def _require_seconds(option: str, seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{option} must be finite and above 0, not {seconds}")


class Backoff(Protocol):
    """Determines the delay before the next attempt."""

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return a number of seconds, at least 0.

        Args:
            attempt: The number of the attempt that failed, from 1.
            previous: The delay that this backoff returned for the attempt before; 0 for the first.
            randomizer: Draws the random numbers of a backoff with jitter.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same delay every time: `seconds`, at least 0."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds must be finite and at least 0, not {self.seconds}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return `seconds`."""
        return self.seconds


IMMEDIATE: Final = Fixed(0.0)
"""No delay."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Delays that grow by `step_seconds` each time, up to `cap_seconds`; both above 0."""

    step_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        _require_seconds("step_seconds", self.step_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, step · attempt)."""
        return min(self.cap_seconds, self.step_seconds * attempt)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Delays that grow by a factor each time.

    Attributes:
        base_seconds: The first delay, above 0.
        cap_seconds: The longest delay, above 0.
        factor: At least 1.
    """

    base_seconds: float
    cap_seconds: float
    factor: float = 2.0

    def __post_init__(self) -> None:
        _require_seconds("base_seconds", self.base_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor must be finite and at least 1, not {self.factor}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, base · factor^(attempt - 1))."""
        try:
            return min(self.cap_seconds, self.base_seconds * self.factor ** (attempt - 1))
        except OverflowError:  # above the largest float, and so above the cap
            return self.cap_seconds


@dataclass(frozen=True, slots=True)
class FullJitter:
    """A random delay from 0 to that of `backoff`. Distributes callers best."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return uniform(0, backoff)."""
        return randomizer.random() * self.backoff.delay(attempt, previous, randomizer)


@dataclass(frozen=True, slots=True)
class EqualJitter:
    """A random delay from half of that of `backoff` to all of it, where some delay is needed."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return backoff / 2 + uniform(0, backoff / 2)."""
        half = self.backoff.delay(attempt, previous, randomizer) / 2
        return half + randomizer.random() * half


@dataclass(frozen=True, slots=True)
class JitterAround:
    """A wait around what `backoff` returns: up to `share` of it less or more; `share` in (0, 1].

    The jitter of resilience4j (`randomizationFactor`), failsafe-go (`WithJitterFactor`) and Polly (25 %).
    """

    backoff: Backoff
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return uniform(backoff · (1 - share), backoff · (1 + share))."""
        factor = 1 + self.share * (2 * randomizer.random() - 1)
        return factor * self.backoff.delay(attempt, previous, randomizer)


@dataclass(frozen=True, slots=True)
class DecorrelatedJitter:
    """A random delay from `base_seconds` to three times the previous, up to `cap_seconds`; both above 0."""

    base_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        _require_seconds("base_seconds", self.base_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, uniform(base, 3 · previous)), where base is the previous delay of the first."""
        longest = 3 * max(previous, self.base_seconds)
        return min(self.cap_seconds, self.base_seconds + randomizer.random() * (longest - self.base_seconds))


class RetryBudget:
    """Limits retries to a share of calls, however many calls fail.

    A bucket holds up to `reserve` tokens and starts full. Every call adds `share` of a token, every retry
    takes one token, and without a token there is no retry: n calls make at most `reserve + share · n`
    retries. Several policies, event loops and threads can share one budget. The idea is that of Finagle's
    `RetryBudget`.

    Args:
        share: The long-term share of retries in calls, above 0 and at most 1.
        reserve: The number of retries that are possible after few calls, at least 1.
    """

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        if not 1 <= reserve < math.inf:
            raise ValueError(f"reserve must be finite and at least 1, not {reserve}")
        self._share = share
        self._reserve = reserve
        self._tokens = reserve
        self._lock = threading.RLock()  # reentrant: garbage collection may close a coroutine

    def count_call(self) -> None:
        """Count a call that has begun."""
        self._add(self._share)

    def take_retry(self) -> bool:
        """Return whether a retry is possible now; if so, take its token."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def give_back_retry(self) -> None:
        """Give back the token of a retry that was not made since its caller was cancelled."""
        self._add(1)

    def _add(self, tokens: float) -> None:
        with self._lock:
            self._tokens = min(self._reserve, self._tokens + tokens)


def every_error(_error: Exception) -> bool:
    """Return True for any error."""
    return True


def no_error(_error: Exception) -> bool:
    """Return False for any error."""
    return False


def at_least_retry_after(outcome: object, wait: float) -> float:
    """Return `wait`, or the `retry_after` of `outcome` in seconds where that is longer."""
    retry_after = getattr(outcome, "retry_after", None)
    # Written so that NaN, which compares false, has no effect.
    return float(retry_after) if isinstance(retry_after, (int, float)) and retry_after > wait else wait


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """When to retry.

    Attributes:
        attempts: The number of all attempts, the first included; at least 1.
        total_seconds: Time since the first attempt began after which no further attempt begins; finite, above
            0. It stops no attempt under way; a timeout inside the retry does that.
        backoff: Determines the delay between attempts.
        delay_of: Returns the delay before the next attempt in seconds, at least 0, from the error or the
            failed result of an attempt, and from what `backoff` returned.
        retry_on: Returns whether an error is retried.
        abort_on: Returns whether an error is not retried although `retry_on` says so.
        is_failure_result: Returns whether a result counts as a failure and is retried; None: no result does.
    """

    attempts: int = 3
    total_seconds: float = 30.0
    backoff: Backoff = FullJitter(Exponential(base_seconds=0.1, cap_seconds=5.0))
    delay_of: Callable[[object, float], float] = at_least_retry_after
    retry_on: Callable[[Exception], bool] = every_error
    abort_on: Callable[[Exception], bool] = no_error
    is_failure_result: ResultJudge | None = None

    def __post_init__(self) -> None:
        if not self.attempts >= 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        _require_seconds("total_seconds", self.total_seconds)


_DEFAULT_OPTIONS: Final = RetryOptions()


class Retry(SyncPolicy):
    """The policy.

    An error or a result whose `retry_after` is a number of seconds is not retried sooner, unless `delay_of`
    says otherwise. A cancellation is not an error and is never retried.

    Args:
        options: When to retry.
        clock: Measures the time and waits.
        randomizer: Draws the jitter.
        budget: Limits retries further; None for no such limit.
        name: The policy's name in events.
        listener: Receives `Retried` or `RetriesExhausted` for each failed attempt that the options would
            retry.
    """

    def __init__(
        self,
        options: RetryOptions = _DEFAULT_OPTIONS,
        clock: Clock = SYSTEM_CLOCK,
        randomizer: Randomizer = SYSTEM_RANDOMIZER,
        *,
        budget: RetryBudget | None = None,
        name: str = "retry",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._options = options
        self._clock = clock
        self._randomizer = randomizer
        self._budget = budget
        self._listener = listener
        report_outcomes(self, clock, listener, is_failure_result=options.is_failure_result)

    def with_options(self, *, attempts: int | None = None, total_seconds: float | None = None) -> Self:
        """Return this retry, with the same budget, with other limits.

        Raises:
            ValueError: A value is out of its range.
        """
        return self._derive(_options=override(self._options, attempts=attempts, total_seconds=total_seconds))

    async def run(self, call: Call[T]) -> T:
        """Run `call` until it succeeds.

        Returns:
            The result of the last attempt, also where that counts as a failure and no attempt is left.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the last attempt, unchanged.
        """
        require_async(call)
        if self._budget is not None:
            self._budget.count_call()
        is_failure_result = self._options.is_failure_result
        began = self._clock.monotonic()
        attempt = 1
        wait = 0.0
        while True:
            try:
                result = await call()
            except Exception as error:
                if is_misuse(error) or not self._options.retry_on(error) or self._options.abort_on(error):
                    raise
                wait = self._options.backoff.delay(attempt, wait, self._randomizer)
                delay = self._options.delay_of(error, wait)
                if not self._may_go_on(attempt, began, delay, error):
                    raise
            else:
                if is_failure_result is None or not is_failure_result(result):
                    return result
                wait = self._options.backoff.delay(attempt, wait, self._randomizer)
                delay = self._options.delay_of(result, wait)
                if not self._may_go_on(attempt, began, delay, FailedResultError(result)):
                    return result
            await self._wait(delay)
            attempt += 1

    async def _wait(self, seconds: float) -> None:
        try:
            await self._clock.sleep(seconds)
        except BaseException:
            if self._budget is not None:
                self._budget.give_back_retry()
            raise

    def _may_go_on(self, attempt: int, began: float, delay: float, error: Exception) -> bool:
        """Return whether there is another attempt, and report the decision."""
        ends_at = began + self._options.total_seconds
        if (
            attempt >= self._options.attempts
            or self._clock.monotonic() + delay >= ends_at
            or not (self._budget is None or self._budget.take_retry())
        ):
            notify(self._listener, RetriesExhausted(policy=self.name, attempts=attempt, error=error))
            return False
        notify(self._listener, Retried(policy=self.name, attempt=attempt, delay=delay, error=error))
        return True
