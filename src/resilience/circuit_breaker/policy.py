"""The circuit breaker: stop calling what does not answer, and find out with few calls when it does again.

`CircuitBreaker` asks whether a call may be made, runs it, judges how it went and tells what changed. The
state is in a `BreakerStore`, which decides, so that the breakers of many workers can be one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ..clock import Clock
from ..errors import CircuitOpenError, RejectedError
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
from ..lease import LeaseRenewal
from ..policy import Call, is_misuse, require_async
from .options import CircuitBreakerOptions
from .store import BreakerStatus, BreakerStore, ManualState, Refusal, Ticket, Transition, WouldOpen

T = TypeVar("T")


def any_error_fails(error: Exception) -> bool | None:
    """Judge every error a failure, but for a rejection by a policy further in: that call was not begun."""
    return None if isinstance(error, RejectedError) else True


class CircuitBreaker:
    """Runs calls while the thing called is well, and rejects them while it is not.

    Args:
        name: Tells this breaker from others in the same store, in events and in errors.
        store: Holds its state and decides.
        options: When it opens and closes.
        clock: Measures the calls.
        listener: Receives `StateChanged`, `ProbeStarted`, `Rejected` and `OutcomeLost`. Of the workers that
            share a store, the one whose call changed the state sends the event.
        is_failure: Judges what a call raised: True is a failure; False a success, since the service did
            answer; None neither. A cancellation, like any other `BaseException` that is no `Exception`, is
            not asked about: it is neither.
    """

    def __init__(
        self,
        name: str,
        store: BreakerStore,
        options: CircuitBreakerOptions,
        clock: Clock,
        *,
        listener: Listener = ignore,
        is_failure: Callable[[Exception], bool | None] = any_error_fails,
    ) -> None:
        self.name = name
        self._store = store
        self._options = options
        self._clock = clock
        self._listener = listener
        self._is_failure = is_failure
        self._slow_seconds = options.slow_call_seconds or math.inf

    async def run(self, call: Call[T]) -> T:
        """Run `call` if the breaker lets it, and count how it went.

        A call whose outcome the store cannot count ends as it would have: see `OutcomeLost`.

        Raises:
            CircuitOpenError: The breaker is open, or half-open with every permit out.
            TypeError: `call` is a plain function; it is not run.
            BaseException: Whatever the call raised, as it came; the store's error where that cannot decide.
        """
        require_async(call)
        ticket = await self._store.admit(self.name, self._options)
        if isinstance(ticket, Refusal):
            raise self._rejection(ticket)
        began = self._clock.monotonic()
        failed: bool | None = None
        renewal: LeaseRenewal | None = None
        try:
            if ticket.probe is not None:
                renewal = self._begin_probe(ticket)
            result = await call()
            failed = False
        except Exception as error:
            failed = None if is_misuse(error) else self._is_failure(error)
            raise
        finally:
            if renewal is not None:
                renewal.end()
            if failed is None:
                self._store.release(self.name, ticket)
            else:
                await self._record(ticket, began, failed=failed)
        return result

    async def force_open(self, seconds: float | None = None) -> None:
        """Reject every call until the next order, or for a time.

        Args:
            seconds: How long, at least 0.001: then the breaker is half-open and probes. None: until the next
                order.

        Raises:
            ValueError: `seconds` is out of range.
        """
        if seconds is not None and not 0.001 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and at least 0.001, not {seconds}")
        order = ManualState.FORCED_OPEN if seconds is None else ManualState.OPEN
        self._announce(await self._store.force(self.name, self._options, order, seconds))

    async def force_closed(self) -> None:
        """Let every call through until the next order. A `WouldHaveOpened` says when it would have opened."""
        self._announce(await self._store.force(self.name, self._options, ManualState.FORCED_CLOSED))

    async def close(self) -> None:
        """Close the breaker with empty counts, whatever state it is in, and let it work by itself again."""
        self._announce(await self._store.force(self.name, self._options, ManualState.CLOSED))

    async def status(self) -> BreakerStatus:
        """Return how the breaker stands."""
        return await self._store.status(self.name, self._options)

    def _rejection(self, refusal: Refusal) -> CircuitOpenError:
        notify(self._listener, Rejected(policy=self.name, retry_after=refusal.retry_after))
        return CircuitOpenError(self.name, refusal.reason, refusal.retry_after)

    def _begin_probe(self, ticket: Ticket) -> LeaseRenewal:
        self._announce(ticket.transition)
        notify(self._listener, ProbeStarted(policy=self.name))
        return LeaseRenewal(
            partial(self._store.renew, self.name, self._options, ticket),
            self._clock,
            lease_seconds=self._options.probe_renewal_seconds,
            longest_seconds=self._options.probe_lease_seconds,
        )

    async def _record(self, ticket: Ticket, began: float, *, failed: bool) -> None:
        slow = self._clock.monotonic() - began >= self._slow_seconds
        try:
            transition = await self._store.record(self.name, self._options, ticket, failed=failed, slow=slow)
        except Exception as error:  # noqa: BLE001 -- the caller gets the call's outcome, whatever the store does
            notify(self._listener, OutcomeLost(policy=self.name, error=error))
        else:
            self._announce(transition)

    def _announce(self, transition: Transition | WouldOpen | None) -> None:
        if isinstance(transition, WouldOpen):
            notify(self._listener, WouldHaveOpened(policy=self.name, reason=transition.reason))
        elif transition is not None:
            event = StateChanged(
                policy=self.name, before=transition.before, after=transition.after, reason=transition.reason
            )
            notify(self._listener, event)
