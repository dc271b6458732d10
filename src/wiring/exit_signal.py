"""What has to happen as soon as the process is told to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_exit_signal(act: Callable[[], object]) -> Iterator[None]:
    """Have `act` done as soon as the process is told to stop.

    The server tells us only when every answer has ended, and some do not end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signals here
        return

    def handle(number: int, frame: FrameType | None) -> None:
        act()
        handlers[number](number, frame)

    found = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
