"""Circuit breakers for several threads: the `BreakerStore` in memory, with a lock."""

import threading

from ..clock import SYSTEM_CLOCK, Clock
from .memory import MemoryBreakerStore
from .options import CircuitBreakerOptions
from .store import BreakerStatus, ManualState, Refusal, Ticket, Transition, WouldOpen


class ThreadSafeBreakerStore(MemoryBreakerStore):
    """The breakers of one process for several threads, each with or without an event loop.

    The lock costs some hundred nanoseconds for each call. `MemoryBreakerStore` therefore has no lock.

    Args:
        clock: Its monotonic time measures durations. Its Unix time dates the transitions.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock)
        self._lock = (
            threading.RLock()
        )  # reentrant, because garbage collection may close a coroutine while the lock is held

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether to admit a call."""
        with self._lock:
            return await super().admit(name, options)

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call."""
        with self._lock:
            return await super().record(name, options, ticket, failed=failed, slow=slow)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Renew the permit of a probe."""
        with self._lock:
            return await super().renew(name, options, ticket)

    def release(self, name: str, ticket: Ticket) -> None:
        """Release the permit of a call without an outcome."""
        with self._lock:
            super().release(name, ticket)

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        manual_state: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Change the state by hand."""
        with self._lock:
            return await super().force(name, options, manual_state, open_seconds)

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return the status of the breaker."""
        with self._lock:
            return await super().status(name, options)
