"""The internal proxy: many callers, and an upstream that takes one call an interval.

What a request goes through, in this order:

1. **Cache.** A fresh copy answers at once.
2. **Shared call.** Equal requests of a worker share one call, in line or under way. It belongs to none of
   them: a caller who leaves harms no other, and when the last one leaves while the call is still in line, the
   call leaves the line.
3. **Breaker.** Open: refused at once, and not after a wait.
4. **Line.** The paced queue gives the call its turn, among those of all workers.
5. **Cache again.** Another worker may have had the same request, and an earlier turn; then this one is given
   back.
6. **Breaker, timeout, upstream.** The answer goes on as it comes in, and is kept once it is whole.

What fails, or finds the line full, is answered with the last good copy, if there is one; what waits too long
is not.

Requests that speak for somebody (`Authorization`, `Cookie`) are neither shared nor answered from copies. An
answer that turns out to be for one alone (`private`, `Set-Cookie`, `Vary`) is the first caller's; others who
shared the call stand in line again, each for itself.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from src.resilience.breaker_store import BreakerStatus
from src.resilience.cache_store import CacheOptions, CacheStore, Entry
from src.resilience.circuit_breaker import CircuitBreaker, any_error_fails
from src.resilience.clock import Clock
from src.resilience.errors import CallTimeoutError, QueueTimeoutError, RejectedError
from src.resilience.events import CacheAnswered, Listener, ignore, notify
from src.resilience.pace_store import PaceStatus, QueuePolicy
from src.resilience.paced_queue import PacedQueue
from src.resilience.timeout import Timeout
from src.services.external_service import ExternalServiceError, ExternalServiceUnavailableError
from src.services.proxy.headers import (
    Headers,
    are_personal,
    for_upstream,
    may_be_shared,
    told_apart_by,
)
from src.services.proxy.response_buffer import Head, ResponseBuffer
from src.services.proxy.shared_calls import SharedCall, SharedCalls
from src.services.proxy.target import UpstreamTarget
from src.services.proxy.totals import Outcome, ProxyTally, ProxyTotals
from src.services.proxy.upstream import Upstream, UpstreamAnswerTooLargeError, UpstreamRequest

PACE_MARGIN = 0.02
"""Share by which turns are further apart than the upstream asks: its count is of arrivals, and no two calls
take equally long to get there."""

_FAILURES = (RejectedError, ExternalServiceError, CallTimeoutError)
"""What a stale copy may stand in for."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request to the proxy.

    Attributes:
        method: GET or HEAD.
        path: In the upstream, as it was sent; begins with a slash.
        query: For the upstream, as it was sent, without its question mark.
        headers: All of them, with names in lower case.
        request_id: Names the request here and in the upstream.
        priority: In a line by priority, lower is sooner.
    """

    method: Literal["GET", "HEAD"]
    path: bytes
    query: bytes = b""
    headers: Headers = ()
    request_id: bytes = b""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """An answer, of which at least the head is there.

    Attributes:
        buffer: Status, headers and body.
        copy: "MISS": the upstream's own. "HIT": a fresh copy. "STALE": an older one, in place of an error.
        waited_seconds: How long this request stood in line.
        age_seconds: Of a copy, since it was stored.
    """

    buffer: ResponseBuffer
    copy: Literal["MISS", "HIT", "STALE"]
    waited_seconds: float = 0.0
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The proxy, over all workers.

    Attributes:
        line: The line and its policy.
        totals: What became of the requests.
        breaker: The upstream's circuit breaker.
        interval_seconds: What the upstream is promised between two calls.
    """

    line: PaceStatus
    totals: ProxyTotals
    breaker: BreakerStatus
    interval_seconds: float


def is_upstream_failure(error: Exception) -> bool | None:
    """Judge what a call raised, for the proxy's circuit breaker: an answer too long is an answer."""
    return False if isinstance(error, UpstreamAnswerTooLargeError) else any_error_fails(error)


