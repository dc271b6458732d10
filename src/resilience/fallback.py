"""Fallback: another answer in place of a failed call."""

import inspect
import logging
from collections.abc import Callable
from typing import TypeVar, cast

from .events import FellBack, Listener, ignore, notify
from .policy import Call, is_misuse, require_async

_log = logging.getLogger(__name__)

T = TypeVar("T")

Substitute = Callable[[Exception], object]
"""Makes an answer, given the error of the call: returns it, or an awaitable of it, or raises if it can't."""


class Fallback:
    """The policy. Types are the caller's to match: a substitute must answer with what the call would.

    Args:
        substitutes: Tried in order until one answers; at least one. Each is given the error of the call.
        handles: Errors, of the call or of a substitute, after which the next substitute is tried. Any other
            goes to the caller, and so does a cancellation.
        name: What events call this policy.
        listener: Told of every call that was answered in this way.
    """

    def __init__(
        self,
        *substitutes: Substitute,
        handles: tuple[type[Exception], ...] = (Exception,),
        name: str = "fallback",
        listener: Listener = ignore,
    ) -> None:
        if not substitutes:
            raise ValueError("substitutes must be at least one")
        self.name = name
        self._substitutes = substitutes
        self._handles = handles
        self._listener = listener

    async def run(self, call: Call[T]) -> T:
        """Run `call`, or else answer for it.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: What the call raised, if it is not handled; what the last substitute raised, the
                call's error being its context, if none could answer.
        """
        require_async(call)
        try:
            return await call()
        except self._handles as error:
            if is_misuse(error):
                raise
            answer = cast("T", await self._substitute_for(error))
            notify(self._listener, FellBack(policy=self.name, error=error))
            return answer

    async def _substitute_for(self, error: Exception) -> object:
        *others, last = self._substitutes
        for substitute in others:
            try:
                return await _answer(substitute, error)
            except self._handles as failure:
                _log.warning("substitute_failed", extra={"policy": self.name, "reason": repr(failure)})
        return await _answer(last, error)


def always(answer: object) -> Substitute:
    """Return the substitute that always answers with `answer`."""
    return lambda _error: answer


async def _answer(substitute: Substitute, error: Exception) -> object:
    answer = substitute(error)
    return await answer if inspect.isawaitable(answer) else answer
