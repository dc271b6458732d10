"""The external service, and what stands around every call of it."""

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
from src.telemetry.instruments import Measured

_LONGEST_WAITS = Exponential(base_seconds=0.1, cap_seconds=5.0)
"""Between attempts: each wait is drawn from nothing to this."""

_CALL_MARGIN_SECONDS = 1.0
"""For what the attempts and waits of a call take beyond their limits, on a machine under load."""


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
        """Return all of them as one policy."""
        return Pipeline(self.rate_limit, self.bulkhead, self.protection)


def breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    """Return the circuit breaker around the external service, the fleet's."""
    options = CircuitBreakerOptions(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        open_seconds=settings.circuit_breaker_reset_timeout,
        probe_lease_seconds=longest_call_seconds(settings),
    )
    store = breaker_store(link, clock)
    return CircuitBreaker(NAME, store, options, clock, listener=listener, is_failure=is_failure)


def breaker_store(link: RedisLink, clock: Clock) -> FailoverBreakerStore:
    """Return where a breaker's state is: in Redis, or in this process while Redis is unavailable."""
    return FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))


def longest_call_seconds(settings: Settings) -> float:
    """Return how long a call of the external service may take that the breaker lets through."""
    attempts, randomizer = settings.external_service_attempts, SystemRandomizer()
    waits = [_LONGEST_WAITS.delay(attempt, 0.0, randomizer) for attempt in range(1, attempts)]
    return attempts * settings.external_service_timeout + sum(waits) + _CALL_MARGIN_SECONDS


def longest_computation_seconds(settings: Settings) -> float:
    """Return how long that takes at most with the waits for the rate limiter and the bulkhead before it."""
    return longest_call_seconds(settings) + 2 * settings.external_service_timeout


def provider_in_process(settings: Settings, clock: Clock) -> httpx.ASGITransport:
    """Return a provider to be called without a network."""
    provider = create_provider_app(
        Faults(failure_rate=settings.external_service_failure_rate),
        chance=SystemRandomizer().random,
        now=clock.monotonic,
        sleep=clock.sleep,
    )
    return httpx.ASGITransport(provider)


def client(settings: Settings, provider: httpx.ASGITransport | None) -> httpx.AsyncClient:
    """Return a client of the provider: the one in this process, None for the one that the settings name."""
    url, timeout = url_of(settings), settings.external_service_timeout
    hooks = {"request": [tracing.send_trace_context]} if tracing.is_asked_for(os.environ) else {}
    transport = provider or SingleUseTransport()
    return httpx.AsyncClient(
        base_url=url, timeout=timeout, transport=transport, event_hooks=hooks, trust_env=False
    )


def url_of(settings: Settings) -> str:
    """Return where the external service is."""
    return str(settings.external_service_url or "http://provider")


def policies(settings: Settings, breaker: CircuitBreaker, clock: Clock, listener: Listener) -> Policies:
    """Return the policies around every call of the external service; the fallback is the summary cache's."""
    patience = settings.external_service_timeout
    permits = settings.external_service_max_concurrency
    attempt = f"{NAME}.attempt"
    spans = [tracing.Traced(attempt)] if tracing.is_asked_for(os.environ) else []
    rate = Quota(settings.external_service_rate_per_second, 1)
    retry = RetryOptions(
        settings.external_service_attempts,
        # The last attempt begins in time to end by then, also where the service asks for long waits.
        total_seconds=longest_call_seconds(settings) - patience,
        backoff=FullJitter(_LONGEST_WAITS),
        retry_on=is_worth_retrying,
    )
    return Policies(
        RateLimit(
            memory_rate_limiter("token_bucket", rate, clock),
            RateLimitOptions(key=NAME, max_wait_seconds=patience),
            clock,
            name=f"{NAME}.rate-limiter",
            listener=listener,
        ),
        Bulkhead(
            BulkheadOptions(permits, max_waiting=10 * permits, max_wait_seconds=patience),
            clock,
            name=f"{NAME}.bulkhead",
            listener=listener,
        ),
        Pipeline(
            breaker,
            Retry(retry, clock, SystemRandomizer(), name=NAME, listener=listener),
            Measured(attempt, clock, is_failure),
            *spans,
            Timeout(patience, clock, name=NAME, listener=listener),
        ),
    )
