"""The internal proxy: many callers share an upstream that accepts one call per interval.

A request takes these steps:

1. **Copy.** If there is a fresh copy of the answer, the copy is returned at once.
2. **Shared call.** Equal requests to a worker share one call, which is in the queue or in progress. A caller
   who leaves does not affect the others. If the last caller leaves while the call is in the queue, the call
   also leaves the queue.
3. **Breaker.** While the circuit breaker is open, the request is rejected before it waits.
4. **Queue.** The call waits for its slot. The queue contains the calls of all workers.
5. **Copy, again.** Another worker may have stored a fresh copy by then. The copy is then returned, and the
   next call gets the slot.
6. **Breaker, timeout, upstream.** The upstream is called. Its answer is passed on while it arrives, and is
   stored as a copy when it is complete.

If the call fails or the queue is full, the proxy returns the last copy, if there is one. A request that waits
too long fails.

Requests with `Authorization`, `Cookie` or `Cache-Control: no-store` never share a call and never get a copy.
If an answer is for one caller only (`private`, `no-store`, `no-cache`, `Set-Cookie`, `Vary`), it goes to the
caller whose request started the call. Each of the other requests then starts its own call.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Literal

from src.resilience.circuit_breaker.policy import CircuitBreaker, any_error_fails
from src.resilience.circuit_breaker.store import BreakerStatus
from src.resilience.clock import Clock
from src.resilience.errors import CallTimeoutError, QueueTimeoutError, RejectedError
from src.resilience.events import CacheAnswered, Listener, ignore, notify
from src.resilience.paced_queue.options import PacedQueueOptions, QueuePolicy
from src.resilience.paced_queue.policy import PacedQueue
from src.resilience.paced_queue.store import PaceStatus
from src.services.external_service import ExternalServiceError, ExternalServiceUnavailableError
from src.services.proxy.cache_control import copy_limits, forbids_storing
from src.services.proxy.copies import Copies
from src.services.proxy.headers import Headers, are_personal, headers_for_upstream, sharing_headers
from src.services.proxy.response_buffer import Head, ResponseBuffer
from src.services.proxy.shared_calls import SharedCall, SharedCalls
from src.services.proxy.target import UpstreamTarget
from src.services.proxy.totals import ProxyCounters, ProxyTotals, RequestResult
from src.services.proxy.upstream import UpstreamAnswerTooLargeError, UpstreamRequest

PACE_MARGIN = 0.02
"""The share of the upstream's interval that is added between slots. The upstream measures the time between
arrivals, and one call may travel faster than the call before."""

MAX_WAIT_SHARE = 0.9
"""The longest wait for a slot, as a share of the request's timeout.

