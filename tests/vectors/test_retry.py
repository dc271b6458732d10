"""The waits between attempts in other projects and in this library.

If this library differs, the row has the wait of this library, and its comment has that of the source.
"""

import math

import pytest

from src.resilience.clock import SystemRandomizer
from src.resilience.retry import (
    IMMEDIATE,
    Backoff,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
    Retry,
    RetryBudget,
    RetryOptions,
)
from tests.support.clock import FakeClock, FakeRandomizer

DRAWS = 20_000
DAY = 86_400.0

WAITS: dict[str, tuple[Backoff, dict[int, float]]] = {
    "tenacity, test_exponential": (
        Exponential(1.0, cap_seconds=1e9),
        {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 128},
    ),
    "tenacity, test_exponential_with_max_wait": (
        Exponential(1.0, cap_seconds=40.0),
        {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 40, 8: 40, 50: 40},
    ),
    "tenacity, test_exponential_with_max_wait_and_multiplier": (
        Exponential(1.0, cap_seconds=50.0),
        {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 50, 8: 50, 50: 50},
    ),
    # tenacity also has a minimum wait, `min=20`. This library has none: use a longer base instead.
    "tenacity, test_exponential_caps_when_max_multiplier_ratio_underflows": (
        Exponential(1e300, cap_seconds=1e-100),
        {1: 1e-100},
    ),
    # tenacity, test_incrementing_sleep: 500 s, then 100 s more each time. `Linear` begins with one step.
    "tenacity, wait_incrementing(100, 100)": (Linear(100.0, cap_seconds=1e9), {1: 100, 2: 200, 3: 300}),
    "tenacity, test_fixed_sleep": (Fixed(1.0), {1: 1, 2: 1, 9: 1}),
    "tenacity, test_no_sleep": (IMMEDIATE, {1: 0, 18: 0}),
    "stamina, test_backoff_no_overflow_on_high_attempt_numbers": (
        Exponential(0.1, cap_seconds=5.0),
        {1: 0.1, 2: 0.2, 1_023: 5, 1_024: 5, 1_025: 5, 1_000_000: 5},
    ),
    "Polly, Constant_Ok": (Fixed(1.0), {1: 1, 2: 1, 3: 1}),
    "Polly, Linear_Ok": (Linear(1.0, cap_seconds=DAY), {1: 1, 2: 2, 3: 3}),
    "Polly, Exponential_Ok": (Exponential(1.0, cap_seconds=DAY), {1: 1, 2: 2, 3: 4}),
    "Polly, MaxDelay_Ok, linear": (Linear(10.0, cap_seconds=1.0), {3: 1}),
    "Polly, MaxDelay_Ok, exponential": (Exponential(10.0, cap_seconds=1.0), {3: 1}),
    "Polly, GetRetryDelay_OverflowWithMaxDelay_ReturnsMaxDelay": (
        Exponential(DAY, cap_seconds=2 * DAY),
        {1_001: 2 * DAY},
    ),
    "resilience4j, IntervalFunction.ofExponentialBackoff(500 ms, 1.5)": (
        Exponential(0.5, cap_seconds=DAY, factor=1.5),
        {1: 0.5, 2: 0.75, 3: 1.125, 4: 1.6875},
    ),
    "failsafe-go, WithBackoffFactor(1 s, 30 s, 3)": (
        Exponential(1.0, cap_seconds=30.0, factor=3.0),
        {1: 1, 2: 3, 3: 9, 4: 27, 5: 30},
    ),
}


@pytest.mark.parametrize(("backoff", "waits"), WAITS.values(), ids=WAITS.keys())
def test_the_waits_agree_with_the_source(backoff: Backoff, waits: dict[int, float]) -> None:
    randomizer = FakeRandomizer()
    assert {attempt: backoff.delay(attempt, 0.0, randomizer) for attempt in waits} == pytest.approx(waits)


@pytest.mark.parametrize(
    ("attempt", "ceiling"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 32.0), (8, 60.0), (9, 60.0)],
)
def test_full_jitter_as_tenacitys_wait_random_exponential(attempt: int, ceiling: float) -> None:
    """tenacity, test_wait_random_exponential and …_statistically: uniform from 0, on average half."""
    backoff, randomizer = FullJitter(Exponential(0.5, 60.0)), SystemRandomizer(seed=attempt)
    waits = [backoff.delay(attempt, 0.0, randomizer) for _ in range(DRAWS)]
    assert 0 <= min(waits) <= max(waits) <= ceiling
    assert sum(waits) / DRAWS == pytest.approx(ceiling / 2, rel=0.03)


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 0.1), (2, 0.2), (5, 1.6), (20, 5.0)])
@pytest.mark.parametrize(("jitter", "share"), [(FullJitter, 0.0), (EqualJitter, 0.5)])
def test_jitters_as_the_aws_blog_defines_them(attempt: int, ceiling: float, jitter, share: float) -> None:
    """AWS Architecture Blog, "Exponential Backoff And Jitter", 2015: full and equal jitter."""
    backoff, randomizer = jitter(Exponential(0.1, 5.0)), SystemRandomizer(seed=1)
    waits = [backoff.delay(attempt, 0.0, randomizer) for _ in range(DRAWS)]
    assert share * ceiling <= min(waits) <= max(waits) <= ceiling
    assert sum(waits) / DRAWS == pytest.approx((1 + share) / 2 * ceiling, rel=0.02)


@pytest.mark.parametrize(
    ("attempts", "total_seconds", "expected"),
    [
        (3, math.inf, 3),  # tenacity, test_stop_after_attempt; Polly, MaxRetryAttempts = 2
        (1, math.inf, 1),  # resilience4j, maxAttempts(1): no retry
        # tenacity, test_stop_before_delay: no attempt begins once the wait would reach the time in all
        (100, 3.5, 4),
        (100, 3.0, 3),
    ],
)
async def test_the_number_of_attempts_agrees_with_the_source(
    clock: FakeClock, attempts: int, total_seconds: float, expected: int
) -> None:
    begun = 0

    async def call() -> None:
        nonlocal begun
        begun += 1
        raise ConnectionError

    options = RetryOptions(attempts, min(total_seconds, DAY), backoff=Fixed(1.0))
    with pytest.raises(ConnectionError):
        await clock.drive(Retry(options, clock, FakeRandomizer()).run(call))
    assert begun == expected


BUDGETS = {
    # Finagle, RetryBudgetTest: a share of the calls, after a reserve. `D` a call, `W` a retry, `w` none left.
    "no calls yet: the reserve alone": (0.5, 2.0, "W W w"),
    "half of the calls": (0.5, 1.0, "W w D w D W w"),
    "a fifth of the calls": (0.2, 1.0, "W w 4*D w D W w"),
    "as many retries as calls": (1.0, 1.0, "W D W D W w"),
    "calls without retries save no more than the reserve": (0.5, 2.0, "100*D W W w"),
}


@pytest.mark.parametrize(("share", "reserve", "steps"), BUDGETS.values(), ids=BUDGETS.keys())
def test_a_budget_lets_through_the_share_of_retries_that_finagle_does(
    share: float, reserve: float, steps: str
) -> None:
    """Finagle also has a time after which calls are forgotten, and saves without a limit until then."""
    budget = RetryBudget(share, reserve)
    for step in steps.split():
        times, _, name = step.rpartition("*")
        for _ in range(int(times or 1)):
            if name == "D":
                budget.count_call()
            else:
                assert budget.take_retry() is (name == "W"), step
