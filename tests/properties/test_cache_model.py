"""Cache stores against a simple model, in random sequences of events.

The clock of Redis runs during the test. So time moves in steps of ten seconds, and every expiry lies halfway
between two steps. Neither the clock nor a rounding to milliseconds can then move an expiry over a step.
"""

import asyncio
import itertools
import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, rule

from src.resilience.cache.memory import MemoryCacheStore
from src.resilience.cache.options import CacheOptions
from src.resilience.cache.store import Entry, Lease
from src.storage.patterns.batched_cache_store import BatchedCacheStore
from tests.support.machines import StoreMachine, run_machine

KEYS = ("summary:cpu:hourly", "summary:cpu:all")
LEEWAY_SECONDS = 4.9

keys = st.sampled_from(KEYS)
steps = st.sampled_from([10, 30, 110])
options = st.builds(
    CacheOptions,
    ttl_seconds=st.just(105),
    stale_seconds=st.sampled_from([305, 55, 0]),
    lease_seconds=st.just(35),
    revalidate_seconds=st.sampled_from([150, 0]),
)
begun_within = st.sampled_from([0, math.inf, 45])


@dataclass(frozen=True)
class Answer:
    body: bytes
    begun_at: float
    stored_at: float


@dataclass(frozen=True)
class Claim:
    token: str
    begun_at: float
    ends_at: float


class Model:
    """One key of the simplest cache: an answer, the last good copy, and the holder of the lease."""

    def __init__(self, options, clock):
        self.options, self.clock = options, clock
        self.answer, self.last_good, self.claim = None, None, None

    @property
    def now(self):
        return self.clock.monotonic()

    def read(self):
        return self.aged(self.answer, 0, self.options.ttl_seconds)

    def read_expired(self, max_age_seconds):
        kept_seconds = min(max_age_seconds, self.options.copy_seconds)
        return self.aged(self.answer, self.options.ttl_seconds, kept_seconds)

    def read_last_good(self):
        return self.aged(self.last_good, 0, self.options.stale_seconds)

    def aged(self, answer, from_seconds, to_seconds):
        return answer if answer and from_seconds <= self.now - answer.stored_at < to_seconds else None

    def take_lease(self, token, begun_within_seconds):
        answer = self.read()
        if answer and self.now - answer.begun_at < begun_within_seconds:
            return answer
        if self.claim and self.now < self.claim.ends_at:
            return Lease.HELD
        self.claim = Claim(token, self.now, self.now + self.options.lease_seconds)
        return Lease.TAKEN

    def holds(self, token):
        return self.claim is not None and self.claim.token == token and self.now < self.claim.ends_at

    def renew(self, token):
        if not self.holds(token):
            return False
        self.claim = replace(self.claim, ends_at=self.now + self.options.lease_seconds)
        return True

    def fill(self, token, body):
        if not self.holds(token):
            return False
        self.answer = self.last_good = Answer(body, self.claim.begun_at, self.now)
        self.claim = None
        return True

    def release(self, token):
        if not self.holds(token):
            return False
        self.claim = None
        return True

    def invalidate(self, last_good):
        self.answer = self.claim = None
        if last_good:
            self.last_good = None


