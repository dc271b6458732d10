"""Calls to the proxy's upstream, each shared by the equal requests that wait for it.

A call does not depend on the request that started it. While the call is in the queue, it leaves the queue
when no request waits for it any more. After it has got its slot, it continues to its end and is kept.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.store import BreakerState
from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, QueueFullError, QueueTimeoutError
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.pipeline import Pipeline
from src.resilience.timeout import Timeout
from src.services.external_service import ExternalServiceError
from src.services.proxy.cache_control import CopyLimits
from src.services.proxy.copies import Copies, Copy
from src.services.proxy.response_buffer import BufferBudget, ResponseBuffer
from src.services.proxy.upstream import Upstream, UpstreamRequest

UNREAD_ANSWERS = 8
"""The number of answers of the greatest length that a worker holds for slow readers. Beyond that, the oldest
answers are discarded."""


@dataclass(eq=False, slots=True)
class SharedCall:
    """One call, in the queue or being made.

    Attributes:
        request: The request to the upstream.
        priority: The priority of the call in the queue.
        key: The key of copies of its answer; None if the answer must be neither shared nor kept.
        limits: The copies that its requests accept.
        buffer: The answer.
        copy: The copy that answers the requests without a call of the upstream; None if there is none.
        slot_at: The time of the slot, as a monotonic reading; None while the call is in the queue.
        waiting: The number of requests that wait for the head of the answer.
        task: Runs the call.
    """

    request: UpstreamRequest
    priority: int
    key: str | None
    limits: CopyLimits = field(default_factory=CopyLimits)
    buffer: ResponseBuffer = field(default_factory=ResponseBuffer)
    copy: Copy | None = None
    slot_at: float | None = None
    waiting: int = 0
    task: "asyncio.Task[None] | None" = None

    @property
    def sharing_key(self) -> tuple[str | None, int, CopyLimits]:
        """Equal for calls that can be one."""
        return self.key, self.priority, self.limits


class SharedCalls:
    """The calls of one worker.

    Args:
        upstream: Makes the calls.
        queue: Gives each call its slot.
        breaker: The upstream's circuit breaker. While it is open, no call enters the queue.
        timeout: Limits a call, to the end of its answer.
        copies: Keep the answers.
        clock: Measures when a slot came.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        queue: PacedQueue,
        breaker: CircuitBreaker,
        timeout: Timeout,
        copies: Copies,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._queue = queue
        self._breaker = breaker
        self._guards = Pipeline(breaker, timeout)
        self._copies = copies
        self._clock = clock
        self._shared: dict[tuple[str | None, int, CopyLimits], SharedCall] = {}
        self._running: set[SharedCall] = set()
        self._unread = BufferBudget(UNREAD_ANSWERS * upstream.max_body_bytes)

    async def join(self, call: SharedCall) -> SharedCall:
        """Return an existing call that can be shared instead of `call`; otherwise start `call` and return it.

        Raises:
            CircuitOpenError: The breaker is open, and there is no call to share.
        """
        existing = self._shared.get(call.sharing_key)
        if existing is None:
            await self._reject_while_open()
            existing = self._shared.get(call.sharing_key)  # started in the meantime
        if existing is None:
            self._start(call)
        return existing or call

    @contextmanager
    def waiting_for(self, call: SharedCall) -> Iterator[None]:
        """Count one request that waits for `call`. A call in the queue ends when the last request leaves."""
        call.waiting += 1
        try:
            yield
        finally:
            call.waiting -= 1
            if call.waiting == 0 and call.slot_at is None and call.task is not None:
                self._stop_sharing(call)  # before the cancellation has reached the task
                call.task.cancel()

    async def aclose(self) -> None:
        """Cancel every call, in the queue or being made. Requests that wait for one get an error at once."""
        tasks = [call.task for call in self._running if call.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reject_while_open(self) -> None:
        breaker = await self._breaker.status()
        if breaker.state is BreakerState.OPEN:
            raise CircuitOpenError(breaker.name, "the circuit is open", breaker.retry_after)

    def _start(self, call: SharedCall) -> None:
        call.task = asyncio.create_task(self._run(call))
        call.task.add_done_callback(partial(self._finish, call))
        self._running.add(call)
        if call.key is not None:
            self._shared[call.sharing_key] = call

    def _finish(self, call: SharedCall, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            call.buffer.fail(ExternalServiceError("the proxy stopped before the answer was complete"))
        self._running.discard(call)
        self._stop_sharing(call)
        self._unread.add(call.buffer)

    def _stop_sharing(self, call: SharedCall) -> None:
        if self._shared.get(call.sharing_key) is call:
            del self._shared[call.sharing_key]

    async def _run(self, call: SharedCall) -> None:
        try:
            with await self._queue.slot(priority=call.priority) as slot:
                call.slot_at = self._clock.monotonic()
                token = uuid.uuid4().hex
                if call.key is not None:
                    call.copy = await self._copies.find_fresh_or_lease(call.key, call.limits, token)
                if call.copy is None:
                    await self._make(call, token)
                else:
                    slot.give_back()
                    call.copy.write_to(call.buffer)
        except QueueTimeoutError as error:  # raised before the call waits
            full = QueueFullError(self._queue.name, "no slot comes in time", error.retry_after)
            call.buffer.fail(full)
        except Exception as error:  # noqa: BLE001 -- raised again for each request that waits
            call.buffer.fail(error)

    async def _make(self, call: SharedCall, token: str) -> None:
        """Call the upstream, and keep the answer under the lease of `token`."""
        try:
            last = await self._guards.run(partial(self._upstream.call, call.request, call.buffer))
            if call.key is not None:  # before a reader has the whole answer and sends the request again
                await self._copies.keep(call.key, token, call.buffer, last)
        except BaseException:
            if call.key is not None:
                await self._copies.release(call.key, token)
            raise
        call.buffer.write(last)
        call.buffer.end()