When a request arrives, its slot is estimated from the queue. If the estimated wait is longer, the request is
rejected. The rest of the timeout is for the call itself, and for slots that are later than estimated.
"""

NAME = "proxy"
"""The name of the proxy and of its policies in events and errors."""

_COPY_FORMAT = b"2"
"""The version of the format of copies. It is part of every key, so a worker reads only its own format."""

_FAILURES = (RejectedError, ExternalServiceError, CallTimeoutError)
"""The errors after which the proxy returns the last copy, if there is one."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """The limits of the proxy, over all workers.

    Attributes:
        interval_seconds: The shortest time between two calls of the upstream.
        timeout_seconds: The longest time that a request waits for the head (status and headers) of its
            answer.
        capacity: The largest number of calls in the queue.
    """

    interval_seconds: float
    timeout_seconds: float
    capacity: int

    @property
    def queue(self) -> PacedQueueOptions:
        """The options by which the queue admits calls and assigns slots."""
        return PacedQueueOptions(
            interval_seconds=self.interval_seconds * (1 + PACE_MARGIN),
            capacity=self.capacity,
            max_wait_seconds=self.timeout_seconds * MAX_WAIT_SHARE,
        )


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request to the proxy.

    Attributes:
        method: GET or HEAD.
        path: The path in the upstream, as the client sent it. It begins with a slash.
        query: The query for the upstream, as the client sent it, without the question mark.
        headers: All headers, with names in lower case.
        request_id: The id of the request, which is also sent to the upstream.
        priority: If the queue has the policy "priority", a request with a lower number is called sooner.
    """

    method: Literal["GET", "HEAD"]
    path: bytes
    query: bytes = b""
    headers: Headers = ()
    request_id: bytes = b""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """An answer. Its status and headers have arrived; its body may still be arriving.

    Attributes:
        buffer: The buffer that receives the answer.
        source: "MISS" for an answer of the upstream, "HIT" for a fresh copy, "STALE" for a copy that is
            returned instead of an error.
        waited_seconds: The time that the request spent in the queue.
        age_seconds: The age of a copy; None for an answer of the upstream.
    """

    buffer: ResponseBuffer
    source: Literal["MISS", "HIT", "STALE"]
    waited_seconds: float = 0.0
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The state of the proxy, over all workers.

    Attributes:
        queue: The queue and its policy.
        is_full: Whether the queue rejects new calls.
        totals: The results of all requests.
        breaker: The upstream's circuit breaker.
        interval_seconds: The shortest time between two calls of the upstream.
    """

    queue: PaceStatus
    is_full: bool
    totals: ProxyTotals
    breaker: BreakerStatus
    interval_seconds: float


def is_upstream_failure(error: Exception) -> bool | None:
    """Decide for the circuit breaker whether `error` is a failure. A too large answer is not a failure."""
    return False if isinstance(error, UpstreamAnswerTooLargeError) else any_error_fails(error)


class Proxy:
    """The proxy. The docstring of this module lists the steps of a request.

    Args:
        target: Builds the URLs of requests to the upstream.
        calls: Makes the calls of the upstream, and shares them between requests.
        copies: The copies of earlier answers.
        queue: The queue of `calls`. The store of the queue must have the options `options.queue`. The queue
            itself must have a longer `max_wait_seconds` than the timeout of a request.
        breaker: The circuit breaker of `calls`. Its `is_failure` is `is_upstream_failure`.
        counters: Counts the requests and their results.
        clock: Measures waits.
        options: The limits of the proxy.
        listener: Called with the source of each answer.
    """

    def __init__(
        self,
        *,
        target: UpstreamTarget,
        calls: SharedCalls,
        copies: Copies,
        queue: PacedQueue,
        breaker: CircuitBreaker,
        counters: ProxyCounters,
        clock: Clock,
        options: ProxyOptions,
        listener: Listener = ignore,
    ) -> None:
        self._target = target
        self._calls = calls
        self._copies = copies
        self._queue = queue
        self._breaker = breaker
        self._counters = counters
        self._clock = clock
        self._options = options
        self._listener = listener

    async def answer(self, request: ProxyRequest) -> ProxyAnswer:
        """Return the answer to `request` as soon as the status and headers of the answer have arrived.

        Raises:
            UnsafeTargetError: The path leads outside the upstream's base URL.
            QueueFullError: The queue is full, or the slot would come too late.
            QueueClosedError: This worker is stopping.
            QueueTimeoutError: The request waited longer than `options.timeout_seconds`.
            CircuitOpenError: The breaker is open.
            ExternalServiceUnavailableError: The upstream did not answer, or failed.
            UpstreamAnswerTooLargeError: The answer is longer than the proxy's limit.
        """
        url = self._target.url(request.path, request.query)
        headers = headers_for_upstream(request.headers, request.request_id)
        is_shared = not (are_personal(headers) or forbids_storing(request.headers))
        upstream_request = UpstreamRequest(request.method, url, headers)
        call = SharedCall(
            upstream_request,
            request.priority,
            _copy_key(upstream_request) if is_shared else None,
            copy_limits(request.headers),
        )
        arrived_at = self._clock.monotonic()
        self._counters.count_request()
        try:
            answer = await self._answer(call, arrived_at)
        except Exception:
            self._counters.count_result("failures", self._clock.monotonic() - arrived_at)
            raise
        self._counters.count_result(_RESULTS_BY_SOURCE[answer.source], self._clock.monotonic() - arrived_at)
        notify(self._listener, CacheAnswered(policy=NAME, outcome=answer.source.lower()))
        return answer

    async def status(self) -> ProxyStatus:
        """Return the state of the proxy."""
        queue, totals, breaker = await asyncio.gather(
            self._queue.status(), self._counters.totals(), self._breaker.status()
        )
        slots = self._options.queue.slots_in_time(round(queue.next_slot_seconds * 1e6))
        is_full = queue.size >= min(queue.capacity, slots)
        return ProxyStatus(queue, is_full, totals, breaker, self._options.interval_seconds)

    async def policy(self) -> QueuePolicy:
        """Return the policy of the queue."""
        return (await self._queue.status()).policy

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Set the policy of the queue for every worker. The calls in the queue stay there.

        Raises:
            StorageUnavailableError: The store that the workers share is unavailable.
        """
        await self._queue.set_policy(policy)

    async def aclose(self) -> None:
        """Cancel every call that is in the queue or in progress."""
        await self._calls.aclose()

    async def _answer(self, call: SharedCall, arrived_at: float) -> ProxyAnswer:
        if call.key is not None:
            copy = await self._copies.find_fresh(call.key, call.limits)
            if copy is not None:
                return ProxyAnswer(copy.write_to(ResponseBuffer()), "HIT", age_seconds=copy.age_seconds)
        return await self._answer_by_call(call, arrived_at)

    async def _answer_by_call(self, own_call: SharedCall, arrived_at: float) -> ProxyAnswer:
        """Answer a request from an equal call that can be shared, or otherwise from `own_call`."""
        call = None
        try:
            call = await self._calls.join(own_call)
            head = await self._wait_for_head(call, arrived_at)
        except _FAILURES as error:
            return await self._answer_by_last_copy(
                own_call.key, error, self._waited_seconds(call, arrived_at)
            )
        if call is not own_call and not head.rules.is_shared:
            return await self._answer_by_call(
                SharedCall(own_call.request, own_call.priority, key=None), arrived_at
            )
        waited = self._waited_seconds(call, arrived_at)
        if call.copy is not None:
            return ProxyAnswer(call.buffer, "HIT", waited, call.copy.age_seconds)
        return ProxyAnswer(call.buffer, "MISS", waited)

    async def _answer_by_last_copy(self, key: str | None, error: Exception, waited: float) -> ProxyAnswer:
        """Answer a request whose call failed from the last copy. Raise an error if there is no copy."""
        copy = None if key is None else await self._copies.find_for_error(key)
        if copy is not None:
            return ProxyAnswer(copy.write_to(ResponseBuffer()), "STALE", waited, copy.age_seconds)
        if isinstance(error, RejectedError):
            raise error
        breaker = await self._breaker.status()  # this failure may have opened the breaker
        retry_after = breaker.retry_after or self._options.interval_seconds
        raise ExternalServiceUnavailableError(retry_after, NAME) from error

    async def _wait_for_head(self, call: SharedCall, arrived_at: float) -> Head:
        timeout_seconds = self._options.timeout_seconds
        remaining = timeout_seconds - (self._clock.monotonic() - arrived_at)
        with self._calls.waiting_for(call):
            try:
                async with self._clock.timeout(remaining):
                    return await call.buffer.head()
            except TimeoutError as error:
                raise QueueTimeoutError(timeout_seconds) from error

    def _waited_seconds(self, call: SharedCall | None, arrived_at: float) -> float:
        """Return how long a request was in the queue; 0 if the request did not enter the queue."""
        if call is None:
            return 0.0
        left_queue_at = self._clock.monotonic() if call.slot_at is None else call.slot_at
        return max(0.0, left_queue_at - arrived_at)


_RESULTS_BY_SOURCE: dict[str, RequestResult] = {
    "MISS": "successes",
    "HIT": "cache_hits",
    "STALE": "fallbacks",
}


def _copy_key(upstream_request: UpstreamRequest) -> str:
    """Return the key of an answer's copies. Requests that may share the answer have equal keys."""
    parts = (
        _COPY_FORMAT,
        upstream_request.method.encode(),
        str(upstream_request.url).encode(),
        *map(b":".join, sharing_headers(upstream_request.headers)),
    )
    return "proxy:" + hashlib.sha256(b"\n".join(parts)).hexdigest()
