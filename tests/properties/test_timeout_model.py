"""Nested timeouts against a simple model: the cause of a call's end, and its time.

Calls begin and are cancelled at quarters of a second, and limits end between them, so no two events coincide.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from src.resilience.errors import CallTimeoutError
from src.resilience.events import TimedOut
from src.resilience.pipeline import Pipeline
from src.resilience.timeout import Timeout
from tests.support.calls import CANCELLED, ScriptedCall
from tests.support.listener import RecordingListener
from tests.support.machines import CallsMachine, quarters, run_machine

endings = st.sampled_from(["done", ConnectionError, TimeoutError])
outer_limits = st.integers(0, 4).map(lambda n: n + 1 / 8)
inner_limits = st.integers(0, 4).map(lambda n: n + 1 / 16)


@dataclass
class Model:
    """One call: its behaviour, and the time of its cancellation, which also shortens its clean-up."""

    began_at: float
    outer: float
    inner: float
    seconds: float
    ending: object
    leaving: float
    given_up: list[float] = field(default_factory=list)

    def outcome(self):
        """Return when and how the call ends: with its own result, "outer", "inner" or cancelled."""
        stops = sorted(
            [
                (self.began_at + self.outer, "outer"),
                (self.began_at + self.inner, "inner"),
                *((at, CANCELLED) for at in self.given_up),
            ]
        )
        (stopped_at, _), (hurried_at, _), *_ = stops
        if self.began_at + self.seconds <= stopped_at:
            return self.began_at + self.seconds, self.ending
        ended_at = min(stopped_at + self.leaving, hurried_at)
        by = {name for at, name in stops if at <= ended_at}
        return ended_at, next(name for name in (CANCELLED, "outer", "inner") if name in by)


class TimeoutMachine(CallsMachine):
    @initialize(outer=outer_limits, inner=inner_limits)
    def set_up(self, outer, inner):
        self.outer, self.inner = outer, inner
        self.listener = RecordingListener()
        self.policy = Pipeline(
            Timeout(outer, self.clock, name="outer", listener=self.listener),
            Timeout(inner, self.clock, name="inner", listener=self.listener),
        )
        self.models = []

    @rule(seconds=quarters, ending=endings, leaving=st.sampled_from([0, 0, 0.25, 2]))
    def call(self, seconds, ending, leaving):
        ending = ending if ending == "done" else ending("its own")
        self.begin(self.policy, lambda: ScriptedCall(self.clock, (seconds, ending), leaving=leaving))
        self.models.append(Model(self.now, self.outer, self.inner, seconds, ending, leaving))

    def cancel_call(self, number):
        super().cancel_call(number)
        self.models[number].given_up.append(self.now)

    @invariant()
    def store_agrees_with_the_model(self):
        timed_out = []
        for caller, model in zip(self.callers, self.models, strict=True):
            ended_at, ending = model.outcome()
            if ended_at > self.now:
                assert caller.outcome is None
                continue
            at, met = caller.outcome
            assert at == ended_at
            assert caller.call.running == 0
            if ending in ("outer", "inner"):
                assert isinstance(met, CallTimeoutError)
                limit = {"outer": self.outer, "inner": self.inner}[ending]
                assert met.seconds == limit
                timed_out.append((ended_at, TimedOut(policy=ending, seconds=limit)))
            else:
                assert met is ending
        timed_out.sort(key=lambda end: end[0])
        assert self.listener.events == [event for _, event in timed_out]


def test_timeouts_agree_with_the_model():
    run_machine(TimeoutMachine, examples=150)
