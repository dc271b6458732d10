"""Nested fallbacks against a simple model: the called substitutes, and the answers."""

import itertools

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from src.resilience.events import FellBack
from src.resilience.fallback import Fallback
from src.resilience.pipeline import Pipeline
from tests.support.calls import ScriptedCall
from tests.support.listener import RecordingListener
from tests.support.machines import TimelineMachine, quarters, run_machine

errors = st.sampled_from([ConnectionError, TimeoutError, ValueError])
handles = st.sampled_from([(Exception,), (ConnectionError,), (ConnectionError, TimeoutError)])
behaviours = st.tuples(st.none() | errors, st.none() | st.sampled_from([0, 0.5, 2]))
chains = st.lists(st.tuples(handles, st.lists(behaviours, min_size=1, max_size=3)), min_size=1, max_size=2)


class Substitute:
    """A substitute that answers or fails, at once or later. A test can change its behaviour at any time."""

    def __init__(self, machine, name, behaviour):
        self.machine, self.name = machine, name
        self.behave(*behaviour)

    def behave(self, error, seconds):
        self.error = error and error(self.name)
        self.seconds = seconds

    def __call__(self, error):
        self.machine.asked.append((self.name, error))
        if self.seconds is None:
            return self.answer(self.error)
        return self.answer_later(self.error)

    async def answer_later(self, error):
        await self.machine.clock.sleep(self.seconds)
        return self.answer(error)

    def answer(self, error):
        if error is not None:
            raise error
        return self.name


class Model:
    """Calls the substitutes in order until one answers, from the innermost fallback outwards."""

    def __init__(self, layers):
        self.layers = layers  # outermost first: errors handled, substitutes
        self.asked = []
        self.fell_back = []

    def life(self, seconds, ending):
        yield seconds
        for number, (handles, substitutes) in reversed(list(enumerate(self.layers))):
            error = ending
            for substitute in substitutes:
                if not isinstance(ending, handles):
                    break
                self.asked.append((substitute.name, error))
                ending = substitute.error or substitute.name
                yield substitute.seconds or 0
            if isinstance(error, handles) and isinstance(ending, str):
                self.fell_back.append(FellBack(policy=f"fallback {number}", error=error))
        return ending


class FallbackMachine(TimelineMachine):
    @initialize(chains=chains)
    def set_up(self, chains):
        self.asked = []
        self.listener = RecordingListener()
        names = itertools.count()
        layers = [
            (handles, [Substitute(self, f"substitute {next(names)}", each) for each in behaviours])
            for handles, behaviours in chains
        ]
        self.substitutes = [substitute for _, substitutes in layers for substitute in substitutes]
        self.policy = Pipeline(
            *(
                Fallback(*substitutes, handles=handles, name=f"fallback {number}", listener=self.listener)
                for number, (handles, substitutes) in enumerate(layers)
            )
        )
        self.model = Model(layers)

    @precondition(lambda self: self.callers)
    @rule(place=st.integers(0, 5), behaviour=behaviours)
    def a_substitute_changes(self, place, behaviour):
        self.substitutes[place % len(self.substitutes)].behave(*behaviour)

    @rule(seconds=quarters, error=st.none() | errors)
    def call(self, seconds, error):
        ending = "the real answer" if error is None else error("no")
        self.begin_with_life(
            lambda _number: self.model.life(seconds, ending),
            self.policy,
            lambda: ScriptedCall(self.clock, (seconds, ending)),
        )

    @invariant()
    def substitutes_agree_with_the_model(self):
        assert self.asked == self.model.asked
        assert self.listener.events == self.model.fell_back


def test_fallbacks_agree_with_the_model():
    run_machine(FallbackMachine, examples=250, steps=15)
