"""Adaptive concurrency against a simple model: the counted calls of a round, and the resulting limit."""

import math
from statistics import fmean

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from src.resilience.adaptive_concurrency import (
    AdaptiveConcurrency,
    AdaptiveConcurrencyOptions,
    Aimd,
    Gradient,
)
from src.resilience.bulkhead import Bulkhead, BulkheadOptions
from src.resilience.errors import BulkheadFullError, RateLimitedError
from src.resilience.events import LimitChanged
from tests.support.calls import OpenCall
from tests.support.listener import RecordingListener
from tests.support.machines import CallsMachine, run_machine

OVERLOAD = ConnectionError("overloaded")
INNER_REJECTION = RateLimitedError("inner", "the quota is spent", 1)

limits = st.integers(1, 9)
endings = st.sampled_from(["done", "done", "done", OVERLOAD, INNER_REJECTION])
durations = st.sampled_from([0.25, 0, 0.5, 1, 3])


class AimdModel:
    """Increases the limit by one after a good and full round, and reduces it by a share after a bad one."""

    def __init__(self, target, tolerance, backoff):
        self.target, self.tolerance, self.backoff = target, tolerance, backoff

    def next_limit_of_model(self, limit, calls, was_full):
        bad = [seconds for seconds in calls if seconds is None or seconds > self.target]
        if len(bad) / len(calls) > self.tolerance:
            return limit * self.backoff
        return limit + 1 if was_full else limit


class GradientModel:
    """Measures a baseline for a round at the lowest limit, then wanted_limit the latency for some rounds."""

    def __init__(self, tolerance, rounds):
        self.tolerance, self.rounds = tolerance, rounds
        self.rounds_left = 0
        self.unloaded = None
        self.limit_before = None  # while measuring

    def next_limit_of_model(self, limit, calls, was_full):
        succeeded = [seconds for seconds in calls if seconds is not None]
        if self.limit_before is not None:
            if not succeeded:
                return 1
            self.unloaded, self.rounds_left = fmean(succeeded), self.rounds
            limit, self.limit_before = self.limit_before, None
            return limit
        if self.rounds_left == 0:
            self.limit_before = limit
            return 1
        self.rounds_left -= 1
        busy = limit * self.gradient(succeeded, calls)
        wanted_limit = busy + math.sqrt(busy)
        return wanted_limit if was_full else min(wanted_limit, limit)

    def gradient(self, succeeded, calls):
        if not succeeded:
            return 0.5
        tolerated = self.unloaded * (1 + self.tolerance) * (len(succeeded) / len(calls))
        if fmean(succeeded) == 0:
            return 2
        return min(2, max(0.5, tolerated / fmean(succeeded)))


aimds = st.tuples(st.sampled_from([0.5, 1]), st.sampled_from([0, 0.25]), st.sampled_from([0.5, 0.75]))
gradients = st.tuples(st.sampled_from([0, 0.25, 1]), st.integers(1, 3))


class Model:
    """The running calls, and the counted calls of the round: their seconds, or None for an overload."""

    def __init__(self, algorithm, limit, options):
        self.algorithm, self.limit, self.options = algorithm, limit, options
        self.inside = {}  # the call, its start, and the number of the last decrease before its start
        self.lowered = 0
        self.round, self.was_full = [], False
        self.refused = set()
        self.changes = []

    def arrive(self, caller, now):
        if len(self.inside) >= self.limit:
            self.refused.add(caller)
            return
        self.inside[caller] = now, self.lowered
        self.was_full |= len(self.inside) >= self.limit

    def leave(self, caller, ending, now):
        if caller not in self.inside:
            return
        began_at, lowered = self.inside.pop(caller)
        if lowered == self.lowered and ending in ("done", OVERLOAD):
            self.round.append(now - began_at if ending == "done" else None)
        if len(self.round) >= max(self.limit, self.options.round_calls):
            self.end_round()

    def end_round(self):
        next_limit = math.floor(self.algorithm.next_limit_of_model(self.limit, self.round, self.was_full))
        after = max(self.options.min_limit, min(self.options.max_limit, next_limit))
        self.round, self.was_full = [], False
        if after != self.limit:
            self.changes.append(LimitChanged(policy="adaptive-concurrency", before=self.limit, after=after))
            self.lowered += after < self.limit
            self.limit = after


class AdaptiveConcurrencyMachine(CallsMachine):
    def __init__(self, algorithm):
        super().__init__()
        self.algorithm = algorithm

    @initialize(
        data=st.data(), bounds=st.tuples(limits, limits, limits).map(sorted), round_calls=st.integers(1, 4)
    )
    def set_up(self, data, bounds, round_calls):
        algorithm, algorithm_model, options_of_algorithms = self.algorithm
        arguments = data.draw(options_of_algorithms)
        low, start, high = bounds
        options = AdaptiveConcurrencyOptions(low, high, round_calls)
        self.listener = RecordingListener()
        self.bulkhead = Bulkhead(BulkheadOptions(start), self.clock)
        self.policy = AdaptiveConcurrency(
            options, algorithm(*arguments), self.bulkhead, self.clock, listener=self.listener
        )
        self.model = Model(algorithm_model(*arguments), start, options)

    @rule()
    def arrive(self):
        number = self.begin(self.policy, OpenCall)
        self.model.arrive(number, self.now)

    @precondition(lambda self: self.model.inside)
    @rule(place=st.integers(0, 20), ending=endings)
    def leave(self, place, ending):
        inside = list(self.model.inside)
        self.end(inside[place % len(inside)], ending)

    def end(self, number, ending):
        self.act(lambda: self.callers[number].call.end(ending))
        self.model.leave(number, ending, self.now)

    @rule(
        groups_of_calls=st.lists(st.tuples(durations, endings, endings), min_size=1, max_size=5),
        spare=st.sampled_from([0, 0, 1]),
    )
    def many_calls_begin_and_end(self, groups_of_calls, spare):
        for seconds, ending, first_ending in groups_of_calls:
            while len(self.model.inside) < self.model.limit - spare:
                self.arrive()
            self.advance(seconds)
            for place, number in enumerate(list(self.model.inside)):
                self.end(number, ending if place else first_ending)

    def cancel_call(self, number):
        super().cancel_call(number)
        self.model.leave(number, "cancelled", self.now)

    @invariant()
    def store_agrees_with_the_model(self):
        assert self.policy.limit == self.bulkhead.permits == self.model.limit
        assert {
            n for n, caller in enumerate(self.callers) if caller.call.is_running
        } == self.model.inside.keys()
        refused = [
            number
            for number, caller in enumerate(self.callers)
            if caller.outcome and isinstance(caller.outcome[1], BulkheadFullError)
        ]
        assert set(refused) == self.model.refused
        assert self.listener.events == self.model.changes


@pytest.mark.parametrize("algorithm", [(Aimd, AimdModel, aimds), (Gradient, GradientModel, gradients)])
def test_adaptive_concurrency_agrees_with_the_model(algorithm):
    run_machine(lambda: AdaptiveConcurrencyMachine(algorithm), examples=80, steps=15)
