"""The circuit breaker: stops calls to a failing service, and detects its recovery with few calls.

`CircuitBreaker` runs the calls that its store admits, classifies their outcomes, and sends events. The
`BreakerStore` holds the state and decides, so that several workers can share one breaker.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from ..building_blocks.lease import LeaseRenewal
from ..building_blocks.outcomes import report_outcomes
from ..building_blocks.permit import BlockPolicy
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import CircuitOpenError, FailedResultError, RejectedError
from ..events import (
    Listener,
    OutcomeLost,
    ProbeStarted,
    Rejected,
    StateChanged,
    WouldHaveOpened,
    ignore,
    notify,
)
from ..policy import Call, ErrorKinds, ResultJudge, SyncPolicy, is_misuse, require_async, require_judge
from .options import CircuitBreakerOptions
from .store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    ManualState,
    Refusal,
    Ticket,
    Transition,
    WouldOpen,
)

T = TypeVar("T")


_DEFAULT_OPTIONS: Final = CircuitBreakerOptions()


def any_error_fails(error: Exception) -> bool | None:
    """Return True (a failure) for every error, except None (neither) for a rejection by an inner policy."""
    return None if isinstance(error, RejectedError) else True


def _only(kinds: ErrorKinds) -> Callable[[Exception], bool | None]:
    """Return a judge to whom these errors are failures, and others successes unless they are rejections."""
    return lambda error: isinstance(error, kinds) or (None if isinstance(error, RejectedError) else False)


class CircuitBreaker(BlockPolicy, SyncPolicy):
    """Runs calls while the service is healthy, and rejects them while it is not.

    Args:
        name: The breaker's name in its store, in events and in errors.
        store: Holds the state and decides.
        options: The rules by which the breaker opens and closes.
        clock: Measures the calls.
        listener: Receives `StateChanged`, `WouldHaveOpened`, `ProbeStarted`, `Rejected` and `OutcomeLost`. If
            several workers share a store, the worker whose call changed the state sends `StateChanged`.
        is_failure: Classifies an error of a call. True: a failure. False: a success, because the service
            answered. None: neither. A cancellation, or another `BaseException` that is not an `Exception`, is
            always neither. Exception classes instead of a function: these errors are failures, a rejection by
            an inner policy is neither, and every other error is a success.
        is_failure_result: Returns whether a result of a call counts as a failure. None: no result counts as a
            failure.
    """

    def __init__(
        self,
        name: str,
        store: BreakerStore,
        options: CircuitBreakerOptions = _DEFAULT_OPTIONS,
        clock: Clock = SYSTEM_CLOCK,
        *,
        listener: Listener = ignore,
        is_failure: Callable[[Exception], bool | None] | ErrorKinds = any_error_fails,
        is_failure_result: ResultJudge | None = None,
    ) -> None:
        require_judge("is_failure", is_failure)
        if isinstance(is_failure, (type, tuple)):
            is_failure = _only(is_failure)
        self.name = name
        self._store = store
        self._options = options
        self._clock = clock
        self._listener = listener
        self._is_failure = is_failure
        self._is_failure_result = is_failure_result
        self._slow_seconds = options.slow_call_seconds
        self._last_failure: Exception | None = None
        report_outcomes(self, clock, listener, is_failure, is_failure_result)

    async def run(self, call: Call[T]) -> T:
        """Run `call` if the breaker admits it, and count its outcome.

        If the store fails to count the outcome, the caller still gets its result or error, and the listener
        receives `OutcomeLost`.

        Raises:
            CircuitOpenError: The breaker is open, or half-open with all its probes running. `__cause__` is
                the last failure in this process, if there was one since a call of this process closed the
                breaker.
            TypeError: `call` is a plain function. It is not run.
            BaseException: The error of the call, or the error of the store if the store cannot decide.
        """
        require_async(call)
        ticket = await self._store.admit(self.name, self._options)
        if isinstance(ticket, Refusal):
            raise self._rejection(ticket) from self._last_failure
        began = 0.0 if self._slow_seconds is None else self._clock.monotonic()
        failed: bool | None = None
        renewal: LeaseRenewal | None = None
        try:
            if ticket.probe is not None:
                renewal = self._begin_probe(ticket)
            result = await call()
        except Exception as error:
            failed = self._judge_error(error)
            raise
        else:
            failed = self._is_failure_result is not None and self._judge_result(result)
        finally:
            if renewal is not None:
                renewal.end()
            if failed is None:
                self._store.release(self.name, ticket)
            else:
                limit = self._slow_seconds
                slow = limit is not None and self._clock.monotonic() - began >= limit
                try:  # not in a separate method: its coroutine would add a tenth to the time of a call
                    transition = await self._store.record(
                        self.name, self._options, ticket, failed=failed, slow=slow
                    )
                except Exception as error:  # noqa: BLE001 -- the caller gets the call's outcome in any case
                    notify(self._listener, OutcomeLost(policy=self.name, error=error))
                else:
                    if transition is not None:
                        self._notify_of(transition)
        return result

    async def force_open(self, seconds: float | None = None) -> None:
        """Open the breaker by hand.

        Args:
            seconds: The open time, at least 0.001. The breaker then becomes half-open. None: the breaker
                stays open until `close` or `force_closed` is called.

        Raises:
            ValueError: `seconds` is out of range.
        """
        if seconds is not None and not 0.001 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and at least 0.001, not {seconds}")
        manual_state = ManualState.FORCED_OPEN if seconds is None else ManualState.OPEN
        self._notify_of(await self._store.force(self.name, self._options, manual_state, seconds))

    async def force_closed(self) -> None:
        """Admit every call until `close` or `force_open` is called.

        Outcomes are still counted. The listener receives `WouldHaveOpened` when the breaker would have
        opened.
        """
        self._notify_of(await self._store.force(self.name, self._options, ManualState.FORCED_CLOSED))

    async def close(self) -> None:
        """Close the breaker with empty counts, and end a forced state. The rules then apply again."""
        self._notify_of(await self._store.force(self.name, self._options, ManualState.CLOSED))

    async def status(self) -> BreakerStatus:
        """Return the state of the breaker and its counts."""
        return await self._store.status(self.name, self._options)

    def _rejection(self, refusal: Refusal) -> CircuitOpenError:
        notify(self._listener, Rejected(policy=self.name, retry_after=refusal.retry_after))
        return CircuitOpenError(self.name, refusal.reason, refusal.retry_after)

    def _judge_error(self, error: Exception) -> bool | None:
        failed = None if is_misuse(error) else self._is_failure(error)
        if failed:
            self._last_failure = error
        return failed

    def _judge_result(self, result: object) -> bool:
        failed = self._is_failure_result is not None and self._is_failure_result(result)
        if failed:
            self._last_failure = FailedResultError(result)
        return failed

    def _begin_probe(self, ticket: Ticket) -> LeaseRenewal:
        self._notify_of(ticket.transition)
        notify(self._listener, ProbeStarted(policy=self.name))
        return LeaseRenewal(
            partial(self._store.renew, self.name, self._options, ticket),
            self._clock,
            lease_seconds=self._options.probe_renewal_seconds,
            longest_seconds=self._options.probe_lease_seconds,
        )

    def _notify_of(self, transition: Transition | WouldOpen | None) -> None:
        if isinstance(transition, WouldOpen):
            notify(self._listener, WouldHaveOpened(policy=self.name, reason=transition.reason))
        elif transition is not None:
            if transition.after == BreakerState.CLOSED:
                self._last_failure = None
            event = StateChanged(
                policy=self.name, before=transition.before, after=transition.after, reason=transition.reason
            )
            notify(self._listener, event)
