"""The callback that runs when a signal stops the process."""

import signal

import pytest

from src.wiring.exit_signal import on_exit_signal
from tests.support.clock import settle


@pytest.fixture
def received_signals():
    """Return the list of signals that the server received."""
    numbers = []
    before = {
        number: signal.signal(number, lambda number, _: numbers.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_callback_and_the_server_both_get_the_signal(clock, received_signals, number):
    calls = []
    with (
        on_exit_signal(lambda: calls.append("first"), clock),
        on_exit_signal(lambda: calls.append("second"), clock, after_seconds=5),
    ):
        signal.raise_signal(number)
        await clock.advance(0)
        assert (calls, received_signals) == (["first"], [number])
        await clock.advance(4)
        assert calls == ["first"]
        await clock.advance(1)
        assert calls == ["first", "second"]


async def test_the_callback_is_not_called_without_a_signal_or_after_the_context(clock, received_signals):
    calls = []
    with on_exit_signal(lambda: calls.append(1), clock):
        await clock.advance(100)
    signal.raise_signal(signal.SIGTERM)
    await settle()
    assert (calls, received_signals) == ([], [signal.SIGTERM])
