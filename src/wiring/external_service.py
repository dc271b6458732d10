"""The client of the external service, and the policies around the calls of this service."""

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
"""The longest wait before each retry. The actual wait is random, from 0 to the longest wait."""

_CALL_MARGIN_SECONDS = 1.0
"""Extra time for a call: on a busy machine, attempts and waits may exceed their limits."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies around every call of the external service, outermost first.

    Attributes:
        rate_limit: Delays calls that exceed the rate.
        bulkhead: Delays calls while all its permits are taken.
        protection: The circuit breaker, the retry, and the policies around each attempt.
    """

    rate_limit: RateLimit
    bulkhead: Bulkhead
    protection: Pipeline

    def pipeline(self) -> Pipeline:
        """Return all policies as one pipeline."""
        return Pipeline(self.rate_limit, self.bulkhead, self.protection)


def create_breaker(settings: Settings, link: RedisLink, clock: Clock, listener: Listener) -> CircuitBreaker:
    """Return the circuit breaker of the external service, which all workers share."""
    options = CircuitBreakerOptions(
        failure_threshold=settings.circuit_breaker_failure_threshold,
        open_seconds=settings.circuit_breaker_reset_timeout,
        probe_lease_seconds=longest_call_seconds(settings),
    )
    store = create_breaker_store(link, clock)
    return CircuitBreaker(NAME, store, options, clock, listener=listener, is_failure=is_failure)


def create_breaker_store(link: RedisLink, clock: Clock) -> FailoverBreakerStore:
    """Return a breaker store that uses Redis, or the memory of this process while Redis is unavailable."""
    return FailoverBreakerStore(RedisBreakerStore(link), MemoryBreakerStore(clock))


def longest_call_seconds(settings: Settings) -> float:
    """Return the longest duration of a call of the external service, from its admission by the breaker."""
    attempts, randomizer = settings.external_service_attempts, SystemRandomizer()
    waits = [_LONGEST_WAITS.delay(attempt, 0.0, randomizer) for attempt in range(1, attempts)]
    return attempts * settings.external_service_timeout + sum(waits) + _CALL_MARGIN_SECONDS


def longest_call_with_waits_seconds(settings: Settings) -> float:
    """Return the longest duration of a call, with its waits for the rate limiter and the bulkhead."""
    return longest_call_seconds(settings) + 2 * settings.external_service_timeout


def in_process_transport(settings: Settings, clock: Clock) -> httpx.ASGITransport:
    """Return a transport to a simulated external service in this process, which needs no network."""
    provider = create_provider_app(
        Faults(failure_rate=settings.external_service_failure_rate),
        chance=SystemRandomizer().random,
        now=clock.monotonic,
        sleep=clock.sleep,
    )
    return httpx.ASGITransport(provider)


def create_client(settings: Settings, transport: httpx.ASGITransport | None) -> httpx.AsyncClient:
    """Return a client of the external service.

    Args:
        settings: The settings, with the URL and the timeout.
        transport: The transport to a simulated service in this process; None for a real connection.
    """
    url, timeout = external_service_url(settings), settings.external_service_timeout
    hooks = {"request": [tracing.send_trace_context]} if tracing.is_enabled(os.environ) else {}
    return httpx.AsyncClient(
        base_url=url,
        timeout=timeout,
        transport=transport or SingleUseTransport(),
        event_hooks=hooks,
        trust_env=False,
    )


def external_service_url(settings: Settings) -> str:
    """Return the URL of the external service."""
    return str(settings.external_service_url or "http://provider")


def create_policies(
    settings: Settings, breaker: CircuitBreaker, clock: Clock, listener: Listener
) -> Policies:
    """Return the policies around every call of the external service.

    The policies have no fallback: if a call fails, the summary cache returns the last good summary.
    """
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
