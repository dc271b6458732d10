"""Nested chaos policies against a simple model: a call gets an injection if its number is below the rate."""

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from src.resilience.chaos import Chaos, ChaosOptions, Fault, Latency, Outcome
from src.resilience.events import FaultInjected
from src.resilience.pipeline import Pipeline
from tests.support.calls import ScriptedCall
from tests.support.clock import CyclingRandomizer
from tests.support.listener import RecordingListener
from tests.support.machines import TimelineMachine, quarters, run_machine

ERROR = ConnectionError("made up")
INJECTIONS = {
    "fault": Fault(lambda: ERROR),
    "latency": Latency(1.5),
    "outcome": Outcome("made up"),
}

eighths = st.integers(0, 8).map(lambda n: n / 8)
lots = st.lists(st.integers(0, 7).map(lambda n: n / 8), min_size=1, max_size=7)
layers = st.lists(st.tuples(st.sampled_from(sorted(INJECTIONS)), eighths), min_size=1, max_size=3)


class Model:
    def __init__(self, layers, lots):
        self.kinds = [kind for kind, _ in layers]
        self.rates = [rate for _, rate in layers]
        self.lots = itertools.cycle(lots)
        self.injected = []
        self.runs = {}

    def life(self, number, seconds):
        self.runs[number] = 0
        for layer, kind in enumerate(self.kinds):
            if next(self.lots) >= self.rates[layer]:
                continue
            self.injected.append(FaultInjected(policy=f"chaos {layer}", kind=kind))
            if kind == "fault":
                return ERROR
            if kind == "outcome":
                return "made up"
            yield 1.5
        self.runs[number] += 1
        yield seconds
        return "the real answer"


class ChaosMachine(TimelineMachine):
    @initialize(layers=layers, lots=lots)
    def set_up(self, layers, lots):
        self.listener = RecordingListener()
        randomizer = CyclingRandomizer(lots)
        self.policies = [
            Chaos(
                ChaosOptions(INJECTIONS[kind], rate),
                self.clock,
                randomizer,
                name=f"chaos {layer}",
                listener=self.listener,
            )
            for layer, (kind, rate) in enumerate(layers)
        ]
        self.model = Model(layers, lots)

    @rule(seconds=quarters)
    def call(self, seconds):
        self.begin_with_life(
            lambda number: self.model.life(number, seconds),
            Pipeline(*self.policies),
            lambda: ScriptedCall(self.clock, (seconds, "the real answer")),
        )

    @precondition(lambda self: self.callers)
    @rule(layer=st.integers(0, 2), rate=eighths)
    def set_rate(self, layer, rate):
        layer %= len(self.policies)
        self.policies[layer].rate = self.model.rates[layer] = rate

    @invariant()
    def injections_agree_with_the_model(self):
        assert self.listener.events == self.model.injected
        for number, caller in enumerate(self.callers):
            assert len(caller.call.began) == self.model.runs[number]
        assert [policy.rate for policy in self.policies] == self.model.rates


def test_chaos_agrees_with_the_model():
    run_machine(ChaosMachine, examples=150, steps=20)
