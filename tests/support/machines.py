"""Base classes of the state machines: with an event loop and a fake clock, with a store, or with calls."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import redis.asyncio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from src.resilience.policy import Call, Policy
from src.storage.redis.link import RedisLink
from tests.contract.conftest import StoreTime
from tests.support.calls import Caller
from tests.support.clock import FakeClock, settle
from tests.support.examples import FACTOR
from tests.support.timeline import Life, Timeline

T = TypeVar("T")

quarters = st.integers(0, 24).map(lambda n: n / 4)
"""Seconds whose sums are exact."""

MakeClient = Callable[[], redis.asyncio.Redis]


def run_machine(machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int = 30) -> None:
    """Run a machine `examples` times with `steps` steps each."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples * FACTOR, stateful_step_count=steps, deadline=None)
    )


class AsyncMachine(RuleBasedStateMachine):
    """A machine whose rules run on one event loop, so that tasks continue from rule to rule."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self._runner = asyncio.Runner()

    def do(self, work: Coroutine[object, object, T]) -> T:
        return self._runner.run(work)

    def act(self, action: Callable[[], T]) -> T:
        """Run an action that may begin, end or cancel tasks, and let all tasks run until they wait."""

        async def act_and_settle() -> T:
            done = action()
            await settle()
            return done

        return self.do(act_and_settle())

    def teardown(self) -> None:
        self._runner.close()  # cancels all running tasks


class StoreMachine(AsyncMachine):
    """A machine with a store: in Redis, or in memory without a client."""

    def __init__(self, make_client: MakeClient | None) -> None:
        super().__init__()
        self.link = None if make_client is None else self.do(self._connect(make_client))
        self.time = StoreTime(self.clock, self.link)

    async def _connect(self, make_client: MakeClient) -> RedisLink:
        link = RedisLink(make_client(), self.clock)
        await link.send("FLUSHALL")
        return link

    def teardown(self) -> None:
        if self.link is not None:
            self.do(self.link.aclose())
        super().teardown()


class CallsMachine(AsyncMachine):
    """A machine with calls through a policy. Each call has its own caller, which can be cancelled.

    `begin` begins a call. A subclass with a model extends `cancel_call` and `advance`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Caller] = []

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def begin(self, policy: Policy, make_call: Callable[[], Call[object]]) -> int:
        """Add a caller that runs a call, and return its number."""
        self.callers.append(self.act(lambda: Caller(policy, make_call(), self.clock)))
        return len(self.callers) - 1

    def cancel_call(self, number: int) -> None:
        self.act(self.callers[number].task.cancel)

    def advance(self, seconds: float) -> None:
        self.do(self.clock.advance(seconds))

    @precondition(lambda self: self.callers)
    @rule(place=st.integers(0, 30))
    def cancel_any_call(self, place: int) -> None:
        self.cancel_call(place % len(self.callers))

    @precondition(lambda self: self.callers)  # without a call, time has no effect
    @rule(seconds=quarters)
    def pass_time(self, seconds: float) -> None:
        self.advance(seconds)

    def teardown(self) -> None:
        self.act(lambda: [caller.task.cancel() for caller in self.callers])
        self.do(self.clock.advance(60))  # some calls take time to end after their cancellation
        super().teardown()


class TimelineMachine(CallsMachine):
    """A machine whose model is a timeline: each call has a generator that predicts its end."""

    def __init__(self) -> None:
        super().__init__()
        self.timeline = Timeline()

    def begin_with_life(
        self, life: Callable[[int], Life], policy: Policy, make_call: Callable[[], Call[object]]
    ) -> None:
        number = self.begin(policy, make_call)
        self.timeline.begin(number, life(number))

    def cancel_call(self, number: int) -> None:
        super().cancel_call(number)
        self.timeline.cancel(number)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.timeline.advance_to(self.now)

    @invariant()
    def every_outcome_agrees_with_the_model(self) -> None:
        for number, caller in enumerate(self.callers):
            assert caller.outcome == self.timeline.outcomes.get(number)
