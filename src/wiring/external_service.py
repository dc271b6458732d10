"""The client of the external service, and the policies around its calls."""

import os
from dataclasses import dataclass

import httpx

from src.config.settings import Settings
from src.provider.app import create_provider_app
from src.provider.faults import Faults
from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.circuit_breaker.failover import FailoverBreakerStore
from src.resilience.circuit_breaker.memory import MemoryBreakerStore
from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.policy import CircuitBreaker
from src.resilience.circuit_breaker.redis import RedisBreakerStore
from src.resilience.clock import Clock, SystemRandomizer
from src.resilience.events import Listener
from src.resilience.pipeline import Pipeline
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from src.resilience.retry import Exponential, FullJitter, Retry, RetryOptions
from src.resilience.timeout import Timeout
from src.services.external_service import NAME, is_failure, is_worth_retrying
from src.services.single_use_transport import SingleUseTransport
from src.storage.redis.link import RedisLink
from src.telemetry import tracing
from src.telemetry.instruments import CallTimer

_LONGEST_WAITS = Exponential(base_seconds=0.1, cap_seconds=5.0)
"""The longest wait before each attempt. The actual wait is random between 0 and this."""

_CALL_MARGIN_SECONDS = 1.0
"""The time by which a call may exceed the limits of its attempts and waits on a busy machine."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies around every call of the external service, outermost first.

    Attributes:
        rate_limit: Delays calls beyond the rate.
        bulkhead: Delays calls beyond the permits.
        protection: Circuit breaker, retry, and the policies around each attempt.
    """

    rate_limit: RateLimit
    bulkhead: Bulkhead
    protection: Pipeline

    def pipeline(self) -> Pipeline:
        """Return all policies as one."""
        return Pipeline(self.rate_limit, self.bulkhead, self.protection)


def breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    """Return the circuit breaker of the external service, which all workers share."""
    options = CircuitBreakerOptions(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        open_seconds=settings.circuit_breaker_reset_timeout,
        probe_lease_seconds=longest_call_seconds(settings),
    )
    store = breaker_store(link, clock)
    return CircuitBreaker(NAME, store, options, clock, listener=listener, is_failure=is_failure)


def breaker_store(link: RedisLink, clock: Clock) -> FailoverBreakerStore:
    """Return the store of a breaker's state: in Redis, or in this process while Redis is unavailable."""
    return FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))


def longest_call_seconds(settings: Settings) -> float:
    """Return the longest duration of a call of the external service after the breaker has admitted it."""
    attempts, randomizer = settings.external_service_attempts, SystemRandomizer()
    waits = [_LONGEST_WAITS.delay(attempt, 0.0, randomizer) for attempt in range(1, attempts)]
    return attempts * settings.external_service_timeout + sum(waits) + _CALL_MARGIN_SECONDS


def longest_computation_seconds(settings: Settings) -> float:
    """Return the longest duration of a call with its waits for the rate limiter and the bulkhead."""
    return longest_call_seconds(settings) + 2 * settings.external_service_timeout


def provider_in_process(settings: Settings, clock: Clock) -> httpx.ASGITransport:
    """Return a transport to a provider in this process, without a network."""
    provider = create_provider_app(
        Faults(failure_rate=settings.external_service_failure_rate),
        chance=SystemRandomizer().random,
        now=clock.monotonic,
        sleep=clock.sleep,
    )
    return httpx.ASGITransport(provider)


def client(settings: Settings, provider: httpx.ASGITransport | None) -> httpx.AsyncClient:
    """Return a client of `provider`; None stands for the service that the settings name."""
    url, timeout = external_service_url(settings), settings.external_service_timeout
    hooks = {"request": [tracing.send_trace_context]} if tracing.is_enabled(os.environ) else {}
    transport = provider or SingleUseTransport()
    return httpx.AsyncClient(
        base_url=url, timeout=timeout, transport=transport, event_hooks=hooks, trust_env=False
    )


def external_service_url(settings: Settings) -> str:
    """Return the URL of the external service."""
    return str(settings.external_service_url or "http://provider")


def policies(settings: Settings, breaker: CircuitBreaker, clock: Clock, listener: Listener) -> Policies:
    """Return the policies around every call of the external service. The summary cache is the fallback."""
    timeout = settings.external_service_timeout
    permits = settings.external_service_max_concurrency
    attempt = f"{NAME}.attempt"
    spans = [tracing.CallSpan(attempt)] if tracing.is_enabled(os.environ) else []
    rate = Quota(settings.external_service_rate_per_second, 1)
    retry = RetryOptions(
        settings.external_service_attempts,
        # The last attempt must start early enough to end in time, even after a long Retry-After.
        total_seconds=longest_call_seconds(settings) - timeout,
        backoff=FullJitter(_LONGEST_WAITS),
        retry_on=is_worth_retrying,
    )
    return Policies(
        RateLimit(
            memory_rate_limiter("token_bucket", rate, clock),
            RateLimitOptions(key=NAME, max_wait_seconds=timeout),
            clock,
            name=f"{NAME}.rate-limiter",
            listener=listener,
        ),
        Bulkhead(
            BulkheadOptions(permits, max_waiting=10 * permits, max_wait_seconds=timeout),
            clock,
            name=f"{NAME}.bulkhead",
            listener=listener,
        ),
        Pipeline(
            breaker,
            Retry(retry, clock, SystemRandomizer(), name=NAME, listener=listener),
            CallTimer(attempt, clock, is_failure),
            *spans,
            Timeout(timeout, clock, name=NAME, listener=listener),
        ),
    )
