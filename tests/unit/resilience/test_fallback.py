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


async def test_a_call_that_succeeds_is_left_alone(listener: RecordingListener):
    assert await Fallback(always("other"), listener=listener).run(succeed) == "the real one"
    assert listener.events == []


async def test_a_value_answers_for_a_failed_call(listener: RecordingListener):
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


async def test_of_several_the_first_that_can_answer_does(caplog: pytest.LogCaptureFixture):
    asked = []

    def helpless(error: Exception) -> str:
        asked.append(error)
        raise LookupError("nothing here either")

    def able(error: Exception) -> str:
        asked.append(error)
        return "second"

    with caplog.at_level(logging.WARNING):
        assert await Fallback(helpless, able, always("third")).run(fail) == "second"

    assert asked == [ERROR, ERROR]
    assert [record.message for record in caplog.records] == ["substitute_failed"]


async def test_when_none_can_answer_the_last_error_is_raised_in_the_context_of_the_calls_own(
    listener: RecordingListener,
):
    def helpless(_error: Exception) -> str:
        raise LookupError("nothing here")

    with pytest.raises(LookupError) as raised:
        await Fallback(helpless, helpless, listener=listener).run(fail)

    assert raised.value.__context__ is ERROR
    assert listener.events == []


async def test_errors_it_does_not_handle_pass():
    with pytest.raises(ConnectionError):
        await Fallback(always("other"), handles=(ValueError,)).run(fail)


async def test_a_substitutes_error_it_does_not_handle_passes_at_once():
    def broken(_error: Exception) -> str:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await Fallback(broken, always("other"), handles=(ConnectionError,)).run(fail)


async def test_a_cancellation_passes():
    async def cancelled() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Fallback(always("other")).run(cancelled)


def test_there_must_be_a_substitute():
    with pytest.raises(ValueError, match="substitutes"):
        Fallback()
