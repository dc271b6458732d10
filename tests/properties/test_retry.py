"""The retry against a model of it: when each attempt begins, and why the last one was the last."""

from hypothesis import given, settings
from hypothesis import strategies as st

from src.resilience.clock import SystemRandomizer
from src.resilience.events import Retried
from src.resilience.retry import (
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    Exponential,
    Fixed,
    FullJitter,
    Linear,
    Retry,
    RetryBudget,
    RetryOptions,
)
from tests.support.clock import FakeClock
from tests.support.listener import RecordingListener

SECONDS = st.floats(0.001, 100.0)
GROWING = st.one_of(
    st.builds(Linear, SECONDS, SECONDS),
    st.builds(Exponential, SECONDS, SECONDS, st.floats(1.0, 10.0)),
)
BACKOFFS = st.one_of(
    st.builds(Fixed, st.floats(0.0, 100.0)),
    GROWING,
    st.builds(FullJitter, GROWING),
    st.builds(EqualJitter, GROWING),
    st.builds(DecorrelatedJitter, SECONDS, SECONDS),
)
DRAWS = st.floats(0.0, 1.0, exclude_max=True)


class Draws:
    """A randomizer that hypothesis holds the dice of."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def random(self) -> float:
        return self._data.draw(DRAWS)


class RefusedError(Exception):
    def __init__(self, retry_after: float | None) -> None:
        super().__init__("no")
        if retry_after is not None:
            self.retry_after = retry_after


def longest(backoff: Backoff) -> float:
    """The upper bound of a backoff's delays."""
    if isinstance(backoff, Fixed):
        return backoff.seconds
    if isinstance(backoff, (FullJitter, EqualJitter)):
        return longest(backoff.backoff)
    return backoff.cap_seconds


@settings(deadline=None)
@given(
    attempts=st.integers(1, 8),
    total_seconds=st.floats(0.01, 300.0),
    backoff=BACKOFFS,
    failures=st.lists(st.tuples(st.floats(0.0, 20.0), st.none() | st.floats(0.0, 200.0)), max_size=10),
    seed=st.integers(0, 2**32),
)
async def test_attempts_begin_when_the_model_says(
    attempts: int,
    total_seconds: float,
    backoff: Backoff,
    failures: list[tuple[float, float | None]],
    seed: int,
):
    clock, listener, began = FakeClock(), RecordingListener(), []

    async def call() -> str:
        began.append(clock.monotonic())
        if len(began) > len(failures):
            return "done"
        takes, retry_after = failures[len(began) - 1]
        clock.jump(takes)
        raise RefusedError(retry_after)

    options = RetryOptions(attempts=attempts, total_seconds=total_seconds, backoff=backoff)
    policy = Retry(options, clock, SystemRandomizer(seed), listener=listener)
    try:
        succeeded = await clock.drive(policy.run(call)) == "done"
    except RefusedError:
        succeeded = False

    # The model: the same draws, added up.
    randomizer, now, wait, expected, delays = SystemRandomizer(seed), 0.0, 0.0, [0.0], []
    for attempt, (takes, retry_after) in enumerate(failures, start=1):
        now += takes
        wait = backoff.delay(attempt, wait, randomizer)
        delay = max(wait, retry_after or 0.0)
        if attempt == attempts or now + delay >= total_seconds:
            break
        now += delay
        delays.append(delay)
        expected.append(now)
    assert began == expected
    assert [event.delay for event in listener.of(Retried)] == delays
    assert succeeded == (len(expected) > len(failures))
    assert len(began) <= attempts
    assert all(moment < total_seconds for moment in began)


@given(backoff=BACKOFFS, data=st.data())
def test_delays_stay_within_their_bounds(backoff: Backoff, data: st.DataObject):
    randomizer, previous = Draws(data), 0.0
    for attempt in (1, 2, 3, 10, 5000):
        previous = backoff.delay(attempt, previous, randomizer)

        assert 0 <= previous <= longest(backoff)


@given(
    share=st.floats(0.01, 1.0),
    reserve=st.floats(1.0, 20.0),
    wishes=st.lists(st.integers(0, 5), max_size=100),
)
def test_a_budget_allows_no_more_than_its_share_and_reserve(share: float, reserve: float, wishes: list[int]):
    budget, retries = RetryBudget(share, reserve), 0
    for calls, wanted in enumerate(wishes, start=1):
        budget.count_call()
        retries += sum(budget.take_retry() for _ in range(wanted))

        assert retries <= reserve + share * calls + 1e-6