class Proxy:
    """The proxy. See the module's docstring for what it does in which order.

    Args:
        target: Makes the URLs.
        upstream: Makes the calls.
        queue: Says when. Its longest wait must be longer than any caller's.
        breaker: The upstream's; judges by `is_upstream_failure`.
        timeout: How long a call may take, to the end of its answer.
        store: Where copies are kept.
        cache_options: How long.
        tally: Counts.
        clock: Measures waits.
        interval_seconds: What the upstream is promised between two calls.
        patience_seconds: How long a request may wait for the head of its answer.
        name: What events call the cache.
        listener: Told how the cache answered.
    """

    def __init__(
        self,
        *,
        target: UpstreamTarget,
        upstream: Upstream,
        queue: PacedQueue,
        breaker: CircuitBreaker,
        timeout: Timeout,
        store: CacheStore,
        cache_options: CacheOptions,
        tally: ProxyTally,
        clock: Clock,
        interval_seconds: float,
        patience_seconds: float,
        name: str = "proxy",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._target = target
        self._queue = queue
        self._breaker = breaker
        self._store = store
        self._cache_options = cache_options
        self._tally = tally
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._patience_seconds = patience_seconds
        self._listener = listener
        self._shared_calls = SharedCalls(
            upstream=upstream,
            queue=queue,
            breaker=breaker,
            timeout=timeout,
            store=store,
            cache_options=cache_options,
            clock=clock,
        )

    async def answer(self, request: ProxyRequest) -> ProxyAnswer:
        """Answer `request` as soon as the head of its answer is there.

        Raises:
            UnsafeTargetError: Its path tries to leave the upstream.
            QueueFullError: The line is full.
            QueueClosedError: This worker is stopping.
            QueueTimeoutError: It waited longer than `patience_seconds`.
            CircuitOpenError: The breaker is open.
            ExternalServiceUnavailableError: The upstream did not answer, or failed.
            UpstreamAnswerTooLargeError: It answers with more than is passed on.
        """
        url = self._target.url(request.path, request.query)
        forwarded = UpstreamRequest(request.method, url, for_upstream(request.headers, request.request_id))
        arrived_at = self._clock.monotonic()
        self._tally.count_request()
        try:
            answer = await self._answer(forwarded, request.priority, arrived_at)
        except Exception:
            self._tally.count_answer("failures", self._clock.monotonic() - arrived_at)
            raise
        self._tally.count_answer(_OUTCOMES[answer.copy], self._clock.monotonic() - arrived_at)
        notify(self._listener, CacheAnswered(policy=self.name, outcome=answer.copy.lower()))
        return answer

    async def status(self) -> ProxyStatus:
        """Return how the proxy stands."""
        line, totals, breaker = await asyncio.gather(
            self._queue.status(), self._tally.totals(), self._breaker.status()
        )
        return ProxyStatus(line, totals, breaker, self._interval_seconds)

    async def policy(self) -> QueuePolicy:
        """Return by which policy turns are given."""
        return (await self._queue.status()).policy

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Have turns given by `policy`, in every worker. Nobody loses a place.

        Raises:
            StorageUnavailableError: The workers can't agree on it now.
        """
        await self._queue.set_policy(policy)

    async def aclose(self) -> None:
        """Stop every call, in line or under way."""
        await self._shared_calls.aclose()

    async def _answer(self, forwarded: UpstreamRequest, priority: int, arrived_at: float) -> ProxyAnswer:
        key = None if are_personal(forwarded.headers) else _key(forwarded)
        if key is not None:
            entry = await self._store.read(key, self._cache_options)
            if entry is not None:
                return ProxyAnswer(_buffer_of(entry), "HIT", age_seconds=entry.age_seconds)
        return await self._ask(SharedCall(forwarded, priority, key), arrived_at)

    async def _stand_in(self, key: str | None, error: Exception, waited: float) -> ProxyAnswer:
        """Answer with the last good copy where a call failed with `error`, or say so to the caller."""
        entry = None if key is None else await self._store.read_last_good(key, self._cache_options)
        if entry is not None:
            return ProxyAnswer(_buffer_of(entry), "STALE", waited, entry.age_seconds)
        if isinstance(error, RejectedError):
            raise error
        breaker = await self._breaker.status()  # this failure may have been the one that opened it
        retry_after = breaker.retry_after or self._interval_seconds
        raise ExternalServiceUnavailableError(retry_after, self.name) from error

    async def _ask(self, wanted: SharedCall, arrived_at: float) -> ProxyAnswer:
        """Answer from `wanted`, or from one like it that was there before."""
        call = None
        try:
            call = await self._shared_calls.join(wanted)
            head = await self._head(call, arrived_at)
        except _FAILURES as error:
            return await self._stand_in(wanted.key, error, self._waited(call, arrived_at))
        if call is not wanted and not may_be_shared(head.headers):
            return await self._ask(SharedCall(wanted.request, wanted.priority, key=None), arrived_at)
        waited = self._waited(call, arrived_at)
        if call.entry is not None:
            return ProxyAnswer(call.buffer, "HIT", waited, call.entry.age_seconds)
        return ProxyAnswer(call.buffer, "MISS", waited)

    async def _head(self, call: SharedCall, arrived_at: float) -> Head:
        patience = self._patience_seconds - (self._clock.monotonic() - arrived_at)
        with self._shared_calls.waiting_for(call):
            try:
                async with self._clock.timeout(patience):
                    return await call.buffer.head()
            except TimeoutError as error:
                raise QueueTimeoutError(self._patience_seconds) from error

    def _waited(self, call: SharedCall | None, arrived_at: float) -> float:
        """Return how long a request has stood in line: not at all where it was refused a place."""
        if call is None:
            return 0.0
        until = self._clock.monotonic() if call.turn_came_at is None else call.turn_came_at
        return max(0.0, until - arrived_at)


_OUTCOMES: dict[str, Outcome] = {"MISS": "successes", "HIT": "cache_hits", "STALE": "fallbacks"}


def _key(forwarded: UpstreamRequest) -> str:
    """Return what the copies of the answer are kept under: equal for requests that may share it."""
    parts = (
        forwarded.method.encode(),
        str(forwarded.url).encode(),
        *map(b":".join, told_apart_by(forwarded.headers)),
    )
    return "proxy:" + hashlib.sha256(b"\n".join(parts)).hexdigest()


def _buffer_of(entry: Entry) -> ResponseBuffer:
    buffer = ResponseBuffer()
    buffer.unpack(HTTPStatus.OK, entry.body)
    return buffer
