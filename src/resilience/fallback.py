"""Fallback: another answer instead of a failed call."""

import inspect
import logging
from collections.abc import Callable
from typing import TypeVar, cast

from .building_blocks.outcomes import report_outcomes
from .clock import Clock, SystemClock
from .errors import FailedResultError
from .events import FellBack, Listener, ignore, notify
from .policy import Call, ResultJudge, SyncPolicy, is_misuse, require_async

_log = logging.getLogger(__name__)

T = TypeVar("T")

Substitute = Callable[[Exception], object]
"""Makes an answer from the error of the call: returns it or an awaitable of it, or raises an error."""


class Fallback(SyncPolicy):
    """A policy that replaces the error of a call by the answer of a substitute.

    The types are not checked: a substitute must return the same type as the call.

    Args:
        substitutes: At least one substitute. They are tried in order until one answers. Each is called with
            the error of the call, or with a `FailedResultError` that contains a failed result.
        handles: Errors, of the call or of a substitute, after which the next substitute is tried. Any other
            error is raised to the caller, and so is a cancellation.
        is_failure_result: Returns whether a result of the call counts as a failure; None: no result does.
        clock: Measures the calls, for `CallFinished`; None for the system clock.
        name: The policy's name in events.
        listener: Receives `FellBack` for each call that a substitute answered.
    """

    def __init__(
        self,
        *substitutes: Substitute,
        handles: tuple[type[Exception], ...] = (Exception,),
        is_failure_result: ResultJudge | None = None,
        clock: Clock | None = None,
        name: str = "fallback",
        listener: Listener = ignore,
    ) -> None:
        if not substitutes:
            raise ValueError("substitutes must be at least one")
        self.name = name
        self._substitutes = substitutes
        self._handles = handles
        self._is_failure_result = is_failure_result
        self._listener = listener
        report_outcomes(self, clock or SystemClock(), listener)

    async def run(self, call: Call[T]) -> T:
        """Run `call`; if it fails, return the answer of a substitute.

        Raises:
            TypeError: `call` is a plain function; it is not run.
            BaseException: The error of the call, if it is not handled; the error of the last substitute, with
                that of the call as its context, if no substitute could answer.
        """
        require_async(call)
        try:
            result = await call()
        except self._handles as error:
            if is_misuse(error):
                raise
            return cast("T", await self._answer_instead(error))
        if self._is_failure_result is None or not self._is_failure_result(result):
            return result
        return cast("T", await self._answer_instead(FailedResultError(result)))

    async def _answer_instead(self, error: Exception) -> object:
        *others, last = self._substitutes
        for substitute in others:
            try:
                answer = await _answer(substitute, error)
                break
            except self._handles as failure:
                _log.warning("substitute_failed", extra={"policy": self.name, "reason": repr(failure)})
        else:
            answer = await _answer(last, error)
        notify(self._listener, FellBack(policy=self.name, error=error))
        return answer


def always(answer: object) -> Substitute:
    """Return the substitute that always answers with `answer`."""
    return lambda _error: answer


async def _answer(substitute: Substitute, error: Exception) -> object:
    answer = substitute(error)
    return await answer if inspect.isawaitable(answer) else answer
