"""Events with the outcome of every call of a policy.

A policy calls `report_outcomes` at the end of its constructor. If the listener accepts the event, the `run`
method of the policy is replaced by one that measures and reports. Otherwise `run` has no branch and no
wrapper for events, because these would noticeably slow the cheapest policies, which cost less than 0.2 µs.
A cache, which has a key for each call and no `run`, names the method that returns its answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ..clock import Clock
from ..errors import CallTimeoutError, QueueTimeoutError, RejectedError
from ..events import CallFinished, CallOutcome, Listener, accepts, notify
from ..policy import ResultJudge, is_misuse


class _NamedPolicy(Protocol):
    """A policy with a name for its events."""

    name: str


def _every_error_fails(_error: Exception) -> bool:
    return True


def report_outcomes(
    policy: _NamedPolicy,
    clock: Clock,
    listener: Listener,
    is_failure: Callable[[Exception], bool | None] = _every_error_fails,
    is_failure_result: ResultJudge | None = None,
    *,
    method: str = "run",
) -> None:
    """Let each `run` of `policy` send a `CallFinished` to `listener` when it ends.

    No event is sent for a plain function in place of an asynchronous call, since no policy runs it.

    Args:
        policy: The policy.
        clock: Measures the calls.
        listener: Receives the events.
        is_failure: Returns whether an error of a call is a failure. If the result is not True, the call
            succeeded.
        is_failure_result: Returns whether a result of `run` counts as a failure; None: no result does.
        method: The name of the coroutine method whose calls are those of the policy.
    """
    if accepts(listener, CallFinished):
        reporter = _Reporter(clock, listener, is_failure, is_failure_result)
        vars(policy)[method] = partial(_run_and_report, policy, reporter, method)


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Reports the calls of one policy, and of its copies with other options."""

    clock: Clock
    listener: Listener
    is_failure: Callable[[Exception], bool | None]
    is_failure_result: ResultJudge | None

    def report(
        self, policy: _NamedPolicy, began: float, outcome: CallOutcome, error: BaseException | None
    ) -> None:
        event = CallFinished(
            policy=policy.name,
            pattern=type(policy).__name__,
            outcome=outcome,
            duration_seconds=self.clock.monotonic() - began,
            error=error,
        )
        notify(self.listener, event)

    def outcome_of_result(self, result: object) -> CallOutcome:
        judge = self.is_failure_result
        return "failed" if judge is not None and judge(result) else "succeeded"

    def outcome_of_error(self, error: BaseException) -> CallOutcome:
        match error:
            case RejectedError():
                return "rejected"
            case CallTimeoutError() | QueueTimeoutError():
                return "timed_out"
            case Exception():
                return "failed" if self.is_failure(error) else "succeeded"
            case _:
                return "cancelled"


async def _run_and_report(
    policy: _NamedPolicy,
    reporter: _Reporter,
    method: str,
    *arguments: Any,  # noqa: ANN401 -- those of the policy's own method
    **options: Any,  # noqa: ANN401 -- likewise
) -> object:
    began = reporter.clock.monotonic()
    try:
        result: object = await getattr(type(policy), method)(policy, *arguments, **options)
    except BaseException as error:
        if not is_misuse(error):
            reporter.report(policy, began, reporter.outcome_of_error(error), error)
        raise
    reporter.report(policy, began, reporter.outcome_of_result(result), None)
    return result
