"""The circuit breaker: stop calling what does not answer, and find out with few calls when it does again.

`CircuitBreaker` asks whether a call may be made, runs it, judges how it went and tells what changed. The
state is in a `BreakerStore`, which decides, so that the breakers of many workers can be one.
"""

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

from src.resilience.breaker_store import (
    BreakerStatus,
    BreakerStore,
    CircuitBreakerOptions,
    ManualState,
    Refusal,
    Ticket,
    Transition,
)
from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError
from src.resilience.events import Listener, ProbeStarted, Rejected, StateChanged, ignore, notify
from src.resilience.policy import Call

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
        listener: Told of `StateChanged`, `ProbeStarted` and `Rejected`. Of the workers that share a store,
            the one whose call changed the state tells of it.
        is_failure: Judges what a call raised: True is a failure; False a success, since the service did
            answer; None neither. A cancellation is not asked about: it is neither.
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

        Raises:
            CircuitOpenError: The breaker is open, or half-open with every permit out.
            BaseException: Whatever the call raised, as it came.
        """
        ticket = await self._admit()
        began = self._clock.monotonic()
        try:
            result = await call()
        except asyncio.CancelledError:
            await self._store.release(self.name, ticket)
            raise
        except Exception as error:
            failed = self._is_failure(error)
            if failed is None:
                await self._store.release(self.name, ticket)
            else:
                await self._record(ticket, began, failed=failed)
            raise
        await self._record(ticket, began, failed=False)
        return result

    async def force_open(self) -> None:
        """Reject every call until told otherwise."""
        self._announce(await self._store.force(self.name, self._options, ManualState.FORCED_OPEN))

    async def force_closed(self) -> None:
        """Let every call through and only count, until told otherwise."""
        self._announce(await self._store.force(self.name, self._options, ManualState.FORCED_CLOSED))

    async def close(self) -> None:
        """Close the breaker with empty counts, whatever state it is in, and let it work by itself again."""
        self._announce(await self._store.force(self.name, self._options, ManualState.CLOSED))

    async def status(self) -> BreakerStatus:
        """Return how the breaker stands."""
        return await self._store.status(self.name, self._options)

    async def _admit(self) -> Ticket:
        admission = await self._store.admit(self.name, self._options)
        if isinstance(admission, Refusal):
            notify(self._listener, Rejected(policy=self.name, retry_after=admission.retry_after))
            raise CircuitOpenError(self.name, admission.reason, admission.retry_after)
        if admission.probe is not None:
            self._announce(admission.transition)
            notify(self._listener, ProbeStarted(policy=self.name))
        return admission

    async def _record(self, ticket: Ticket, began: float, *, failed: bool) -> None:
        slow = self._clock.monotonic() - began >= self._slow_seconds
        self._announce(await self._store.record(self.name, self._options, ticket, failed=failed, slow=slow))

    def _announce(self, transition: Transition | None) -> None:
        if transition is not None:
            event = StateChanged(
                policy=self.name, before=transition.before, after=transition.after, reason=transition.reason
            )
            notify(self._listener, event)
