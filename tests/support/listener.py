"""A listener that remembers."""

from typing import TypeVar

from src.resilience.events import Event

E = TypeVar("E", bound=Event)


class RecordingListener:
    """Keeps every event it is told, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]
