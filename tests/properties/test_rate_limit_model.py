"""The rate limit's queue against a plain model: who begins when, who is refused and when, in what order."""

import copy

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from src.resilience.errors import RateLimitedError
from src.resilience.events import Rejected
from src.resilience.rate_limiter.memory import memory_rate_limiter
from src.resilience.rate_limiter.options import Quota, RateLimitOptions
from src.resilience.rate_limiter.policy import RateLimit
from tests.support.calls import CANCELLED, OpenCall
from tests.support.clock import FakeClock
from tests.support.listener import RecordingListener
from tests.support.machines import CallsMachine, run_machine
from tests.support.rate_limiter_model import RateLimiterModel

KEY = "all"
WINDOW_SECONDS = 8  # of which every limit here makes an interval of whole quarters of a second

algorithms = st.sampled_from(["token_bucket", "sliding_window_log", "fixed_window"])
limits = st.sampled_from([1, 2, 4])
longest_waits = st.sampled_from([4, 0, 0.25, 2, 8, 30])
most_waiting = st.sampled_from([1000, 3, 1])


class Model:
    """Only the head of the line asks: when it comes to the head, and when it was told to come back.

    Who comes later is refused at once if so many wait before it that its unit comes too late.
    """

    def __init__(self, algorithm, quota, max_wait, max_waiting):
        self.quota = quota
        self.max_waiting = max_waiting
        self.others_spent = False  # while somebody waited
        self.clock = FakeClock()
        self.limiter = RateLimiterModel(algorithm, [quota], self.clock)
        self.max_wait = max_wait
        self.line = {}  # who, and when it gives up
        self.head_asks_at = 0
        self.asked = 0
        self.began = []  # who, and when
        self.refused = {}  # who, when, and what it was told
        self.left = set()

    def come(self, caller, now):
        if not self.line:
            self.head_asks_at = now
        else:
            unit_comes_in = self.unit_comes_in()
            if len(self.line) >= self.max_waiting or unit_comes_in > self.max_wait:
                self.refused[caller] = now, unit_comes_in
                return
        self.line[caller] = now + self.max_wait
        self.go_on_until(now)

    def unit_comes_in(self):
        """Take the units of all who wait, and one more, each as soon as it is free, from a copy."""
        clock, limiter = copy.deepcopy((self.clock, self.limiter))
        for _ in range(len(self.line) + 1):
            while not (said := limiter.hit(KEY)).allowed:
                clock.jump(said.retry_after)
        return clock.monotonic() - self.clock.monotonic()

    def leave(self, callers, now):
        for caller in callers & self.line.keys():
            if caller == next(iter(self.line)):
                self.head_asks_at = now
            del self.line[caller]
            self.left.add(caller)
        self.go_on_until(now)

    def spend(self, cost):
        self.others_spent |= bool(self.line)
        self.limiter.hit(KEY, cost)

    def go_on_until(self, now):
        while self.line and self.head_asks_at <= now:
            self.clock.jump(self.head_asks_at - self.clock.monotonic())
            caller, gives_up_at = next(iter(self.line.items()))
            said = self.limiter.hit(KEY)
            self.asked += 1
            if said.allowed:
                self.began.append((caller, self.head_asks_at))
                del self.line[caller]
            elif self.head_asks_at + said.retry_after > gives_up_at:
                came_at = gives_up_at - self.max_wait
                assert came_at == self.head_asks_at or self.others_spent, "it waited in vain"
                self.refused[caller] = self.head_asks_at, said.retry_after
                del self.line[caller]
            else:
                self.head_asks_at += said.retry_after
        self.clock.jump(now - self.clock.monotonic())


class AskedLimiter:
    """Passes questions on, and counts the hits."""

    def __init__(self, limiter):
        self._limiter = limiter
        self.algorithm = limiter.algorithm
        self.quotas = limiter.quotas
        self.hits = 0

    async def hit(self, key, cost):
        self.hits += 1
        return await self._limiter.hit(key, cost)

    async def peek(self, key, cost=1):
        return await self._limiter.peek(key, cost)


class RateLimitMachine(CallsMachine):
    @initialize(algorithm=algorithms, limit=limits, max_wait=longest_waits, max_waiting=most_waiting)
    def set_up(self, algorithm, limit, max_wait, max_waiting):
        self.quota = Quota(limit, WINDOW_SECONDS)
        self.limiter = memory_rate_limiter(algorithm, self.quota, self.clock)
        self.asked = AskedLimiter(self.limiter)
        self.listener = RecordingListener()
        options = RateLimitOptions(KEY, max_wait, max_waiting)
        self.policy = RateLimit(self.asked, options, self.clock, name="limit", listener=self.listener)
        self.began = []
        self.model = Model(algorithm, self.quota, max_wait, max_waiting)

    @rule()
    def come(self):
        number = len(self.callers)
        self.begin(self.policy, lambda: OpenCall(lambda: self.began.append((number, self.now))))
        self.model.come(number, self.now)

    @rule(count=st.integers(2, 4))
    def several_come(self, count):
        for _ in range(count):
            self.come()

    @precondition(lambda self: self.model.line)
    @rule(places=st.sets(st.integers(0, 5), min_size=1, max_size=3))
    def some_in_line_hang_up_at_once(self, places):
        line = list(self.model.line)
        leavers = {line[place % len(line)] for place in places}
        self.act(lambda: [self.callers[number].task.cancel() for number in leavers])
        self.model.leave(leavers, self.now)

    @precondition(lambda self: self.callers)
    @rule(cost=st.integers(1, 4))
    def somebody_else_spends(self, cost):
        cost = min(cost, self.quota.limit)
        self.do(self.limiter.hit(KEY, cost))
        self.model.spend(cost)

    def hang_up(self, number):
        super().hang_up(number)
        self.model.leave({number}, self.now)

    def advance(self, seconds):
        super().advance(seconds)
        self.model.go_on_until(self.now)

    @invariant()
    def each_begins_waits_or_is_refused_as_the_model_says(self):
        assert self.began == self.model.began
        assert self.asked.hits == self.model.asked
        refused = {
            number: (caller.outcome[0], caller.outcome[1].retry_after)
            for number, caller in enumerate(self.callers)
            if caller.outcome and isinstance(caller.outcome[1], RateLimitedError)
        }
        assert refused == self.model.refused
        assert self.listener.of(Rejected) == [
            Rejected(policy="limit", retry_after=retry_after)
            for _, retry_after in self.model.refused.values()
        ]
        assert all(self.callers[number].outcome is None for number in self.model.line)
        assert all(self.callers[number].outcome[1] == CANCELLED for number in self.model.left)


def test_the_waiting_queue_keeps_to_the_model():
    run_machine(RateLimitMachine, examples=150)
