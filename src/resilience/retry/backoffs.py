"""Backoffs: how long to wait before the next attempt.

With many callers, use a backoff with jitter: without it all callers that failed together also retry together.
Formulas and names are those of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import math
from dataclasses import dataclass
from typing import Final, Protocol

from ..clock import Randomizer


def _require_seconds(option: str, seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ValueError(f"{option} must be finite and above 0, not {seconds}")


class Backoff(Protocol):
    """Determines the delay before the next attempt."""

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return a number of seconds, at least 0.

        Args:
            attempt: The number of the attempt that failed, from 1.
            previous: The delay that this backoff returned for the attempt before; 0 for the first.
            randomizer: Draws the random numbers of a backoff with jitter.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same delay every time: `seconds`, at least 0."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds must be finite and at least 0, not {self.seconds}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return `seconds`."""
        return self.seconds


IMMEDIATE: Final = Fixed(0.0)
"""No delay."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Delays that grow by `step_seconds` each time, up to `cap_seconds`; both above 0."""

    step_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        _require_seconds("step_seconds", self.step_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, step · attempt)."""
        return min(self.cap_seconds, self.step_seconds * attempt)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Delays that grow by a factor each time.

    Attributes:
        base_seconds: The first delay, above 0.
        cap_seconds: The longest delay, above 0.
        factor: At least 1.
    """

    base_seconds: float
    cap_seconds: float
    factor: float = 2.0

    def __post_init__(self) -> None:
        _require_seconds("base_seconds", self.base_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor must be finite and at least 1, not {self.factor}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, base · factor^(attempt - 1))."""
        try:
            return min(self.cap_seconds, self.base_seconds * self.factor ** (attempt - 1))
        except OverflowError:  # above the largest float, and so above the cap
            return self.cap_seconds


@dataclass(frozen=True, slots=True)
class FullJitter:
    """A random delay from 0 to that of `backoff`. Distributes callers best."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return uniform(0, backoff)."""
        return randomizer.random() * self.backoff.delay(attempt, previous, randomizer)


@dataclass(frozen=True, slots=True)
class EqualJitter:
    """A random delay from half of the delay of `backoff` to all of it, for cases that need some delay."""

    backoff: Backoff

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return backoff / 2 + uniform(0, backoff / 2)."""
        half = self.backoff.delay(attempt, previous, randomizer) / 2
        return half + randomizer.random() * half


@dataclass(frozen=True, slots=True)
class JitterAround:
    """A wait around what `backoff` returns: up to `share` of it less or more; `share` in (0, 1].

    The jitter of resilience4j (`randomizationFactor`), failsafe-go (`WithJitterFactor`) and Polly (25 %).
    """

    backoff: Backoff
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:
        """Return uniform(backoff · (1 - share), backoff · (1 + share))."""
        factor = 1 + self.share * (2 * randomizer.random() - 1)
        return factor * self.backoff.delay(attempt, previous, randomizer)


@dataclass(frozen=True, slots=True)
class DecorrelatedJitter:
    """A random delay from `base_seconds` to three times the previous, up to `cap_seconds`; both above 0."""

    base_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        _require_seconds("base_seconds", self.base_seconds)
        _require_seconds("cap_seconds", self.cap_seconds)

    def delay(self, attempt: int, previous: float, randomizer: Randomizer) -> float:  # noqa: ARG002
        """Return min(cap, uniform(base, 3 · previous)). Before the first delay, previous is base."""
        longest = 3 * max(previous, self.base_seconds)
        return min(self.cap_seconds, self.base_seconds + randomizer.random() * (longest - self.base_seconds))
