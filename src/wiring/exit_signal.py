"""Call functions of the service as soon as a signal stops the process."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from src.resilience.clock import Clock


@contextmanager
def on_exit_signal(act: Callable[[], object], clock: Clock, after_seconds: float = 0) -> Iterator[None]:
    """Call `act` on the event loop after SIGINT or SIGTERM.

    The server closes the lifespan after all answers have ended, which is too late to end long answers.

    Args:
        act: The function to call.
        clock: Measures the delay.
        after_seconds: The delay between the signal and the call.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signals here
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(clock.call_later, after_seconds, act)
        handlers[number](number, frame)

    current = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in current.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
