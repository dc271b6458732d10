"""The retry against a simple model: the start of each attempt, and the reason for the end.

Calls overlap, and two policies share one budget. Every time, draw and share is a multiple of a power of two,
so that sums are exact.
"""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from src.resilience.events import Retried, RetriesExhausted
from src.resilience.retry import (
    IMMEDIATE,
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
from tests.support.calls import ScriptedCall
from tests.support.clock import CyclingRandomizer
from tests.support.listener import RecordingListener
from tests.support.machines import TimelineMachine, run_machine

# Each backoff with its formula, a function of the failed attempt, the wait before it, and a random number.
BACKOFFS = [
    (IMMEDIATE, lambda n, before, draw: 0),
    (Fixed(0.5), lambda n, before, draw: 0.5),
    (Linear(0.5, 1.75), lambda n, before, draw: min(0.5 * n, 1.75)),
    (Exponential(0.25, 4, 3), lambda n, before, draw: min(0.25 * 3 ** (n - 1), 4)),
    (FullJitter(Exponential(0.25, 4)), lambda n, before, draw: draw() * min(0.25 * 2 ** (n - 1), 4)),
    (EqualJitter(Linear(0.5, 1.75)), lambda n, before, draw: (1 + draw()) * min(0.5 * n, 1.75) / 2),
    (
        DecorrelatedJitter(0.25, 4),
        lambda n, before, draw: min(between(0.25, 3 * max(before, 0.25), draw()), 4),
    ),
]


def between(low, high, share):
    return low + share * (high - low)


class RetryableError(Exception):
    """An error that may be retried, with or without `retry_after`."""


class FinalError(Exception):
    pass


class AbortedError(RetryableError):
    pass


ASKED = [None, None, None, 0.75, 2, 0.75, 2, 30, math.inf, math.nan, -1, "soon"]
"""What an error may have as its `retry_after`."""

takes = st.integers(0, 12).map(lambda n: n / 4)
endings = st.sampled_from([RetryableError] * 8 + [FinalError, AbortedError, "done", "done"])
scripts = st.lists(st.tuples(takes, endings, st.sampled_from(ASKED)), min_size=1, max_size=4)
budgets = st.tuples(st.sampled_from([0.25, 0.5, 1]), st.sampled_from([1, 2.5])) | st.none()
draws = st.lists(st.integers(0, 7).map(lambda n: n / 8), min_size=1, max_size=6)


class Model:
    """Predicts a call from its first attempt to its last."""

    def __init__(self, options, formula, budget, draws, timeline):
        self.options, self.formula, self.draw, self.timeline = options, formula, draws.random, timeline
        self.share, self.reserve = budget or (1, math.inf)
        self.tokens = self.reserve
        self.calls = self.retries = 0
        self.began = {}
        self.events = []

    def life(self, number, script):
        self.calls += 1
        self.tokens = min(self.reserve, self.tokens + self.share)
        first, wait = self.timeline.now, 0
        for attempt, (seconds, ending) in enumerate(script, 1):
            self.began.setdefault(number, []).append(self.timeline.now)
            yield seconds
            if not isinstance(ending, RetryableError) or isinstance(ending, AbortedError):
                return ending
            wait = self.formula(attempt, wait, self.draw)
            delay = self.at_least_retry_after(wait, ending)
            gone = self.timeline.now - first
            is_last = attempt == self.options.attempts or gone + delay >= self.options.total_seconds
            if is_last or self.tokens < 1:
                self.events.append(RetriesExhausted(policy="retry", attempts=attempt, error=ending))
                return ending
            self.tokens -= 1
            self.retries += 1
            self.events.append(Retried(policy="retry", attempt=attempt, delay=delay, error=ending))
            try:
                yield delay
            except GeneratorExit:  # cancelled: a retry that does not run does not use the budget
                self.tokens = min(self.reserve, self.tokens + 1)
                self.retries -= 1
                raise
        raise AssertionError("the script is too short")

    def at_least_retry_after(self, wait, error):
        asked = getattr(error, "retry_after", None)
        return wait if asked in (None, "soon") or math.isnan(asked) else max(wait, asked)


class RetryMachine(TimelineMachine):
    def __init__(self, backoff, formula):
        super().__init__()
        self.backoff, self.formula = backoff, formula

    @initialize(
        attempts=st.sampled_from([6, 4, 2, 1]),
        total_seconds=st.sampled_from([30, 5, 2]),
        budget=budgets,
        draws=draws,
    )
    def set_up(self, attempts, total_seconds, budget, draws):
        options = RetryOptions(
            attempts,
            total_seconds,
            self.backoff,
            retry_on=lambda error: isinstance(error, RetryableError),
            abort_on=lambda error: isinstance(error, AbortedError),
        )
        self.listener = RecordingListener()
        self.model = Model(options, self.formula, budget, CyclingRandomizer(draws), self.timeline)
        shared = {"budget": RetryBudget(*budget) if budget else None, "listener": self.listener}
        lots = CyclingRandomizer(draws)
        self.policies = [Retry(options, self.clock, lots, **shared) for _ in range(2)]

    @rule(script=scripts, policy=st.integers(0, 1), then=st.sampled_from([0, 0.5, 200]))
    def call_and_pass_time(self, script, policy, then):
        attempts = [(seconds, self.ending(ending, asked)) for seconds, ending, asked in script]
        attempts += [(0.25, attempts[-1][1])] * 5  # it continues with the last state
        self.begin_with_life(
            lambda number: self.model.life(number, attempts),
            self.policies[policy],
            lambda: ScriptedCall(self.clock, *attempts),
        )
        self.advance(then)

    def ending(self, ending, asked):
        if isinstance(ending, str):
            return ending
        error = ending("no")
        if asked is not None:
            error.retry_after = asked
        return error

    @invariant()
    def attempts_agree_with_the_model(self):
        for number, caller in enumerate(self.callers):
            assert caller.call.began == self.model.began[number]
        assert self.listener.events == self.model.events

    @invariant()
    def retries_stay_within_the_budget(self):
        assert self.model.retries <= self.model.reserve + self.model.share * self.model.calls


@pytest.mark.parametrize(("backoff", "formula"), BACKOFFS)
def test_retries_agree_with_the_model(backoff, formula):
    run_machine(lambda: RetryMachine(backoff, formula), examples=60, steps=12)
