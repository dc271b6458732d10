"""Rate limiters against simple models, and against their stated bounds with the worst arrivals."""

import asyncio
from dataclasses import dataclass, replace
from typing import get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Algorithm, Quota
from src.resilience.rate_limiter.store import Decision, combine
from src.storage.patterns.batched_rate_limiter import BatchedRateLimiter
from tests.contract.conftest import TEST_TIME
from tests.support.clock import FakeClock
from tests.support.machines import StoreMachine, run_machine
from tests.support.rate_limiter_model import RateLimiterModel

US = 1e-6

keys = st.sampled_from(["ann", "ann", "bob"])
costs = st.sampled_from([1, 1, 1, 2, 3, 8])
workers = st.integers(0, 1)
quotas = st.builds(
    lambda limit, window_us: Quota(limit, window_us * US),
    st.sampled_from([1, 2, 3, 5, 8]),
    st.sampled_from([8, 1000, 60_000_000, 59_999_983, 180_000_000]),
)
quota_lists = st.one_of(quotas.map(lambda quota: [quota]), st.lists(quotas, min_size=1, max_size=3))

BOUNDS = {
    "sliding_window_log": lambda limit: limit,
    "sliding_window_counter": lambda limit: max(1, 2 * limit - 2),
    "fixed_window": lambda limit: 2 * limit - 1,
    "token_bucket": lambda limit: 2 * limit - 1,
    "leaky_bucket": lambda limit: 2 * limit - 1,
}
"""The most units that may be let through in any window."""


def largest_count_in_any_window(units, window_us):
    return max((sum(start <= then < start + window_us for then in units) for start in units), default=0)


def later(decision, us):
    """Return a decision with its times reduced by the elapsed time, and the same units."""
    retry_after, reset_after = (
        max(0, round(seconds / US) - us) / 1e6 for seconds in (decision.retry_after, decision.reset_after)
    )
    return decision._replace(allowed=retry_after == 0, retry_after=retry_after, reset_after=reset_after)


@dataclass
class Refusal:
    """The last refusal of Redis, which a worker repeats until the retry time.

    Attributes:
        stands: Whether the key is unchanged since, so that Redis would decide the same.
    """

    cost: int
    at_us: int
    decision: Decision
    stands: bool = True

    def repeated(self, cost, now_us):
        """Return the repeated decision of the worker; None if Redis must decide."""
        gone = now_us - self.at_us
        if cost != self.cost or gone >= round(self.decision.retry_after / US):
            return None
        if not self.decision.parts:
            return later(self.decision, gone)
        return combine([later(part, gone) for part in self.decision.parts])


