"""The adaptive limit of concurrency, and its algorithms."""

import asyncio
import math

import pytest

from src.resilience.adaptive_concurrency import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Aimd,
    Gradient,
    Round,
)
from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.errors import BulkheadFullError, CircuitOpenError
from src.resilience.events import LimitChanged
from tests.support.clock import FakeClock, settle
from tests.support.listener import RecordingListener


def adaptive(clock: FakeClock, limit: int = 4, listener=lambda _: None, **options) -> AdaptiveConcurrency:
    room = Bulkhead(BulkheadOptions(permits=limit, max_waiting=100, max_wait_seconds=1000.0), clock)
    options = AdaptiveConcurrencyOptions(**{"max_limit": 20, "round_calls": 1, **options})
    return AdaptiveConcurrency(
        options, Aimd(2.0, backoff=0.5), room, clock, name="external", listener=listener
    )


async def run(
    policy: AdaptiveConcurrency,
    clock: FakeClock,
    calls: int,
    seconds: float = 1.0,
    error: BaseException | None = None,
) -> None:
    """Run `calls` concurrent calls of the given duration that succeed or fail."""

    async def call() -> None:
        await clock.sleep(seconds)
        if error is not None:
            raise error

    await clock.drive(asyncio.gather(*(policy.run(call) for _ in range(calls)), return_exceptions=True))


class TestRounds:
    async def test_a_successful_round_raises_the_limit(self, clock: FakeClock, listener: RecordingListener):
        policy = adaptive(clock, listener=listener)

        await run(policy, clock, 4)

        assert policy.limit == 5
        assert listener.events == [LimitChanged(policy="external", before=4, after=5)]

    async def test_a_round_of_slow_calls_lowers_the_limit(
        self, clock: FakeClock, listener: RecordingListener
    ):
        policy = adaptive(clock, listener=listener)

        await run(policy, clock, 4, seconds=2.1)

        assert policy.limit == 2
        assert listener.events == [LimitChanged(policy="external", before=4, after=2)]

    async def test_a_round_of_failures_lowers_the_limit(self, clock: FakeClock):
        policy = adaptive(clock)

        await run(policy, clock, 4, error=ConnectionError())

        assert policy.limit == 2

    async def test_a_round_below_the_limit_does_not_change_the_limit(
        self, clock: FakeClock, listener: RecordingListener
    ):
        policy = adaptive(clock, listener=listener)

        for _ in range(4):
            await run(policy, clock, 3)

        assert policy.limit == 4
        assert listener.events == []

    async def test_a_round_has_as_many_calls_as_the_limit(self, clock: FakeClock):
        policy = adaptive(clock)

        await run(policy, clock, 3, seconds=2.1)
        assert policy.limit == 4

        await run(policy, clock, 1, seconds=2.1)
        assert policy.limit == 2

    async def test_a_round_has_at_least_the_minimum_of_calls(self, clock: FakeClock):
        policy = adaptive(clock, round_calls=6)

        await run(policy, clock, 4)
        assert policy.limit == 4

        await run(policy, clock, 2)
        assert policy.limit == 5

    async def test_calls_from_before_a_reduction_do_not_lower_it_again(self, clock: FakeClock):
        policy = adaptive(clock, limit=16)
        late = [asyncio.create_task(policy.run(lambda: clock.sleep(10.0))) for _ in range(8)]
        await settle()

        for _ in range(2):
            await run(policy, clock, 8, seconds=2.1)
        assert policy.limit == 8

        await clock.drive(asyncio.gather(*late))
        assert policy.limit == 8

    async def test_the_wait_for_a_permit_does_not_count_as_latency(self, clock: FakeClock):
        policy = adaptive(clock, limit=1)

        await run(policy, clock, 5, seconds=1.5)

        assert policy.limit > 1


