"""The fallback policy."""

import asyncio
import logging

import pytest

from src.resilience.events import FellBack
from src.resilience.fallback import Fallback, always
from tests.support.listener import RecordingListener

ERROR = ConnectionError("no")


async def succeed() -> str:
    return "the real one"


async def fail() -> str:
    raise ERROR


async def test_the_result_of_a_successful_call_is_returned(listener: RecordingListener):
    assert await Fallback(always("other"), listener=listener).run(succeed) == "the real one"
    assert listener.events == []


async def test_a_value_replaces_a_failed_call(listener: RecordingListener):
    fallback = Fallback(always("other"), name="reference", listener=listener)

    assert await fallback.run(fail) == "other"
    assert listener.events == [FellBack(policy="reference", error=ERROR)]


async def test_a_function_is_given_the_error():
    assert await Fallback(lambda error: f"instead of {error}").run(fail) == "instead of no"


async def test_a_function_may_be_async():
    async def substitute(error: Exception) -> str:
        await asyncio.sleep(0)
        return f"instead of {error}"

    assert await Fallback(substitute).run(fail) == "instead of no"


async def test_the_first_substitute_that_succeeds_is_used(caplog: pytest.LogCaptureFixture):
    asked = []

    def failing_substitute(error: Exception) -> str:
        asked.append(error)
        raise LookupError("nothing here either")

    def working_substitute(error: Exception) -> str:
        asked.append(error)
        return "second"

    with caplog.at_level(logging.WARNING):
        assert await Fallback(failing_substitute, working_substitute, always("third")).run(fail) == "second"

    assert asked == [ERROR, ERROR]
    assert [record.message for record in caplog.records] == ["substitute_failed"]


async def test_if_all_substitutes_fail_the_last_error_is_raised(
    listener: RecordingListener,
):
    def failing_substitute(_error: Exception) -> str:
        raise LookupError("nothing here")

    with pytest.raises(LookupError) as raised:
        await Fallback(failing_substitute, failing_substitute, listener=listener).run(fail)

    assert raised.value.__context__ is ERROR
    assert listener.events == []


async def test_other_errors_are_raised_unchanged():
    with pytest.raises(ConnectionError):
        await Fallback(always("other"), handles=(ValueError,)).run(fail)


async def test_an_unhandled_error_of_a_substitute_is_raised_at_once():
    def broken(_error: Exception) -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await Fallback(broken, always("other"), handles=(ConnectionError,)).run(fail)


async def test_a_cancellation_is_not_replaced():
    async def cancelled() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Fallback(always("other")).run(cancelled)


def test_at_least_one_substitute_is_required():
    with pytest.raises(ValueError, match="substitutes"):
        Fallback()
