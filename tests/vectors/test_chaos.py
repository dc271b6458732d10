"""Which calls Polly's chaos strategies change, and which ours changes.

Polly draws a number for each call and injects where the number is below the rate (`ChaosStrategyTests`,
`ChaosFaultStrategyTests`, `ChaosLatencyStrategyTests`, `ChaosOutcomeStrategyTests`). Ours has no `Enabled`: a
rate of 0 is the same.
"""

import pytest

from src.resilience.chaos import Chaos, ChaosOptions, Fault, Injection, Latency, Outcome
from src.resilience.events import FaultInjected
from tests.support.clock import FakeClock, FakeRandomizer
from tests.support.listener import RecordingListener

RATES = [  # rate, the number drawn, whether the call is changed
    (0.6, 0.5, True),  # Given_enabled_and_randomly_within_threshold
    (0.3, 0.5, False),  # Given_enabled_and_randomly_not_within_threshold
    (0.5, 0.5, False),  # Should_coerce_injection_rate: 0.5 is not below 0.5
    (1.0, 0.999, True),
    (0.0, 0.0, False),  # Enabled = false
    (0.5001, 0.5, True),
]


@pytest.mark.parametrize(("rate", "draw", "is_changed"), RATES)
@pytest.mark.parametrize(
    ("injection", "outcome", "seconds", "runs"),
    [
        (Fault(LookupError), LookupError, 0.0, False),
        (Outcome("injected"), "injected", 0.0, False),
        (Latency(5.0), "answer", 5.0, True),
    ],
    ids=["fault", "outcome", "latency"],
)
async def test_it_changes_the_calls_that_polly_changes(
    clock: FakeClock,
    rate: float,
    draw: float,
    is_changed: bool,
    injection: Injection,
    outcome: str | type[Exception],
    seconds: float,
    runs: bool,
) -> None:
    listener, calls = RecordingListener(), 0
    chaos = Chaos(ChaosOptions(injection, rate), clock, FakeRandomizer([draw]), listener=listener)

    async def call() -> str:
        nonlocal calls
        calls += 1
        return "answer"

    try:
        ended = await clock.drive(chaos.run(call))
    except LookupError as error:
        ended = type(error)
    assert ended == (outcome if is_changed else "answer")
    assert calls == (runs or not is_changed)
    assert clock.monotonic() == (seconds if is_changed else 0.0)
    assert len(listener.of(FaultInjected)) == is_changed


@pytest.mark.parametrize("rate", [-1.0, 1.1])
def test_a_rate_out_of_range_is_an_error(rate: float) -> None:
    """Polly coerces a rate that its generator returns to 0 or 1. Ours raises an error for a wrong setting."""
    with pytest.raises(ValueError, match="rate must be"):
        ChaosOptions(Fault(LookupError), rate)
