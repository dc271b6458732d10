"""The outcome of a call."""

import httpx
import pytest

from src.cli.outcomes import CallResult, ObservedCall, observe
from src.cli.provider_client import FailedAnswerError, NoAnswerError, RefusedAnswerError
from src.resilience import CallTimeoutError, CircuitOpenError
from tests.support.clock import FakeClock


async def test_a_response_has_its_status_and_duration(clock: FakeClock):
    async def call() -> httpx.Response:
        await clock.sleep(0.25)
        return httpx.Response(201)

    assert await clock.drive(observe(call, clock)) == ObservedCall(CallResult.OK, "201", 0.25)


@pytest.mark.parametrize(
    ("error", "outcome", "detail"),
    [
        (FailedAnswerError("503"), CallResult.FAILED, "503"),
        (RefusedAnswerError("400"), CallResult.REFUSED, "400"),
        (NoAnswerError("cut off"), CallResult.NO_ANSWER, "(cut off)"),
        (CallTimeoutError(2.0), CallResult.TIMED_OUT, "after 2 s"),
        (CircuitOpenError("breaker", "it is open", 1.0), CallResult.REJECTED, "by breaker"),
    ],
)
async def test_each_error_has_its_outcome(
    clock: FakeClock, error: Exception, outcome: CallResult, detail: str
):
    async def call() -> httpx.Response:
        raise error

    assert await observe(call, clock) == ObservedCall(outcome, detail, 0.0)


async def test_an_error_of_this_program_is_raised(clock: FakeClock):
    async def call() -> httpx.Response:
        raise KeyError("a slip")

    with pytest.raises(KeyError):
        await observe(call, clock)
