"""Hedging against a simple model: the start of each attempt, the deciding attempt, and the cancelled ones.

Attempts take whole seconds and begin at odd fractions of a second, so no two events are simultaneous.
"""

import math
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from src.resilience.events import Hedged, HedgedAttemptFailed, HedgeWon
from src.resilience.hedging import Hedging, HedgingOptions
from tests.support.calls import CANCELLED, ScriptedCall
from tests.support.listener import RecordingListener
from tests.support.machines import CallsMachine, run_machine

MOST_ATTEMPTS = 4

delays = st.integers(0, 3).map(lambda n: n + 3 / 16)
takes = st.sampled_from([0, 1, 2, 3, 4, 6, 20])
endings = st.sampled_from(["answer", ConnectionError, ConnectionError, CANCELLED])
scripts = st.lists(st.tuples(takes, endings), min_size=MOST_ATTEMPTS, max_size=MOST_ATTEMPTS)


@dataclass
class Model:
    """One call: the end of each attempt if it is not cancelled, and the cancellation by its caller."""

    began_at: float
    options: HedgingOptions
    script: list[tuple[float, object]]
    given_up_at: float = math.inf

    def play(self, now):
        """Say what has come of it by `now`.

        Returns:
            The starts of attempts; the running ones; the cancelled ones; the events; the outcome.
        """
        began, under_way, events = [], [], []
        for at, number, has_ended in self.plan():
            if at > min(now, self.given_up_at):
                break
            if not has_ended:
                began.append(at)
                under_way.append(number)
                if number > 1:
                    events.append(Hedged(policy="hedging", attempt=number))
                continue
            under_way.remove(number)
            _, ending = self.script[number - 1]
            if isinstance(ending, ConnectionError) and under_way:
                events.append(HedgedAttemptFailed(policy="hedging", attempt=number, error=ending))
                continue
            if ending == "answer" and number > 1:
                events.append(HedgeWon(policy="hedging", attempt=number))
            return began, [], under_way, events, (at, ending)
        if self.given_up_at <= now:
            return began, [], under_way, events, (self.given_up_at, CANCELLED)
        return began, under_way, [], events, None

    def plan(self):
        """List when each attempt would begin and end, in order of time."""
        plan = []
        for place, (seconds, _) in enumerate(self.script[: self.options.attempts]):
            begins_at = self.began_at + place * self.options.delay_seconds
            plan += [(begins_at, place + 1, False), (begins_at + seconds, place + 1, True)]
        return sorted(plan)


class HedgingMachine(CallsMachine):
    @initialize(delay=delays, attempts=st.integers(2, MOST_ATTEMPTS))
    def set_up(self, delay, attempts):
        self.options = HedgingOptions(delay, attempts=attempts)
        self.listeners = []
        self.models = []

    @rule(script=scripts)
    def call(self, script):
        script = [(seconds, ending() if ending is ConnectionError else ending) for seconds, ending in script]
        self.models.append(Model(self.now, self.options, script))
        self.listeners.append(RecordingListener())
        policy = Hedging(self.options, self.clock, listener=self.listeners[-1])
        self.begin(policy, lambda: ScriptedCall(self.clock, *script))

    def cancel_call(self, number):
        super().cancel_call(number)
        self.models[number].given_up_at = min(self.models[number].given_up_at, self.now)

    @invariant()
    def store_agrees_with_the_model(self):
        for caller, listener, model in zip(self.callers, self.listeners, self.models, strict=True):
            began, under_way, stopped, events, outcome = model.play(self.now)
            assert caller.call.began == began
            assert caller.call.running == len(under_way)
            assert sorted(caller.call.cancelled) == stopped
            assert listener.events == events
            assert caller.outcome == outcome


def test_hedging_agrees_with_the_model():
    run_machine(HedgingMachine, examples=150, steps=20)
