"""The library's own recording listener, for what a policy decides."""

from src.resilience import testing
from src.resilience.events import CallFinished


class RecordingListener(testing.RecordingListener):
    """Keeps every event but the outcome of each call."""

    def __init__(self) -> None:
        super().__init__(without=(CallFinished,))
