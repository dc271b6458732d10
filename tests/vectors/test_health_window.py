"""What the windows of other projects' breakers count, call by call, and what ours count.

A vector's steps are words: `S` a success, `F` a failure, `s` a slow success, `f` a slow failure, `+2` two
seconds that go by, and `4/1/0` the calls, failures and slow calls in the window now.
"""

import pytest

from src.resilience.circuit_breaker.health_window import CountWindow, HealthWindow, TimeWindow
from tests.support.clock import FakeClock

COUNTED = {
    "resilience4j, FixedSizeSlidingWindowMetricsTest, checkInitialBucketCreation": (5, "0/0/0"),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testRecordSuccess": (5, "S 1/0/0"),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testRecordError": (5, "F 1/1/0"),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testRecordSlowSuccess": (5, "s 1/0/1"),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testSlowCallsPercentage": (5, "s f S S S 5/1/2"),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testSlidingWindowMetrics": (
        4,
        "F 1/1/0 S 2/1/0 S 3/1/0 S 4/1/0 S 4/0/0",
    ),
    "resilience4j, FixedSizeSlidingWindowMetricsTest, testSlidingWindowMetricsWithSlowCalls": (
        2,
        "f 1/1/1 s 2/1/2 S 2/0/1 S 2/0/0 S 2/0/0",
    ),
    "failsafe-go, TestClosedStateFailureWithFailureRatio, the last three calls": (3, "F S F 3/2/0 S 3/1/0"),
    "failsafe-go, TestClosedStateSuccessWithFailureRatio, the last four calls": (
        4,
        "S F S F 4/2/0 S 4/2/0 F 4/2/0",
    ),
}

TIMED = {
    "resilience4j, SlidingTimeWindowMetricsTest, shouldClearSlidingTimeWindowMetrics": (
        5.0,
        "F 1/1/0 +0.1 S 2/1/0 +0.7 f 3/2/1 +4 3/2/1 +1 0/0/0 +0.1 S 1/0/0 +5 S 1/0/0",
    ),
    "resilience4j, SlidingTimeWindowMetricsTest, testSlowCallsPercentage": (5.0, "s f S S S 5/1/2"),
    "Polly, RollingHealthMetricsTests, Ctor_EnsureDefaults": (10.0, "0/0/0"),
    "Polly, RollingHealthMetricsTests, Increment_Ok": (10.0, "F S S S S 5/1/0"),
    "Polly, RollingHealthMetricsTests, GetHealthInfo_EnsureWindowRespected": (
        10.0,
        "F S +2 2/1/0 F S +2 4/2/0 S S +2 6/2/0 S S +2 8/2/0 S S +2 8/1/0 +2 6/0/0",
    ),
    "Polly, RollingHealthMetricsTests, GetHealthInfo_EnsureWindowCapacityRespected": (
        10.0,
        "S +1 S +1 S +1 S +1 S +1 S +1 S +1 S +1 S +1 S +1 9/0/0 +1 8/0/0",
    ),
    "Polly, RollingHealthMetricsTests, GetHealthInfo_SamplingDurationRespected": (10.0, "S S +10 0/0/0"),
    "Polly, the same with a variance of 1 ms": (10.0, "S S +10.001 0/0/0"),
    "gobreaker, TestRollingWindowCircuitBreaker: the oldest part of the window leaves it": (
        30.0,
        "S F S F +29 4/2/0 +2 0/0/0 F 1/1/0",
    ),
    "failsafe-go, should support time based failure threshold": (0.2, "F S +0.21 F S +0.05 2/1/0 F 3/2/0"),
}


def replay(window: HealthWindow, steps: str, clock: FakeClock) -> None:
    for number, step in enumerate(steps.split()):
        if step.startswith("+"):
            clock.jump(float(step))
        elif step in "SFsf":
            window.record(failed=step in "Ff", slow=step in "sf")
        else:
            assert "/".join(map(str, window.health())) == step, number


@pytest.mark.parametrize(("size", "steps"), COUNTED.values(), ids=COUNTED.keys())
def test_a_window_of_calls_counts_as_the_source(size: int, steps: str, clock: FakeClock) -> None:
    replay(CountWindow(size), steps, clock)


@pytest.mark.parametrize(("seconds", "steps"), TIMED.values(), ids=TIMED.keys())
def test_a_window_of_time_counts_as_the_source(seconds: float, steps: str, clock: FakeClock) -> None:
    replay(TimeWindow(seconds, clock), steps, clock)
