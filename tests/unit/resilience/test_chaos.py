"""The chaos policy."""

import asyncio
import math

import pytest

from src.resilience.chaos import Chaos, ChaosOptions, Fault, Injection, Latency, Outcome
from src.resilience.clock import SystemRandomizer
from src.resilience.events import FaultInjected
from src.resilience.pipeline import Pipeline
from tests.support.clock import FakeClock, FakeRandomizer
from tests.support.listener import RecordingListener


class Call:
    """A call that returns a result, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self) -> str:
        self.runs += 1
        return "done"


def chaos(
    clock: FakeClock,
    injection: Injection,
    rate: float = 1.0,
    draws: tuple[float, ...] = (0.5,),
    listener=lambda _: None,
) -> Chaos:
    options = ChaosOptions(injection, rate)
    return Chaos(options, clock, FakeRandomizer(draws), name="spoiler", listener=listener)


class TestInjections:
    async def test_a_fault_is_raised_in_place_of_the_call(self, clock: FakeClock):
        call = Call()

        with pytest.raises(ConnectionError, match="made up"):
            await chaos(clock, Fault(lambda: ConnectionError("made up"))).run(call)

        assert call.runs == 0

    async def test_a_fault_is_a_new_error_each_time(self, clock: FakeClock):
        policy, errors = chaos(clock, Fault(ConnectionError)), []
        for _ in range(2):
            with pytest.raises(ConnectionError) as raised:
                await policy.run(Call())
            errors.append(raised.value)

        assert errors[0] is not errors[1]

    async def test_latency_comes_before_the_call(self, clock: FakeClock):
        call = Call()

        assert await clock.drive(chaos(clock, Latency(3.0)).run(call)) == "done"
        assert clock.sleeps == [3.0]
        assert call.runs == 1

    async def test_an_outcome_is_returned_in_place_of_the_call(self, clock: FakeClock):
        call = Call()

        assert await chaos(clock, Outcome("made up")).run(call) == "made up"
        assert call.runs == 0

    @pytest.mark.parametrize(
        ("injection", "kind"),
        [(Fault(ConnectionError), "fault"), (Latency(3.0), "latency"), (Outcome(None), "outcome")],
    )
    async def test_each_event_is_sent_before_the_injection_ends(
        self, clock: FakeClock, listener: RecordingListener, injection: Injection, kind: str
    ):
        caller = asyncio.create_task(chaos(clock, injection, listener=listener).run(Call()))
        await clock.advance(1.0)

        assert listener.events == [FaultInjected(policy="spoiler", kind=kind)]

        await clock.advance(2.0)
        await asyncio.wait((caller,))
        assert (caller.exception() is not None) == (kind == "fault")

    async def test_several_injections_run_in_order(self, clock: FakeClock):
        policies = Pipeline(chaos(clock, Latency(3.0)), chaos(clock, Outcome("made up")))

        assert await clock.drive(policies.run(Call())) == "made up"
        assert clock.sleeps == [3.0]


class TestRate:
    @pytest.mark.parametrize(("draw", "runs"), [(0.0, 0), (0.29, 0), (0.3, 1), (0.99, 1)])
    async def test_a_call_gets_an_injection_if_its_random_number_is_below_the_rate(
        self, clock: FakeClock, listener: RecordingListener, draw: float, runs: int
    ):
        call = Call()

        await chaos(clock, Outcome(None), rate=0.3, draws=(draw,), listener=listener).run(call)

        assert call.runs == runs
        assert len(listener.events) == 1 - runs

    async def test_the_share_of_calls_with_an_injection_is_the_rate(self, clock: FakeClock):
        call = Call()
        policy = Chaos(ChaosOptions(Outcome(None), rate=0.3), clock, SystemRandomizer(seed=1))
        for _ in range(1000):
            await policy.run(call)

        assert call.runs == pytest.approx(700, abs=50)

    async def test_the_rate_can_be_changed_at_run_time(self, clock: FakeClock):
        policy, call = chaos(clock, Outcome(None), rate=1.0, draws=(0.0,)), Call()

        policy.rate = 0.0
        await policy.run(call)
        assert (policy.rate, call.runs) == (0.0, 1)

        policy.rate = 1.0
        await policy.run(call)
        assert (policy.rate, call.runs) == (1.0, 1)

    @pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf])
    def test_invalid_rates_are_rejected_at_creation_and_later(self, clock: FakeClock, rate: float):
        with pytest.raises(ValueError, match="rate"):
            ChaosOptions(Outcome(None), rate)

        policy = chaos(clock, Outcome(None), rate=0.5)
        with pytest.raises(ValueError, match="rate"):
            policy.rate = rate
        assert policy.rate == 0.5


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_invalid_latencies_are_rejected(seconds: float):
    with pytest.raises(ValueError, match="seconds"):
        Latency(seconds)
