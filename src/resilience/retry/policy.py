"""Retry: run a failed call again, after a delay, a limited number of times.

Retries are limited by the number of attempts, by the time of all attempts together, and, with a budget, by
the share of calls that may be retried, so that retries do not overload a service which is already failing.

A call fails if it raises an error, or if it returns a result for which `is_failure_result` returns True. When
no attempt is left, the caller gets the last outcome unchanged: the error is raised, the result is returned.
(Polly and resilience4j do the same.)
"""

from typing import Final, Self, TypeVar, cast

from ..building_blocks.outcomes import report_outcomes
from ..clock import SYSTEM_CLOCK, SYSTEM_RANDOMIZER, Clock, Randomizer
from ..errors import AttemptRefusedError, FailedResultError
from ..events import Listener, Retried, RetriesExhausted, ignore, notify
from ..policy import Call, SyncPolicy, is_misuse, override, require_async
from .budget import RetryBudget
from .options import RetryOptions

T = TypeVar("T")

_DEFAULT_OPTIONS: Final = RetryOptions()


class Retry(SyncPolicy):
    """A policy that runs a failed call again.

    An error or a result whose `retry_after` is a number of seconds is not retried sooner, unless `delay_of`
    returns a shorter delay. A cancellation is not an error and is never retried. If the call refuses another
    attempt with an `AttemptRefusedError`, the attempt before was the last.

    Args:
        options: The limits, the delays and the failures that are retried.
        clock: Measures the time, and sleeps.
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
        """Return a copy of this retry with other limits. Both share the budget.

        Raises:
            ValueError: A value is out of its range.
        """
        return self._derive(_options=override(self._options, attempts=attempts, total_seconds=total_seconds))

    async def run(self, call: Call[T]) -> T:
        """Run `call` until it succeeds.

        Returns:
            The result of the last attempt, even if it counts as a failure.

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
        failure: Exception | None = None  # of the attempt before
        try:
            while True:
                try:
                    result = await call()
                except AttemptRefusedError as refusal:
                    return cast("T", self._outcome_before(refusal, attempt, failure))
                except Exception as error:
                    if is_misuse(error) or not self._options.retries(error):
                        raise
                    wait = self._options.backoff.delay(attempt, wait, self._randomizer)
                    delay = self._options.delay_of(error, wait)
                    if not self._may_go_on(attempt, began, delay, error):
                        raise
                    failure = error
                else:
                    if is_failure_result is None or not is_failure_result(result):
                        return result
                    wait = self._options.backoff.delay(attempt, wait, self._randomizer)
                    delay = self._options.delay_of(result, wait)
                    failure = FailedResultError(result)
                    if not self._may_go_on(attempt, began, delay, failure):
                        return result
                await self._wait(delay)
                attempt += 1
        finally:
            del failure  # its traceback refers to this frame

    async def _wait(self, seconds: float) -> None:
        try:
            await self._clock.sleep(seconds)
        except BaseException:
            self._give_back_retry()
            raise

    def _give_back_retry(self) -> None:
        if self._budget is not None:
            self._budget.give_back_retry()

    def _outcome_before(
        self, refusal: AttemptRefusedError, attempt: int, failure: Exception | None
    ) -> object:
        """Return the result, or raise the error, of the attempt before `attempt`, which the call refused."""
        if failure is None:
            raise refusal
        self._give_back_retry()
        notify(self._listener, RetriesExhausted(policy=self.name, attempts=attempt - 1, error=failure))
        if isinstance(failure, FailedResultError) and failure.__traceback__ is None:  # it was never raised
            return failure.result
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context  # and not the refusal
            del failure

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
