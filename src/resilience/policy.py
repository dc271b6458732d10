"""The base classes of policies. A policy runs calls under a rule, such as a limit or a retry.

There are several ways to call, all with the same decisions::

    answer = await policy.run(call)

    @policy
    async def fetch(item): ...

    async with policy: ...  # policies that run a call at most once: see `permit`

    answer = policy.run_sync(call)  # some policies, in programs without asyncio: see `SyncPolicy`

    await policy.with_options(attempts=1).run(call)  # other options for one call, with the same state
"""

import functools
import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from copy import copy
from dataclasses import replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any, ClassVar, ParamSpec, Protocol, Self, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

Call = Callable[[], Awaitable[T]]
"""A call that a policy can run, also several times. Each time it returns a new awaitable.

A call is an `async def`, a bound method or a partial of one, a lambda that returns an awaitable, or an object
with such a `__call__`. A plain `def` is not a call: see `require_async`.
"""

ResultJudge = Callable[[Any], bool]
"""Returns whether a result of the call counts as a failure, such as an HTTP response with status 503."""

ErrorKinds: TypeAlias = type[Exception] | tuple[type[Exception], ...]
"""An exception class, or several."""

ErrorJudge: TypeAlias = Callable[[Exception], bool] | ErrorKinds
"""Selects errors: a function that returns whether an error is one of them, or their classes."""

_IS_COROUTINE = inspect.CO_COROUTINE
_LAMBDA = "<lambda>"
_NO_LOOP = "no running event loop"
"""The text of asyncio's error where a function needs an event loop."""
_PACKAGE = f"{__name__.rpartition('.')[0]}."


class AsyncPartial(partial[Awaitable[T]]):
    """A partial that is known to return an awaitable, so that `require_async` does not check it."""


class Policy(Protocol):
    """The port of a policy. A `Pipeline` accepts any object with this method."""

    async def run(self, call: Call[T]) -> T:
        """Run `call` once, several times or not at all.

        Returns:
            The result of the call, or a substitute of the policy.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            ResilienceError: The policy's own decision, such as a rejection or a timeout.
            BaseException: The error of the call, unless the policy handles it.
        """
        ...


class BasePolicy(ABC):
    """The base class of all policies: they are decorators, and their options can be overridden."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Run `call` under this policy. See `Policy.run`."""

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call of the function runs under this policy.

        Raises:
            TypeError: `function` is a plain function or an asynchronous generator.
        """
        require_async(function)

        @functools.wraps(function)
        async def under_policy(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.run(AsyncPartial(function, *args, **kwargs))

        return under_policy

    def _derive(self, **attributes: object) -> Self:
        """Return a copy with other attributes. The copy shares every object that holds state."""
        derived = copy(self)
        derived.__dict__.update(attributes)
        run = derived.__dict__.get("run")
        if isinstance(run, partial):  # it reports the outcomes of `self`: see `report_outcomes`
            derived.__dict__["run"] = partial(run.func, derived, *run.args[1:])
        return derived


class SyncPolicy(BasePolicy):
    """A policy that can also run plain functions, in a thread without an event loop.

    The coroutine of `run` is run to its end without an event loop, so all decisions are those of `run`. This
    works only if nothing suspends the coroutine. So the policy needs a `BlockingClock`, and a circuit breaker
    needs a `ThreadSafeBreakerStore`.
    """

    def run_sync(self, call: Callable[[], T]) -> T:
        """Run the plain function `call`. Blocks the thread, also while the policy waits.

        Returns:
            The result, as from `run`.

        Raises:
            TypeError: `call` is an async function or a generator, which is not run, or returns a coroutine.
            RuntimeError: The policy has to suspend, because its clock or its store needs an event loop.
            BaseException: The error of `run` for such a call.
        """
        _require_sync(call)

        async def awaited() -> T:
            result = call()
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("the call returned a coroutine; use run or the policy as a decorator")
            return result

        running = self.run(awaited)
        needs = (
            f"{type(self).__name__} cannot wait without an event loop: give it a BlockingClock, "
            "and a circuit breaker a ThreadSafeBreakerStore"
        )
        try:
            running.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        except RuntimeError as error:
            if str(error) == _NO_LOOP:
                error.add_note(needs)
            raise
        running.close()
        raise RuntimeError(needs)

    def sync(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a plain function: each call of the function runs under this policy, as in `run_sync`.

        Raises:
            TypeError: `function` is an async function or a generator.
        """
        _require_sync(function)

        @functools.wraps(function)
        def under_policy(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run_sync(partial(function, *args, **kwargs))

        return under_policy


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


O = TypeVar("O", bound=_Dataclass)  # noqa: E741 -- options


def override(options: O, **values: object) -> O:
    """Return `options` with the given values; None keeps the value that `options` has.

    Raises:
        ValueError: A value is out of its range.
    """
    return replace(options, **{name: value for name, value in values.items() if value is not None})


def selects(judge: ErrorJudge, error: Exception) -> bool:
    """Return whether `judge` selects `error`."""
    return isinstance(error, judge) if isinstance(judge, (type, tuple)) else judge(error)


def require_judge(option: str, judge: object) -> None:
    """Reject what is no `ErrorJudge` before there is an error to judge.

    Raises:
        TypeError: `judge` is neither a function nor an exception class nor a tuple of such classes.
    """
    kinds = judge if isinstance(judge, tuple) else (judge,)
    if isinstance(judge, (type, tuple)):
        is_valid = all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
    else:
        is_valid = callable(judge)
    if not is_valid:
        raise TypeError(f"{option} must be a function or exception classes, not {judge!r}")


def require_async(call: Callable[..., object]) -> None:
    """Reject a plain function, which a policy could run but not await.

    Every policy checks its call first. A lambda, or an object that is not a function, may return an
    awaitable, so this function accepts them. If they do not, `is_misuse` recognizes the error.

    Raises:
        TypeError: `call` is a plain `def`, or a bound method or a partial of one.
    """
    kind = type(call)
    if kind is FunctionType:
        if call.__code__.co_flags & _IS_COROUTINE:  # the usual case, decided in a few instructions
            return
    elif kind is not MethodType and kind is not partial:
        return
    function = _function_in(call)
    if (
        isinstance(function, FunctionType)
        and function.__name__ != _LAMBDA
        and not inspect.iscoroutinefunction(inspect.unwrap(function))
    ):
        name = function.__qualname__
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{name} is an asynchronous generator; a policy awaits one result of its call")
        raise TypeError(f"{name} is a plain function; a policy awaits its call, so make it an async def")


def _require_sync(call: Callable[..., object]) -> None:
    function = _function_in(call)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is an async function; use run or the policy as a decorator")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator; its code would run after the policy's end")


def _function_in(call: object) -> object:
    """Return the function that a partial or a bound method calls. Return any other `call` unchanged."""
    while isinstance(call, (MethodType, partial)):
        call = call.__func__ if isinstance(call, MethodType) else call.func
    return call


def is_misuse(error: BaseException) -> bool:
    """Return whether `error` was caused by a call that is not asynchronous.

    Such an error is a `TypeError` that is raised by a policy's own code, for example by awaiting a number. No
    policy retries the error, counts it as a failure or replaces it, since the call would always fail in the
    same way.
    """
    if not isinstance(error, TypeError) or error.__traceback__ is None:
        return False
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith(_PACKAGE)
