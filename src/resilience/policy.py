"""What a resilience pattern is to the rest: something that runs a call its own way."""

import inspect
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Protocol, TypeVar

T = TypeVar("T")

Call = Callable[[], Awaitable[T]]
"""A call that can be begun, and begun again: it takes nothing and returns a fresh awaitable each time.

An `async def`, a bound method or a partial of one, a lambda that returns an awaitable, or an object with such
a `__call__`. A plain `def` is none: see `require_async`.
"""

_IS_COROUTINE = inspect.CO_COROUTINE
_LAMBDA = "<lambda>"
_PACKAGE = f"{__name__.rpartition('.')[0]}."


class AsyncPartial(partial[Awaitable[T]]):
    """A partial that returns an awaitable for certain: `require_async` does not look into it."""


class Policy(Protocol):
    """A pattern around a call."""

    async def run(self, call: Call[T]) -> T:
        """Run `call`: once, several times or not at all.

        Returns:
            What the call returned, or what the policy answers in its place.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            ResilienceError: The policy's own verdict, such as a rejection or a timeout.
            BaseException: Whatever the call raised, where the policy lets it through.
        """
        ...


def require_async(call: Callable[..., object]) -> None:
    """Refuse a plain function, which a policy could run but not await.

    Every policy checks its call before it does anything else. A lambda, and an object that is no function,
    may return an awaitable; they are accepted here, and `is_misuse` recognizes the error if they do not.

    Raises:
        TypeError: `call` is a plain `def`, or a bound method or a partial of one.
    """
    kind = type(call)
    if kind is FunctionType:
        if call.__code__.co_flags & _IS_COROUTINE:  # the usual case, decided in a few instructions
            return
    elif kind is not MethodType and kind is not partial:
        return
    function: object = call
    while isinstance(function, (MethodType, partial)):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    if (
        isinstance(function, FunctionType)
        and function.__name__ != _LAMBDA
        and not inspect.iscoroutinefunction(inspect.unwrap(function))
    ):
        raise TypeError(
            f"{function.__qualname__} is a plain function; a policy awaits its call, so make it an async def"
        )


def is_misuse(error: BaseException) -> bool:
    """Return whether `error` says that a call was not asynchronous after all.

    It is a `TypeError` raised by a policy's own code, such as for awaiting a number. No policy retries such
    an error, counts it as a failure or answers in its place: the call would fail in the same way for ever.
    """
    if not isinstance(error, TypeError) or error.__traceback__ is None:
        return False
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith(_PACKAGE)