class RateLimiterMachine(StoreMachine):
    """Makes the same hits on limiters and on the model, and compares all values of their decisions.

    With Redis there are two limiters, those of two workers.
    """

    def __init__(self, algorithm, make_client):
        super().__init__(make_client)
        self.algorithm = algorithm
        self.refusals = {}  # by worker and key
        self.last_asked = None

    @initialize(quotas=quota_lists)
    def set_up(self, quotas):
        quotas = self.with_long_windows(quotas)
        self.model = RateLimiterModel(self.algorithm, quotas, self.clock)
        if self.link is None:
            self.limiters = [memory_rate_limiter(self.algorithm, quotas, self.clock)]
        else:
            shared = self.algorithm, quotas, self.link, self.clock
            self.limiters = [BatchedRateLimiter(*shared, time_source=TEST_TIME) for _ in range(2)]
        self.do(self.time.publish())

    def with_long_windows(self, quotas):
        """Return `quotas`, with windows longer than the machine if keys expire by the clock of a server."""
        if self.link is None:
            return quotas
        return [replace(quota, window_seconds=max(quota.window_seconds, 59.999983)) for quota in quotas]

    @rule(changed=st.sampled_from([[0], [1], [0, 1]]), quotas=quota_lists)
    def change_quotas(self, changed, quotas):
        """Change the quotas of some or all workers."""
        quotas = self.with_long_windows(quotas)
        if self.link is None:
            self.forget_free_keys()
        for worker in {worker % len(self.limiters) for worker in changed}:
            self.limiters[worker].change_quotas(quotas)
            self.refusals = {known: refusal for known, refusal in self.refusals.items() if known[0] != worker}
        for key in ("ann", "bob"):
            self.key_changed(key)
        self.last_asked = None
        if self.link is None:
            self.model.change(quotas)
            self.model.forget_dropped()

    def forget_free_keys(self):
        """Forget keys in the model that the memory limiter may have forgotten because they are free."""
        for key in ("ann", "bob"):
            for number in self.model.forget_free(key):
                self.limiters[0]._limiters()[number].forget(key)

    def as_worker(self, worker):
        """Let the model decide by the quotas of a worker, and return the number of the worker."""
        worker %= len(self.limiters)
        quotas = list(self.limiters[worker].quotas)
        if quotas != self.model.quotas:
            self.model.change(quotas)
            for refusal in self.refusals.values():  # its quotas may read the stored counts differently
                refusal.stands = False
        return worker

    @property
    def smallest_limit(self):
        return min(quota.limit for quota in self.model.quotas)

    @rule(worker=workers, key=keys, cost=costs)
    def hit(self, worker, key, cost):
        self.ask(worker, key, cost, "hit")

    @rule(worker=workers, key=keys, cost=costs)
    def peek(self, worker, key, cost):
        self.ask(worker, key, cost, "peek")

    @rule(key=keys, quarters=st.lists(st.integers(0, 4), min_size=1, max_size=10))
    def hit_repeatedly(self, key, quarters):
        for quarter in quarters:
            self.advance(quarter * self.model.quotas[0].unit_us // 4)
            self.ask(0, key, 1, "hit")

    @rule(worker=workers, asked=st.lists(st.tuples(keys, costs), min_size=2, max_size=8))
    def hit_together(self, worker, asked):
        worker = self.as_worker(worker)
        asked = [(key, min(cost, self.smallest_limit)) for key, cost in asked]
        known = [self.refusals.get((worker, key)) for key, _ in asked]
        decisions = self.do(self.hit_all(worker, asked))
        for (key, cost), refusal, decision in zip(asked, known, decisions, strict=True):
            again = refusal and refusal.repeated(cost, self.model.now_us)
            if again is not None:
                assert decision == again
                continue
            self.last_asked, self.last = (worker, key, cost, "hit"), decision
            assert decision == self.model.hit(key, cost)
            self.record_refusal(worker, key, cost, spent=decision.allowed)

    async def hit_all(self, worker, asked):
        return await asyncio.gather(*(self.limiters[worker].hit(key, cost) for key, cost in asked))

    def ask(self, worker, key, cost, method):
        worker = self.as_worker(worker)
        cost = min(cost, self.smallest_limit)
        self.last_asked = worker, key, cost, method
        refusal = self.refusals.get((worker, key))
        repeated = refusal and refusal.repeated(cost, self.model.now_us)
        known = repeated if self.link is not None else self.model.peek(key, cost)
        assert self.limiters[worker].refusal(key, cost) == (None if known is None or known.allowed else known)
        self.last = self.do(getattr(self.limiters[worker], method)(key, cost))
        if repeated is None:
            assert self.last == getattr(self.model, method)(key, cost)
            self.record_refusal(worker, key, cost, spent=method == "hit" and self.last.allowed)
        else:
            assert self.last == repeated
            if refusal.stands:  # more units may remain than in the repeated refusal, but not enough
                now = self.model.foresee(key, cost)
                assert now.violated == repeated.violated
                assert (now.retry_after, now.reset_after) == (repeated.retry_after, repeated.reset_after)
                assert repeated.remaining <= now.remaining < cost

    def record_refusal(self, worker, key, cost, *, spent):
        if spent:
            self.key_changed(key)
            for quota in self.model.quotas:
                most = largest_count_in_any_window(self.model.units(key), quota.window_us)
                assert most <= BOUNDS[self.algorithm](quota.limit)
        if self.last.allowed:
            self.refusals.pop((worker, key), None)
        elif self.link is not None:
            self.refusals[worker, key] = Refusal(cost, self.model.now_us, self.last)

    def key_changed(self, key):
        for (_, refused), refusal in self.refusals.items():
            refusal.stands &= refused != key

    @rule(worker=workers, key=keys, costs=st.lists(costs, min_size=2, max_size=6))
    def hit_with_other_costs(self, worker, key, costs):
        for cost in costs:
            self.ask(worker, key, cost, "hit")

    @precondition(lambda self: self.last_asked)
    @rule(is_reset=st.booleans())
    def repeat_the_last_hit(self, is_reset):
        worker, key, cost, method = self.last_asked
        if is_reset:
            self.reset(worker, key)
        self.ask(worker, key, cost, method)

    @precondition(lambda self: self.last_asked)
    @rule(worker=workers, key=keys)
    def reset(self, worker, key):
        worker %= len(self.limiters)
        self.do(self.limiters[worker].reset(key))
        self.model.reset(key)
        self.key_changed(key)
        self.refusals.pop((worker, key), None)

    @precondition(lambda self: self.last_asked)
    @rule(units=st.integers(1, 8), off=st.sampled_from([-1, 0, 1]))
    def pass_time_to_an_edge(self, units, off):
        quota = self.model.quotas[-1]
        self.advance(min(units, quota.limit) * quota.window_us // quota.limit + off)

    @precondition(lambda self: self.last_asked)
    @rule(thousandths=st.integers(0, 700))
    def pass_time(self, thousandths):
        self.advance(self.model.quotas[0].window_us * thousandths // 1000)

    @precondition(lambda self: self.last_asked and not self.last.allowed)
    @rule(off=st.sampled_from([-1, 0, 0, 1]))
    def wait_for_retry_after(self, off):
        self.advance(round(self.last.retry_after / US) + off)

    @precondition(lambda self: self.last_asked)
    @rule(off=st.sampled_from([-1, 0]))
    def wait_until_all_is_free(self, off):
        self.advance(max(0, round(self.last.reset_after / US) + off))

    def advance(self, us):
        self.do(self.time.advance(us * US))


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_every_limiter_agrees_with_the_model(algorithm, make_client):
    run_machine(
        lambda: RateLimiterMachine(algorithm, make_client), examples=25 if make_client is None else 12
    )


class SteppingClockMachine(StoreMachine):
    """Hits one key while the store's clock is set back repeatedly, and checks both bounds."""

    def __init__(self, algorithm, make_client):
        super().__init__(make_client)
        self.algorithm = algorithm
        self.quota = Quota(2, 60)
        self.window_us = self.quota.window_us
        self.in_memory = memory_rate_limiter(algorithm, self.quota, self.clock)
        self.units = []

    @initialize()
    def set_up(self):
        self.do(self.time.publish())

    @property
    def limiter(self):
        """Return a limiter: with Redis that of a new worker, which repeats no earlier refusal."""
        if self.link is None:
            return self.in_memory
        return BatchedRateLimiter(self.algorithm, self.quota, self.link, self.clock, time_source=TEST_TIME)

    @rule(cost=st.integers(1, 2))
    def hit(self, cost):
        if self.do(self.limiter.hit("ann", cost)).allowed:
            self.units += [round(self.clock.monotonic() / US)] * cost
            assert largest_count_in_any_window(self.units, self.window_us) <= BOUNDS[self.algorithm](2)

    @rule(cost=st.integers(1, 2))
    def wait_until_units_are_free(self, cost):
        waited_us = 0
        while not (decision := self.do(self.limiter.peek("ann", cost))).allowed:
            waited_us += round(decision.retry_after / US)
            assert waited_us <= self.window_us * (2 if self.algorithm == "sliding_window_counter" else 1)
            self.pass_time(round(decision.retry_after / US))

    @rule(us=st.sampled_from([0, 1, 999_999, 10_000_000, 20_000_000, 30_000_000]))
    def pass_time(self, us):
        self.do(self.time.advance(us * US))

    @rule(us=st.sampled_from([1, 10_000_000, 45_000_000, 3_600_000_000]))
    def set_the_clock_back(self, us):
        self.do(self.time.shift(-us * US))


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_a_clock_that_is_set_back_breaks_no_bound(algorithm, make_client):
    examples = 10 if make_client is None else 25
    run_machine(lambda: SteppingClockMachine(algorithm, make_client), examples=examples)


@pytest.mark.parametrize(
    ("algorithm", "gaps", "worst"),
    [
        # One hit begins the window, and the others come at its end, then as fast as they are admitted.
        ("fixed_window", [0, 59_999_999, 0, 0, 0, 1] + [0] * 4, 9),
        ("sliding_window_counter", [0, 59_999_999, 0, 0, 0] + [1_000_000] * 60, 8),
        ("token_bucket", [0] * 5 + [12_000_000] * 5, 9),
    ],
)
async def test_the_stated_bounds_are_reached(algorithm, gaps, worst):
    clock = FakeClock()
    limiter = memory_rate_limiter(algorithm, Quota(5, 60), clock)
    now, units = 0, []
    for gap in gaps:
        now += gap
        clock.jump(gap * US)
        if (await limiter.hit("ann")).allowed:
            units.append(now)
    assert largest_count_in_any_window(units, 60_000_000) == worst == BOUNDS[algorithm](5)
