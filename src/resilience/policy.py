"""What a resilience pattern is to the rest: something that runs a call its own way."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

Call = Callable[[], Awaitable[T]]
"""A call that can be begun, and begun again: it takes nothing and returns a fresh awaitable each time."""


class Policy(Protocol):
    """A pattern around a call."""

    async def run(self, call: Call[T]) -> T:
        """Run `call`: once, several times or not at all.

        Returns:
            What the call returned, or what the policy answers in its place.

        Raises:
            ResilienceError: The policy's own verdict, such as a rejection or a timeout.
            BaseException: Whatever the call raised, where the policy lets it through.
        """
        ...
