"""What became of a call, in the words and colours that every scenario shares."""

from dataclasses import dataclass
from enum import StrEnum

import httpx

from src.cli.provider_client import FailedAnswerError, NoAnswerError, RefusedAnswerError
from src.resilience import BreakerState, Call, CallTimeoutError, Clock, RejectedError


class CallResult(StrEnum):
    """How a call ended, seen by its caller."""

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
class Observation:
    """One call, seen by its caller.

    Attributes:
        outcome: How it ended.
        detail: A status code, a limit, who refused: what completes the outcome, in a word or two.
        seconds: How long it took, waits and retries included.
    """

    outcome: CallResult
    detail: str
    seconds: float


async def observe(call: Call[httpx.Response], clock: Clock) -> Observation:
    """Make `call` and say what became of it. An error that no call should end in is let through."""
    began = clock.monotonic()
    outcome, detail = await _outcome_of(call)
    return Observation(outcome, detail, clock.monotonic() - began)


async def _outcome_of(call: Call[httpx.Response]) -> tuple[CallResult, str]:
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