class TestUncountedCalls:
    @pytest.mark.parametrize("error", [CircuitOpenError("breaker", "open", 1.0), asyncio.CancelledError()])
    async def test_rejected_and_cancelled_calls_do_not_count(self, clock: FakeClock, error: BaseException):
        policy = adaptive(clock)

        for _ in range(4):
            await run(policy, clock, 4, error=error)

        assert policy.limit == 4

    @pytest.mark.parametrize(
        "overload_on", [lambda error: isinstance(error, TimeoutError), TimeoutError, (TimeoutError, KeyError)]
    )
    async def test_an_error_that_is_no_sign_of_overload_does_not_count(self, clock: FakeClock, overload_on):
        policy = adaptive(clock, overload_on=overload_on)

        await run(policy, clock, 4, error=ValueError())
        assert policy.limit == 4

        await run(policy, clock, 4, error=TimeoutError())
        assert policy.limit == 2


class TestBounds:
    async def test_the_limit_does_not_exceed_the_maximum(self, clock: FakeClock):
        policy = adaptive(clock, max_limit=5)

        for _ in range(5):
            await run(policy, clock, 5)

        assert policy.limit == 5

    async def test_the_limit_does_not_fall_below_the_minimum(self, clock: FakeClock):
        policy = adaptive(clock, min_limit=3)

        for _ in range(5):
            await run(policy, clock, 4, seconds=2.1)

        assert policy.limit == 3

    @pytest.mark.parametrize("permits", [1, 9])
    def test_a_bulkhead_with_permits_outside_the_bounds_is_rejected(self, clock: FakeClock, permits: int):
        with pytest.raises(ValueError, match="permits must be from 2 to 8"):
            adaptive(clock, permits, min_limit=2, max_limit=8)


class TestCalls:
    async def test_the_caller_gets_the_result_or_error_of_the_call(self, clock: FakeClock):
        policy = adaptive(clock)
        error = ConnectionError("no")

        async def succeed() -> str:
            return "done"

        async def fail() -> None:
            raise error

        assert await policy.run(succeed) == "done"
        with pytest.raises(ConnectionError) as raised:
            await policy.run(fail)
        assert raised.value is error

    async def test_the_bulkhead_rejects_calls_beyond_the_limit(self, clock: FakeClock):
        room = Bulkhead(BulkheadOptions(permits=1), clock)
        policy = AdaptiveConcurrency(AdaptiveConcurrencyOptions(), Aimd(2.0), room, clock)
        inside = asyncio.create_task(policy.run(lambda: clock.sleep(1.0)))
        await settle()

        with pytest.raises(BulkheadFullError):
            await policy.run(lambda: clock.sleep(1.0))

        await clock.drive(inside)

    async def test_the_event_is_sent_after_the_permit_is_given_back(self, clock: FakeClock):
        room = Bulkhead(BulkheadOptions(permits=1), clock)
        in_use: list[int] = []
        policy = AdaptiveConcurrency(
            AdaptiveConcurrencyOptions(round_calls=1),
            Aimd(2.0),
            room,
            clock,
            listener=lambda _: in_use.append(room.in_use),
        )

        await policy.run(lambda: asyncio.sleep(0))

        assert in_use == [0, 0], "the change of the limit, and the end of the call"


class TestAimd:
    @pytest.mark.parametrize(
        ("ended", "limit"),
        [
            (Round([1.0] * 10, was_full=True), 11),
            (Round([1.0] * 10, was_full=False), 10),
            (Round([1.0] * 9 + [9.0], was_full=True), 11),
            (Round([1.0] * 9, failures=1, was_full=True), 11),
            (Round([1.0] * 8 + [9.0], failures=1, was_full=True), 7),
            (Round([1.0] * 8 + [9.0], failures=1, was_full=False), 7),
            (Round(failures=10), 7),
            (Round([2.0] * 10, was_full=True), 11),
        ],
    )
    def test_it_tolerates_a_share_of_bad_calls(self, ended: Round, limit: float):
        assert Aimd(2.0, tolerance=0.1, backoff=0.7).next_limit(10, ended) == pytest.approx(limit)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("target_seconds", value) for value in (0, -1, math.inf, math.nan)),
            *(("tolerance", value) for value in (-0.1, 1, math.nan)),
            *(("backoff", value) for value in (0, 1, -1, math.nan)),
        ],
    )
    def test_an_error_names_the_invalid_option(self, option: str, value: float):
        with pytest.raises(ValueError, match=option):
            Aimd(**{"target_seconds": 1.0, option: value})


