"""The Prometheus instruments, and the functions that update them. docs/telemetry.md lists them in a table.

Names and units follow Prometheus' conventions: base units, the unit in the name, `_total` for counters. No
label has a value that a client chooses, such as an address or a metric type, because each value would create
a permanent series.

The lookup of a series by its labels costs several times as much as counting, so each series is cached.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeVar, get_args

from src.observation.request_record import RequestRecord
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.store import BreakerState, BreakerStatus
from src.resilience.clock import Clock
from src.resilience.errors import CallTimeoutError, RejectedError
from src.resilience.events import CacheAnswered, Event, SlotTaken, StateChanged
from src.resilience.policy import Call
from src.services.access.admission import AdmissionOutcome
from src.services.proxy.service import Proxy
from src.telemetry.prometheus import Counter, Gauge, Histogram

T = TypeVar("T")

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})

HTTP_REQUESTS = Counter("http_requests_total", "Answered requests", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from a request's arrival to the end of its answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
HTTP_REFUSED = Counter(
    "http_requests_refused_total",
    "Requests that the server rejected before they reached the service",
    ["status"],
)
POINTS = Counter("ingested_points_total", "Measurements stored")
BATCH_POINTS = Histogram(
    "ingest_batch_points",
    "Measurements in a stored write",
    buckets=(1, 10, 100, 1_000, 10_000),
)
LIMITER_DECISIONS = Counter(
    "rate_limiter_decisions_total",
    "Requests that were allowed, refused, or let through without a decision",
    ["quota", "algorithm", "outcome"],
)
CACHE_ANSWERS = Counter("cache_answers_total", "Answers of a read-through cache", ["cache", "outcome"])
BREAKER_STATE = Gauge(
    "circuit_breaker_state",
    "1 for the current state of a circuit breaker, 0 for the other states",
    ["breaker", "state"],
    multiprocess_mode="mostrecent",
)
BREAKER_TRANSITIONS = Counter(
    "circuit_breaker_transitions_total",
    "Changes of a circuit breaker's state",
    ["breaker", "before", "after"],
)
EVENTS = Counter(
    "resilience_events_total", "All other events of the resilience patterns", ["policy", "event"]
)
CALL_SECONDS = Histogram(
    "resilience_call_duration_seconds",
    "Duration of a protected call, by outcome",
    ["policy", "outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
QUEUE_LENGTH = Gauge(
    "proxy_queue_length", "Calls in the proxy's queue, over all workers", multiprocess_mode="mostrecent"
)
QUEUE_WAIT_SECONDS = Histogram(
    "proxy_queue_wait_seconds",
    "Time that a call spent in the proxy's queue",
    buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60),
)
REDIS_ROUND_TRIPS = Counter("redis_round_trips_total", "Round trips to Redis, including failed ones")
REDIS_SECONDS = Histogram(
    "redis_round_trip_duration_seconds",
    "Time from the start of a round trip to its last reply, including the time to connect",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
REDIS_COMMANDS = Counter("redis_commands_total", "Commands sent to Redis; several may share a round trip")


_requests = cache(HTTP_REQUESTS.labels)
_request_seconds = cache(HTTP_SECONDS.labels)
_cache_answers = cache(CACHE_ANSWERS.labels)
_transitions = cache(BREAKER_TRANSITIONS.labels)
_events = cache(EVENTS.labels)


def observe_requests(requests: Sequence[RequestRecord]) -> None:
    """Count answered requests, by the route and not by the path, which a client chooses."""
    answers: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for request in requests:
        method = request.method if request.method in _METHODS else "other"
        answers[method, request.route, request.status].append(request.seconds)
    for (method, route, status), seconds in answers.items():
        _requests(method, route, status).inc(len(seconds))
        _request_seconds(method, route).observe_all(seconds)


def count_refusal(status: int) -> None:
    """Count a request that the server rejected before the service got it."""
    HTTP_REFUSED.labels(status).inc()


def observe_writes(writes: Sequence[int]) -> None:
    """Count stored writes, given as the number of points of each."""
    POINTS.inc(sum(writes))
    BATCH_POINTS.observe_all(writes)


def observe_round_trip(commands: int, seconds: float) -> None:
    """Count one round trip to Redis."""
    REDIS_ROUND_TRIPS.inc()
    REDIS_SECONDS.observe(seconds)
    REDIS_COMMANDS.inc(commands)


def limiter_observer(quota: str, algorithm: str) -> Callable[[Mapping[AdmissionOutcome, int]], None]:
    """Return a function that counts the decisions of one limiter. All outcomes are exported, from 0 on."""
    series = {
        outcome: LIMITER_DECISIONS.labels(quota, algorithm, outcome) for outcome in get_args(AdmissionOutcome)
    }

    def observe(outcomes: Mapping[AdmissionOutcome, int]) -> None:
        for outcome, times in outcomes.items():
            if times:
                series[outcome].inc(times)

    return observe


def count_event(event: Event) -> None:
    """Count `event`. This function is a listener."""
    match event:
        case CacheAnswered():
            _cache_answers(event.policy, event.outcome).inc(event.times)
        case StateChanged():
            _transitions(event.policy, event.before, event.after).inc(event.times)
        case SlotTaken():
            QUEUE_WAIT_SECONDS.observe(event.seconds)
        case _:
            _events(event.policy, type(event).__name__).inc(event.times)


class CallTimer:
    """A policy without an effect that observes the duration and the outcome of each call.

    The outcome is "succeeded", "rejected" by an inner policy, "timed_out", or "failed". A cancelled call has
    no outcome and is not observed.

    Args:
        name: The name of the called service.
        clock: Measures the durations.
        is_failure: Classifies an error, like for the circuit breaker. A call whose error is not a failure
            counts as succeeded.
    """

    def __init__(self, name: str, clock: Clock, is_failure: Callable[[Exception], bool | None]) -> None:
        self._clock = clock
        self._is_failure = is_failure
        self._series = {
            outcome: CALL_SECONDS.labels(name, outcome)
            for outcome in ("succeeded", "failed", "timed_out", "rejected")
        }

    async def run(self, call: Call[T]) -> T:
        """Run `call`, and return its result or raise its error."""
        began = self._clock.monotonic()
        try:
            result = await call()
        except Exception as error:
            self._observe(began, self._outcome(error))
            raise
        self._observe(began, "succeeded")
        return result

    def _outcome(self, error: Exception) -> str:
        match error:
            case RejectedError():
                return "rejected"
            case CallTimeoutError():
                return "timed_out"
            case _:
                return "failed" if self._is_failure(error) else "succeeded"

    def _observe(self, began: float, outcome: str) -> None:
        self._series[outcome].observe(self._clock.monotonic() - began)


async def update_breaker_gauge(breaker: CircuitBreaker) -> None:
    """Update `circuit_breaker_state` to the state of `breaker`."""
    _set_breaker_gauge(await breaker.status())


async def update_proxy_gauges(proxy: Proxy) -> None:
    """Update `proxy_queue_length`, and `circuit_breaker_state` of the upstream's breaker."""
    status = await proxy.status()
    QUEUE_LENGTH.set(status.queue.size)
    _set_breaker_gauge(status.breaker)


def _set_breaker_gauge(status: BreakerStatus) -> None:
    for state in BreakerState:
        BREAKER_STATE.labels(status.name, state).set(state is status.state)