class CacheMachine(StoreMachine):
    """Runs the same steps on a store and on the model, and compares their states after every step."""

    leases = Bundle("leases")

    def __init__(self, make_client):
        super().__init__(make_client)
        self.models = {}
        self.numbers = itertools.count()
        self.granted = {key: {} for key in KEYS}  # by the store: when each lease ends, unless it was ended
        self.accepted = {key: set() for key in KEYS}  # the store takes the lease from its holder

    @initialize(options=options)
    def set_up(self, options):
        self.options = options
        self.models = {key: Model(options, self.clock) for key in KEYS}
        self.max_ages = (options.served_seconds, max(options.stale_seconds, options.served_seconds))
        self.store = MemoryCacheStore(self.clock) if self.link is None else BatchedCacheStore(self.link)

    @rule(target=leases, key=keys, begun_within_seconds=begun_within)
    def take_lease(self, key, begun_within_seconds):
        token = f"token {next(self.numbers)}"
        reply = self.do(self.store.take_lease(key, token, begun_within_seconds, self.options))
        expected = self.models[key].take_lease(token, begun_within_seconds)
        if isinstance(reply, Entry):
            assert isinstance(expected, Answer)
            self.check(key, reply, expected, self.options.ttl_seconds)
            return multiple()
        assert reply is expected
        if reply is Lease.TAKEN:
            self.granted[key][token] = self.clock.monotonic() + self.options.lease_seconds
        return key, token  # also if it was rejected: the lock must have no effect

    @rule(lease=leases)
    def renew(self, lease):
        key, token = lease
        is_renewed = self.do(self.store.renew(key, token, self.options))
        assert is_renewed == self.models[key].renew(token)
        if is_renewed:
            assert self.granted[key][token] > self.clock.monotonic()
            self.granted[key][token] = self.clock.monotonic() + self.options.lease_seconds

    @rule(key=keys, renewals=st.integers(1, 4))
    def compute_slowly(self, key, renewals):
        if isinstance(lease := self.take_lease(key, 0), tuple):
            for _ in range(renewals):
                self.pass_time(30)
                self.renew(lease)
            self.fill(lease)

    @rule(lease=leases)
    def fill(self, lease):
        key, token = lease
        body = b"\x00\xff answer %d\r\n" % next(self.numbers)
        is_stored = self.do(self.store.fill(key, token, body, self.options))
        assert is_stored == self.models[key].fill(token, body)
        if is_stored:
            assert self.granted[key].pop(token) > self.clock.monotonic()
            self.accepted[key].add(body)

    @rule(lease=leases)
    def release(self, lease):
        key, token = lease
        is_ended = self.do(self.store.release(key, token))
        assert is_ended == self.models[key].release(token)
        if is_ended:
            assert self.granted[key].pop(token) > self.clock.monotonic()

    @rule(key=keys, seconds=st.sampled_from([0, 10, 30, 110]))
    def compute(self, key, seconds):
        if isinstance(lease := self.take_lease(key, 0), tuple):
            self.pass_time(seconds)
            self.fill(lease)

    @rule(some=st.lists(keys, min_size=1, max_size=2), last_good=st.booleans())
    def invalidate(self, some, last_good):
        self.do(self.store.invalidate(some, last_good=last_good))
        for key in some:
            self.models[key].invalidate(last_good)
            self.granted[key].clear()

    @rule(seconds=steps)
    def pass_time(self, seconds):
        self.clock.jump(seconds)
        if self.link is not None:
            self.do(self.shorten_expiries(seconds))

    async def shorten_expiries(self, seconds):
        stored = await self.link.send("KEYS", "*")
        remaining_ms = await self.link.send_all([("PTTL", key) for key in stored])
        assert all(left_ms != -1 for left_ms in remaining_ms), "an entry or a lease never expires"
        await self.link.send_all(
            [  # an expiry in the past deletes the key
                ("PEXPIRE", key, left_ms - seconds * 1000)
                for key, left_ms in zip(stored, remaining_ms, strict=True)
            ]
        )

    @invariant()
    def store_agrees_with_the_model(self):
        for key, model in self.models.items():
            fresh, *expired, last_good = self.do(self.read_all(key))
            self.check(key, fresh, model.read(), self.options.ttl_seconds)
            for max_age, entry in zip(self.max_ages, expired, strict=True):
                self.check(key, entry, model.read_expired(max_age), max_age)
            self.check(key, last_good, model.read_last_good(), self.options.stale_seconds, has_cost=False)

    async def read_all(self, key):
        return await asyncio.gather(
            self.store.read(key, self.options),
            *(self.store.read_expired(key, self.options, max_age) for max_age in self.max_ages),
            self.store.read_last_good(key, self.options),
        )

    @invariant()
    def at_most_one_holds_a_lease(self):
        for granted in self.granted.values():
            assert sum(ends_at > self.clock.monotonic() for ends_at in granted.values()) <= 1

    def check(self, key, entry, expected, lifetime_seconds, has_cost=True):
        assert (entry is None) == (expected is None)
        if entry is None:
            return
        assert entry.body == expected.body
        assert entry.body in self.accepted[key], "no holder of the lease stored the answer"
        assert entry.age_seconds == about(self.clock.monotonic() - expected.stored_at)
        assert entry.age_seconds + entry.remaining_seconds == pytest.approx(lifetime_seconds)
        if has_cost:
            assert entry.cost_seconds == about(expected.stored_at - expected.begun_at)


def about(seconds):
    return pytest.approx(seconds, abs=LEEWAY_SECONDS)


def test_every_store_agrees_with_the_model(make_client):
    run_machine(lambda: CacheMachine(make_client), examples=30, steps=25)