def measured(unloaded_seconds: float, probe_every_rounds: int = 10) -> Gradient:
    """Return a gradient limit at 16 that has just measured its baseline."""
    gradient = Gradient(tolerance=0.25, probe_every_rounds=probe_every_rounds)
    assert gradient.next_limit(16, Round([9.0])) == 1
    assert gradient.next_limit(1, Round([unloaded_seconds])) == 16
    return gradient


class TestGradient:
    @pytest.mark.parametrize(
        ("ended", "limit"),
        [
            (Round([1.25] * 16, was_full=True), 16 + 4),
            (Round([1.25] * 16, was_full=False), 16),
            (Round([2.0] * 16, was_full=True), 10 + math.sqrt(10)),
            (Round([2.0] * 16, was_full=False), 10 + math.sqrt(10)),
            (Round([0.625, 1.875], was_full=True), 16 + 4),
            (Round([9.0] * 16, was_full=True), 8 + math.sqrt(8)),
            (Round([0.1] * 16, was_full=True), 32 + math.sqrt(32)),
            (Round([0.0] * 16, was_full=True), 32 + math.sqrt(32)),
            (Round([1.25] * 12, failures=4, was_full=True), 12 + math.sqrt(12)),
            (Round(failures=16), 8 + math.sqrt(8)),
        ],
    )
    def test_the_limit_follows_the_formula(self, ended: Round, limit: float):
        assert measured(1.0).next_limit(16, ended) == pytest.approx(limit)

    def test_the_baseline_is_measured_again_after_the_configured_rounds(self):
        gradient = measured(1.0, probe_every_rounds=2)
        usual = Round([1.25], was_full=True)

        assert [gradient.next_limit(16, usual) for _ in range(3)] == [20, 20, 1]
        assert gradient.next_limit(1, Round([2.0])) == 16
        assert gradient.next_limit(16, Round([2.5], was_full=True)) == 20

    def test_a_measurement_continues_if_all_calls_failed(self):
        gradient = Gradient()
        gradient.next_limit(16, Round([1.0]))

        assert gradient.next_limit(1, Round(failures=10)) == 1
        assert gradient.next_limit(1, Round([1.0])) == 16

    def test_calls_of_zero_duration_cause_no_error(self):
        assert measured(0.0).next_limit(16, Round([0.0], was_full=True)) == 32 + math.sqrt(32)

    def test_the_limit_falls_to_two_under_overload(self):
        gradient, limit = measured(1.0), 16
        limits = [limit := int(gradient.next_limit(limit, Round([9.0]))) for _ in range(6)]
        assert limits == [10, 7, 5, 4, 3, 2]

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("tolerance", value) for value in (-0.1, math.inf, math.nan)),
            *(("probe_every_rounds", value) for value in (0, -1, math.nan)),
        ],
    )
    def test_an_error_names_the_invalid_option(self, option: str, value: float):
        with pytest.raises(ValueError, match=option):
            Gradient(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("min_limit", value) for value in (0, -1, math.nan)),
        *(("max_limit", value) for value in (1, -1, math.nan)),
        *(("round_calls", value) for value in (0, -1, math.nan)),
    ],
)
def test_an_error_names_the_invalid_option(option: str, value: float):
    with pytest.raises(ValueError, match=option):
        AdaptiveConcurrencyOptions(**{"min_limit": 2, option: value})
