"""Chaos: spoil some calls on purpose, to see that the patterns around them hold.

It belongs innermost in a pipeline, where the faults it makes up are met by everything that is there to meet
real ones. A chaos policy injects one thing; for several, put several in a row. The idea and the three kinds
are those of Simmy, the chaos strategies of Polly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, cast

from .clock import Clock, Randomizer
from .events import FaultInjected, Listener, ignore, notify
from .policy import Call, require_async

T = TypeVar("T")


class Injection(Protocol):
    """What befalls a call.

    Attributes:
        kind: What events call it.
    """

    kind: ClassVar[str]

    async def apply(self, call: Call[T], clock: Clock) -> T:
        """Return or raise what the caller gets; `call` may be run or not."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """The call is not run and fails.

    Attributes:
        error: Makes the error that is raised, a new one each time; an exception class will do.
    """

    kind: ClassVar[str] = "fault"

    error: Callable[[], Exception]

    async def apply(self, call: Call[T], clock: Clock) -> T:  # noqa: ARG002
        """Raise the error."""
        raise self.error()


@dataclass(frozen=True, slots=True)
class Latency:
    """The call is run after a wait of `seconds`, finite and above 0."""

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
    """The call is not run, and `answer` is what it returns. Its type is the user's to match."""

    kind: ClassVar[str] = "outcome"

    answer: object

    async def apply(self, call: Call[T], clock: Clock) -> T:  # noqa: ARG002
        """Return the answer."""
        return cast("T", self.answer)


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What happens, and how often.

    Attributes:
        injection: What befalls the calls that are hit.
        rate: The share of calls that are hit, from 0, which is none, to 1, which is all.
    """

    injection: Injection
    rate: float

    def __post_init__(self) -> None:
        _require_rate(self.rate)


class Chaos:
    """The policy. Every call is hit or spared by a lot of its own.

    Args:
        options: What happens, and how often to begin with.
        clock: Waits, where latency is injected.
        randomizer: Draws the lots.
        name: What events call this policy.
        listener: Told of every call that is hit, before it is.
    """

    def __init__(
        self,
        options: ChaosOptions,
        clock: Clock,
        randomizer: Randomizer,
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

    @property
    def rate(self) -> float:
        """The share of calls that are hit, from 0 to 1. Set it at any time: 0 turns the policy off.

        Raises:
            ValueError: It is set to something else.
        """
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        _require_rate(rate)
        self._rate = rate

    async def run(self, call: Call[T]) -> T:
        """Run `call`, or let the injection have it.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: Whatever the call raised, or the injected error.
        """
        require_async(call)
        if self._randomizer.random() >= self._rate:
            return await call()
        notify(self._listener, FaultInjected(policy=self.name, kind=self._injection.kind))
        return await self._injection.apply(call, self._clock)


def _require_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, not {rate}")
