"""The recording listener of the library, without the event of each call's outcome."""

from src.resilience import testing
from src.resilience.events import CallFinished


class RecordingListener(testing.RecordingListener):
    """Keeps every event except `CallFinished`."""

    def __init__(self) -> None:
        super().__init__(without=(CallFinished,))
