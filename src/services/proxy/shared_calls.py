"""Calls of the proxy's upstream, each shared by the equal requests that wait for it: shared_calls.

A call belongs to none of them. One that nobody waits for any more leaves the line; once its turn has come
it goes on to its end, and its answer is kept.
"""

import asyncio
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from src.resilience.breaker_store import BreakerState
from src.resilience.cache_store import CacheOptions, CacheStore, Entry
from src.resilience.circuit_breaker import CircuitBreaker
from src.resilience.clock import Clock
from src.resilience.errors import CircuitOpenError, RejectedError
from src.resilience.paced_queue import PacedQueue
from src.resilience.pipeline import Pipeline
from src.resilience.timeout import Timeout
from src.services.proxy.headers import may_be_kept
from src.services.proxy.response_buffer import BufferBudget, ResponseBuffer
from src.services.proxy.upstream import Upstream, UpstreamRequest

MAX_KEPT_BYTES = 256 * 1024
"""Of a body that is kept. All copies lie in one Redis, with everything else."""

UNREAD_ANSWERS = 8
"""So many answers of the greatest length may lie in a worker for readers that have not taken all of them yet;
beyond that, the readers of the oldest are cut."""

_SHUT_SECONDS = 30.0
"""When to come back to a breaker that only an order closes; nobody knows."""


class _AnsweredMeanwhileError(RejectedError):
    """A call need not be made: its turn goes to the next one, as that of any call an inner policy refuses."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("proxy", "the same was asked and answered meanwhile", 0)
        self.entry = entry


@dataclass(eq=False, slots=True)
class SharedCall:
    """One call, in line or under way, and those who wait for it."""

    request: UpstreamRequest
    priority: int
    key: str | None
    """Of the copies of its answer; None where it is nobody else's."""
    buffer: ResponseBuffer = field(default_factory=ResponseBuffer)
    entry: Entry | None = None
    """The copy that answered in place of the upstream."""
    turn_came_at: float | None = None
    waiting: int = 0
    task: "asyncio.Task[None] | None" = None

    @property
    def sharing_key(self) -> tuple[str | None, int]:
        """What those who share it have in common: who is in more of a hurry waits in no other's place."""
        return self.key, self.priority


class SharedCalls:
    """The calls of one worker.

    Args:
        upstream: Makes them.
        queue: Says when.
        breaker: The upstream's. While it is open, nobody gets a place in line.
        timeout: How long a call may take, to the end of its answer.
        store: Where copies of the answers are kept.
        cache_options: How long.
        clock: Says when a turn came.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        queue: PacedQueue,
        breaker: CircuitBreaker,
        timeout: Timeout,
        store: CacheStore,
        cache_options: CacheOptions,
        clock: Clock,
    ) -> None:
        self._upstream = upstream
        self._queue = queue
        self._breaker = breaker
        self._guards = Pipeline(breaker, timeout)
        self._store = store
        self._cache_options = cache_options
        self._clock = clock
        self._shared: dict[tuple[str | None, int], SharedCall] = {}
        self._begun: set[SharedCall] = set()
        self._unread = BufferBudget(UNREAD_ANSWERS * upstream.max_body_bytes)

    async def join(self, wanted: SharedCall) -> SharedCall:
        """Return the call to wait for: one in `wanted`'s place, or that, which is begun.

        Raises:
            CircuitOpenError: The breaker is open, and there is none to share.
        """
        found = self._shared.get(wanted.sharing_key)
        if found is None:
            await self._refuse_while_open()
            found = self._shared.get(wanted.sharing_key)  # another may have begun it meanwhile
        if found is None:
            self._begin(wanted)
        return found or wanted

    @contextmanager
    def waiting_for(self, call: SharedCall) -> Iterator[None]:
        """Count as one who waits for `call`; where the last one leaves before its turn, it ends."""
        call.waiting += 1
        try:
            yield
        finally:
            call.waiting -= 1
            if call.waiting == 0 and call.turn_came_at is None and call.task is not None:
                self._close_to_others(call)  # at once, and not when the cancellation is through
                call.task.cancel()

    async def aclose(self) -> None:
        """Stop every call, in line or under way."""
        tasks = [call.task for call in self._begun if call.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse_while_open(self) -> None:
        breaker = await self._breaker.status()
        if breaker.state is BreakerState.OPEN:
            raise CircuitOpenError(breaker.name, "the circuit is open", breaker.retry_after or _SHUT_SECONDS)

    def _begin(self, call: SharedCall) -> None:
        call.task = asyncio.create_task(self._run(call))
        call.task.add_done_callback(lambda _: self._finish(call))
        self._begun.add(call)
        if call.key is not None:
            self._shared[call.sharing_key] = call

    def _finish(self, call: SharedCall) -> None:
        self._begun.discard(call)
        self._close_to_others(call)
        self._unread.put(call.buffer)

    def _close_to_others(self, call: SharedCall) -> None:
        if self._shared.get(call.sharing_key) is call:
            del self._shared[call.sharing_key]

    async def _run(self, call: SharedCall) -> None:
        try:
            await self._queue.run(partial(self._take_turn, call), priority=call.priority)
        except _AnsweredMeanwhileError as found:
            call.entry = found.entry
            call.buffer.unpack(HTTPStatus.OK, found.entry.body)
        except Exception as error:  # noqa: BLE001 -- raised again by whoever reads the buffer
            call.buffer.fail(error)

    async def _take_turn(self, call: SharedCall) -> None:
        call.turn_came_at = self._clock.monotonic()
        token = uuid.uuid4().hex
        if call.key is not None:
            found = await self._store.take_lease(call.key, token, math.inf, self._cache_options)
            if isinstance(found, Entry):
                raise _AnsweredMeanwhileError(found)
        request, buffer = call.request, call.buffer
        kept: bytes | None = None
        try:
            last = await self._guards.run(partial(self._upstream.call, request, buffer))
            head = await buffer.head()
            is_small = buffer.length + len(last) <= MAX_KEPT_BYTES
            if is_small and head.status == HTTPStatus.OK and may_be_kept(head.headers):
                kept = buffer.packed(last)
        finally:
            # Before anybody has the whole answer: who asks again then finds it kept.
            if call.key is not None and kept is not None:
                await self._store.fill(call.key, token, kept, self._cache_options)
            elif call.key is not None:
                await self._store.release(call.key, token)
        buffer.write(last)
        buffer.end()
