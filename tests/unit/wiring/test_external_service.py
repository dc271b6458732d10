"""The longest duration of calls of the external service, and of the lease of a dead prober."""

import pytest

from src.config.settings import Settings
from src.resilience.clock import SystemClock
from src.resilience.retry import Retry
from src.storage.redis.link import RedisAddress, RedisLink, connect
from src.wiring.external_service import (
    create_breaker,
    create_policies,
    longest_call_seconds,
    longest_call_with_waits_seconds,
)


def settings(**options):
    return Settings(_env_file=None, **options)


def breaker(limits):
    link = RedisLink(connect(RedisAddress("redis://127.0.0.1:1")), SystemClock())
    return create_breaker(limits, link=link, clock=SystemClock(), listener=print)


def breaker_options(**options):
    return breaker(settings(**options))._options


@pytest.mark.parametrize(
    ("attempts", "timeout", "seconds"), [(3, 5, 3 * 5 + 0.1 + 0.2 + 1), (1, 2, 2 + 1), (5, 1, 5 + 1.5 + 1)]
)
def test_a_call_takes_no_longer_than_its_attempts_and_the_waits_between_them(attempts, timeout, seconds):
    limits = settings(external_service_attempts=attempts, external_service_timeout=timeout)
    assert longest_call_seconds(limits) == pytest.approx(seconds)
    assert longest_call_with_waits_seconds(limits) == pytest.approx(seconds + 2 * timeout)


def test_no_attempt_begins_that_would_exceed_the_longest_duration():
    limits = settings()
    policies = create_policies(limits, breaker(limits), clock=SystemClock(), listener=print)
    (retry,) = (policy for policy in policies.protection.policies if isinstance(policy, Retry))
    latest_end = retry._options.total_seconds + limits.external_service_timeout
    assert latest_end == pytest.approx(longest_call_seconds(limits))


async def test_a_dead_prober_delays_the_breaker_for_at_most_the_longest_call():
    options = breaker_options()
    assert options.probe_lease_seconds == pytest.approx(16.3)
    assert options.probe_renewal_seconds == options.probe_lease_seconds < options.open_seconds


async def test_a_permit_is_renewed_within_the_open_time():
    options = breaker_options(circuit_breaker_reset_timeout=4)
    assert options.probe_renewal_seconds == 4
    assert options.probe_lease_seconds == pytest.approx(16.3)
