"""Chaos: make some calls fail on purpose, to test the policies around them.

A chaos policy belongs innermost in a pipeline: then all other policies handle its faults like real ones. It
injects one kind of fault; use several policies for several kinds. The idea and the three kinds are those of
Simmy, the chaos strategies of Polly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, cast

from .building_blocks.outcomes import report_outcomes
from .clock import SYSTEM_CLOCK, SYSTEM_RANDOMIZER, Clock, Randomizer
from .events import FaultInjected, Listener, ignore, notify
from .policy import BasePolicy, Call, require_async

T = TypeVar("T")


class Injection(Protocol):
    """A change to a call. It takes effect before the call or replaces it.

    Attributes:
        kind: The name of the injection in events.
    """

    kind: ClassVar[str]

    async def apply(self, call: Call[T], clock: Clock) -> T:
        """Return or raise the outcome for the caller. The injection decides whether to run `call`."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """The call is not run and fails.

    Attributes:
        error: Returns a new error to raise. An exception class is such a function.
    """

    kind: ClassVar[str] = "fault"

    error: Callable[[], Exception]

    async def apply(self, call: Call[T], clock: Clock) -> T:  # noqa: ARG002
        """Raise the error."""
        raise self.error()


@dataclass(frozen=True, slots=True)
class Latency:
    """The call is run after a delay of `seconds`, which is finite and above 0."""

    kind: ClassVar[str] = "latency"

    seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be finite and above 0, not {self.seconds}")

    async def apply(self, call: Call[T], clock: Clock) -> T:
        """Wait, then run `call`."""
        await clock.sleep(self.seconds)
        return await call()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The call is not run, and its caller gets `answer`. The type of `answer` is not checked."""

    kind: ClassVar[str] = "outcome"

    answer: object

    async def apply(self, call: Call[T], clock: Clock) -> T:  # noqa: ARG002
        """Return the answer."""
        return cast("T", self.answer)


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """The injection and its rate.

    Attributes:
        injection: The change to each selected call.
        rate: The share of calls that are selected, from 0 (no call) to 1 (every call).
    """

    injection: Injection
    rate: float

    def __post_init__(self) -> None:
        _require_rate(self.rate)


class Chaos(BasePolicy):
    """The chaos policy. A random number decides for each call whether it is selected.

    Args:
        options: The injection and the initial rate.
        clock: The clock for injected latency.
        randomizer: The source of the random numbers.
        name: The policy's name in events.
        listener: Receives `FaultInjected` for each selected call, before the injection.
    """

    def __init__(
        self,
        options: ChaosOptions,
        clock: Clock = SYSTEM_CLOCK,
        randomizer: Randomizer = SYSTEM_RANDOMIZER,
        *,
        name: str = "chaos",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._injection = options.injection
        self._rate = options.rate
        self._clock = clock
        self._randomizer = randomizer
        self._listener = listener
        report_outcomes(self, clock, listener)

    @property
    def rate(self) -> float:
        """The share of calls that are selected, from 0 to 1.

        The rate can be set at any time. With 0, every call runs unchanged.

        Raises:
            ValueError: The value is out of its range.
        """
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        _require_rate(rate)
        self._rate = rate

    async def run(self, call: Call[T]) -> T:
        """Run `call`, or apply the injection to it.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the call, or the injected error.
        """
        require_async(call)
        if self._randomizer.random() >= self._rate:
            return await call()
        notify(self._listener, FaultInjected(policy=self.name, kind=self._injection.kind))
        return await self._injection.apply(call, self._clock)


def _require_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, not {rate}")
