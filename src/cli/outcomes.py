"""The outcomes of calls, with the texts and colours that all scenarios use."""

from dataclasses import dataclass
from enum import StrEnum

import httpx

from src.cli.provider_client import FailedAnswerError, NoAnswerError, RefusedAnswerError
from src.resilience import CallTimeoutError, RejectedError
from src.resilience.circuit_breaker import BreakerState
from src.resilience.clock import Clock
from src.resilience.policy import Call


class CallResult(StrEnum):
    """The outcome of a call, from its caller's point of view."""

    OK = "ok"
    FAILED = "failed"
    NO_ANSWER = "no answer"
    TIMED_OUT = "timed out"
    REFUSED = "refused"
    REJECTED = "rejected"


RESULT_STYLES = {
    CallResult.OK: "green",
    CallResult.FAILED: "red",
    CallResult.NO_ANSWER: "red",
    CallResult.TIMED_OUT: "magenta",
    CallResult.REFUSED: "cyan",
    CallResult.REJECTED: "yellow",
}

STATE_STYLES = {
    BreakerState.CLOSED: "green",
    BreakerState.OPEN: "bold red",
    BreakerState.HALF_OPEN: "bold yellow",
}


@dataclass(frozen=True, slots=True)
class ObservedCall:
    """One call, from its caller's point of view.

    Attributes:
        outcome: The outcome.
        detail: A short detail of the outcome, such as the status code or the policy that rejected the call.
        seconds: The duration, including waits and retries.
    """

    outcome: CallResult
    detail: str
    seconds: float


async def observe(call: Call[httpx.Response], clock: Clock) -> ObservedCall:
    """Make `call`, and return its outcome. An unexpected error is raised."""
    began = clock.monotonic()
    outcome, detail = await _make_call(call)
    return ObservedCall(outcome, detail, clock.monotonic() - began)


async def _make_call(call: Call[httpx.Response]) -> tuple[CallResult, str]:
    try:
        answer = await call()
    except FailedAnswerError as error:
        return CallResult.FAILED, str(error)
    except RefusedAnswerError as error:
        return CallResult.REFUSED, str(error)
    except NoAnswerError as error:
        return CallResult.NO_ANSWER, f"({error})"
    except CallTimeoutError as error:
        return CallResult.TIMED_OUT, f"after {error.seconds:g} s"
    except RejectedError as error:
        return CallResult.REJECTED, f"by {error.policy}"
    return CallResult.OK, str(answer.status_code)
