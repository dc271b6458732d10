"""Retry: run a failed call again, after a while, a limited number of times.

Three things bound it: the number of attempts, the time they may take together, and, if there is a budget,
the share of calls that may be retried, so that retries do not become the load which keeps a struggling
service down.

The backoffs say how long to wait. With many callers, take one with jitter: without it all who failed
together come back together. Formulas and names are those of Marc Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from .clock import Clock, Randomizer
from .events import Listener, Retried, RetriesExhausted, ignore, notify
from .policy import Call, is_misuse, require_async

T = TypeVar("T")


def _require_seconds(option: str, seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{option} must be finite and above 0, not {seconds}")


class Backoff(Protocol):
    """How long to wait before the next attempt."""

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return a number of seconds, at least 0.

        Args:
            attempt: Number of the attempt that failed, from 1.
            previous: What this backoff returned for the attempt before; 0 for the first.
            randomizer: Draws the lots, where there are any.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same wait every time: `seconds`, at least 0."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds must be finite and at least 0, not {self.seconds}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return `seconds`."""
        return self.seconds


IMMEDIATE: Final = Fixed(0.0)
"""No wait at all."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Waits that grow by `step_seconds` each time, up to `cap_seconds`; both above 0."""

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
    """Waits that grow by a factor each time.

    Attributes:
        base_seconds: The first wait, above 0.
        cap_seconds: The longest wait, above 0.
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
        except OverflowError:  # past the largest float there is, and so past the cap
            return self.cap_seconds


@dataclass(frozen=True, slots=True)
class FullJitter:
    """Anything from no wait to what `backoff` says. Spreads callers best."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return uniform(0, backoff)."""
        return randomizer.random() * self.backoff.delay(attempt, previous, randomizer)


@dataclass(frozen=True, slots=True)
class EqualJitter:
    """Anything from half to all of what `backoff` says, for where some wait is a must."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return backoff / 2 + uniform(0, backoff / 2)."""
        half = self.backoff.delay(attempt, previous, randomizer) / 2
        return half + randomizer.random() * half


@dataclass(frozen=True, slots=True)
class DecorrelatedJitter:
    """Anything from `base_seconds` to thrice the wait before, up to `cap_seconds`; both above 0."""

    base_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        _require_seconds("base_seconds", self.base_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, uniform(base, 3 · previous)), where the first wait takes base as the previous."""
        longest = 3 * max(previous, self.base_seconds)
        return min(self.cap_seconds, self.base_seconds + randomizer.random() * (longest - self.base_seconds))


class RetryBudget:
    """Limits retries to a share of calls, however many calls fail.

    A bucket holds up to `reserve` tokens and starts full. Every call adds `share` of one, every retry takes
    one, and where there is none there is no retry: over n calls there are at most `reserve + share · n`
    retries. One budget may serve several policies. The idea is that of Finagle's `RetryBudget`.

    Args:
        share: Retries to calls in the long run, above 0 and at most 1.
        reserve: Retries that few calls may still have, at least 1.
    """

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        if not 1 <= reserve < math.inf:
            raise ValueError(f"reserve must be finite and at least 1, not {reserve}")
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def count_call(self) -> None:
        """Note that a call has begun."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def take_retry(self) -> bool:
        """Return whether there may be a retry now; if so it is paid for."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back_retry(self) -> None:
        """Take back what was paid for a retry that was not made: its caller was cancelled while it waited."""
        self._tokens = min(self._reserve, self._tokens + 1)


def every_error(_error: Exception) -> bool:
    """Say yes to any error."""
    return True


def no_error(_error: Exception) -> bool:
    """Say no to any error."""
    return False


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """When to try again.

    Attributes:
        attempts: How many attempts in all, the first included; at least 1.
        total_seconds: Time since the first attempt began after which none is begun any more; finite, above 0.
            It stops no attempt that is under way: that is for a timeout inside.
        backoff: How long to wait between attempts.
        retry_on: Which errors are worth another attempt.
        abort_on: Which of those are not after all.
    """

    attempts: int = 3
    total_seconds: float = 30.0
    backoff: Backoff = FullJitter(Exponential(base_seconds=0.1, cap_seconds=5.0))
    retry_on: Callable[[Exception], bool] = every_error
    abort_on: Callable[[Exception], bool] = no_error

    def __post_init__(self) -> None:
        if not self.attempts >= 1:
            raise ValueError(f"attempts must be at least 1, not {self.attempts}")
        _require_seconds("total_seconds", self.total_seconds)


class Retry:
    """The policy.

    An error with a number of seconds as its `retry_after` is never retried sooner. A cancellation is not an
    error and never retried.

    Args:
        options: When to try again.
        clock: Measures and waits.
        randomizer: Draws the jitter.
        budget: Further limits retries; None for no such limit.
        name: What events call this policy.
        listener: Told of every failed attempt that could have been retried.
    """

    def __init__(
        self,
        options: RetryOptions,
        clock: Clock,
        randomizer: Randomizer,
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

    async def run(self, call: Call[T]) -> T:
        """Run `call` until it succeeds.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the last attempt, as it came.
        """
        require_async(call)
        if self._budget is not None:
            self._budget.count_call()
        began = self._clock.monotonic()
        attempt = 1
        wait = 0.0
        while True:
            try:
                return await call()
            except Exception as error:
                if is_misuse(error) or not self._options.retry_on(error) or self._options.abort_on(error):
                    raise
                wait = self._options.backoff.delay(attempt, wait, self._randomizer)
                delay = _no_sooner_than_asked(wait, error)
                elapsed = self._clock.monotonic() - began
                if not self._may_go_on(attempt, elapsed + delay):
                    notify(self._listener, RetriesExhausted(policy=self.name, attempts=attempt, error=error))
                    raise
                notify(self._listener, Retried(policy=self.name, attempt=attempt, delay=delay, error=error))
            await self._wait(delay)
            attempt += 1

    async def _wait(self, seconds: float) -> None:
        try:
            await self._clock.sleep(seconds)
        except BaseException:
            if self._budget is not None:
                self._budget.give_back_retry()
            raise

    def _may_go_on(self, attempts: int, next_begins: float) -> bool:
        if attempts >= self._options.attempts or next_begins >= self._options.total_seconds:
            return False
        return self._budget is None or self._budget.take_retry()


def _no_sooner_than_asked(wait: float, error: Exception) -> float:
    asked = getattr(error, "retry_after", None)
    # Written so that NaN, which compares false, asks for nothing.
    return float(asked) if isinstance(asked, (int, float)) and asked > wait else wait
