"""The queue of the rate limit policy against a simple model: the starts, rejections and their order."""

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
WINDOW_SECONDS = 8  # with each limit below, the interval is a multiple of a quarter of a second

algorithms = st.sampled_from(["token_bucket", "sliding_window_log", "fixed_window"])
limits = st.sampled_from([1, 2, 4])
longest_waits = st.sampled_from([4, 0, 0.25, 2, 8, 30])
max_waitings = st.sampled_from([1000, 3, 1])


class QueueModel:
    """Only the first caller hits the limiter: when it becomes the first, and after `retry_after`.

    A later caller is rejected at once if its unit would come too late because of the callers before it.
    """

    def __init__(self, algorithm, quota, max_wait, max_waiting):
        self.quota = quota
        self.max_waiting = max_waiting
        self.others_spent = False  # while a caller waited
        self.clock = FakeClock()
        self.limiter = RateLimiterModel(algorithm, [quota], self.clock)
        self.max_wait = max_wait
        self.queue = {}  # the latest end of the wait of each caller
        self.next_hit_at = 0
        self.hits_made = 0
        self.began = []  # each caller and its start
        self.rejected = {}  # by caller: the time of the rejection, and its retry_after
        self.left = set()

    def add_caller(self, caller, now):
        if not self.queue:
            self.next_hit_at = now
        else:
            seconds_until_unit = self.seconds_until_unit()
            if len(self.queue) >= self.max_waiting or seconds_until_unit > self.max_wait:
                self.rejected[caller] = now, seconds_until_unit
                return
        self.queue[caller] = now + self.max_wait
        self.advance_to(now)

    def seconds_until_unit(self):
        """Return the seconds until one more unit than the waiting ones is free, by hits on a copy."""
        clock, limiter = copy.deepcopy((self.clock, self.limiter))
        for _ in range(len(self.queue) + 1):
            while not (decision := limiter.hit(KEY)).allowed:
                clock.jump(decision.retry_after)
        return clock.monotonic() - self.clock.monotonic()

    def leave(self, callers, now):
        for caller in callers & self.queue.keys():
            if caller == next(iter(self.queue)):
                self.next_hit_at = now
            del self.queue[caller]
            self.left.add(caller)
        self.advance_to(now)

    def spend(self, cost):
        self.others_spent |= bool(self.queue)
        self.limiter.hit(KEY, cost)

    def advance_to(self, now):
        while self.queue and self.next_hit_at <= now:
            self.clock.jump(self.next_hit_at - self.clock.monotonic())
            caller, gives_up_at = next(iter(self.queue.items()))
            decision = self.limiter.hit(KEY)
            self.hits_made += 1
            if decision.allowed:
                self.began.append((caller, self.next_hit_at))
                del self.queue[caller]
            elif self.next_hit_at + decision.retry_after > gives_up_at:
                came_at = gives_up_at - self.max_wait
                assert came_at == self.next_hit_at or self.others_spent, (
                    "the call waited and was then rejected"
                )
                self.rejected[caller] = self.next_hit_at, decision.retry_after
                del self.queue[caller]
            else:
                self.next_hit_at += decision.retry_after
        self.clock.jump(now - self.clock.monotonic())


class CountingLimiter:
    """Passes calls on, and counts the hits. A hit that `try_hit` does not allow is followed by `hit`."""

    def __init__(self, limiter):
        self._limiter = limiter
        self.algorithm = limiter.algorithm
        self.quotas = limiter.quotas
        self.hits = 0

    def try_hit(self, key, cost):
        allowed = self._limiter.try_hit(key, cost)
        self.hits += allowed
        return allowed

    async def hit(self, key, cost):
        self.hits += 1
        return await self._limiter.hit(key, cost)

    async def peek(self, key, cost=1):
        return await self._limiter.peek(key, cost)


class RateLimitMachine(CallsMachine):
    @initialize(algorithm=algorithms, limit=limits, max_wait=longest_waits, max_waiting=max_waitings)
    def set_up(self, algorithm, limit, max_wait, max_waiting):
        self.quota = Quota(limit, WINDOW_SECONDS)
        self.limiter = memory_rate_limiter(algorithm, self.quota, self.clock)
        self.hits_made = CountingLimiter(self.limiter)
        self.listener = RecordingListener()
        options = RateLimitOptions(KEY, max_wait, max_waiting)
        self.policy = RateLimit(self.hits_made, options, self.clock, name="limit", listener=self.listener)
        self.began = []
        self.model = QueueModel(algorithm, self.quota, max_wait, max_waiting)

    @rule()
    def add_caller(self):
        number = len(self.callers)
        self.begin(self.policy, lambda: OpenCall(lambda: self.began.append((number, self.now))))
        self.model.add_caller(number, self.now)

    @rule(count=st.integers(2, 4))
    def add_callers(self, count):
        for _ in range(count):
            self.add_caller()

    @precondition(lambda self: self.model.queue)
    @rule(places=st.sets(st.integers(0, 5), min_size=1, max_size=3))
    def cancel_waiting_callers(self, places):
        queue = list(self.model.queue)
        cancelled = {queue[place % len(queue)] for place in places}
        self.act(lambda: [self.callers[number].task.cancel() for number in cancelled])
        self.model.leave(cancelled, self.now)

    @precondition(lambda self: self.callers)
    @rule(cost=st.integers(1, 4))
    def spend_elsewhere(self, cost):
        cost = min(cost, self.quota.limit)
        self.do(self.limiter.hit(KEY, cost))
        self.model.spend(cost)

    def cancel_call(self, number):
        super().cancel_call(number)
        self.model.leave({number}, self.now)

    def advance(self, seconds):
        super().advance(seconds)
        self.model.advance_to(self.now)

    @invariant()
    def outcomes_agree_with_the_model(self):
        assert self.began == self.model.began
        assert self.hits_made.hits == self.model.hits_made
        rejected = {
            number: (caller.outcome[0], caller.outcome[1].retry_after)
            for number, caller in enumerate(self.callers)
            if caller.outcome and isinstance(caller.outcome[1], RateLimitedError)
        }
        assert rejected == self.model.rejected
        assert self.listener.of(Rejected) == [
            Rejected(policy="limit", retry_after=retry_after)
            for _, retry_after in self.model.rejected.values()
        ]
        assert all(self.callers[number].outcome is None for number in self.model.queue)
        assert all(self.callers[number].outcome[1] == CANCELLED for number in self.model.left)


def test_the_queue_agrees_with_the_model():
    run_machine(RateLimitMachine, examples=150)
