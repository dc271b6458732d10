"""Circuit breakers that several threads share: the `BreakerStore` in memory, with a lock."""

import threading

from ..clock import SYSTEM_CLOCK, Clock
from .memory import MemoryBreakerStore
from .options import CircuitBreakerOptions
from .store import BreakerStatus, ManualState, Refusal, Ticket, Transition, WouldOpen


class ThreadSafeBreakerStore(MemoryBreakerStore):
    """Breakers of one process for several threads, each with or without an event loop.

    The lock costs some hundred nanoseconds a call, so `MemoryBreakerStore` has none.

    Args:
        clock: Durations go by its monotonic reading, the times shown by its time of day.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock)
        self._lock = threading.RLock()  # reentrant: garbage collection may close a coroutine

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now."""
        with self._lock:
            return await super().admit(name, options)

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call."""
        with self._lock:
            return await super().record(name, options, ticket, failed=failed, slow=slow)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit."""
        with self._lock:
            return await super().renew(name, options, ticket)

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome."""
        with self._lock:
            super().release(name, ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        order: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Go to the state ordered."""
        with self._lock:
            return await super().force(name, options, order, open_seconds)

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands."""
        with self._lock:
            return await super().status(name, options)
