"""A listener that counts events with OpenTelemetry. It needs only `opentelemetry-api`, not the SDK.

================================== ========= ======= ==============================================
instrument                         kind      unit    attributes
================================== ========= ======= ==============================================
`standfast.calls`                  counter   {call}  `policy`, `pattern`, `outcome`
`standfast.call.duration`          histogram s       `policy`, `pattern`, `outcome`
`standfast.events`                 counter   {event} `policy`, `event`
================================== ========= ======= ==============================================

The first three attributes are those of `CallFinished`. `event` is the class of any other event, such as
"Retried".
"""

from opentelemetry.metrics import MeterProvider, get_meter

from ..events import CallFinished, Event
from . import DURATION_BUCKETS_SECONDS


class OpenTelemetryListener:
    """Counts every event, and measures every call.

    Args:
        meter_provider: Creates the instruments; None for the global provider.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = get_meter("standfast", meter_provider=meter_provider)
        self._calls = meter.create_counter(
            "standfast.calls", unit="{call}", description="Calls of a policy, by outcome"
        )
        self._durations = meter.create_histogram(
            "standfast.call.duration",
            unit="s",
            description="Time from the call of a policy to its end",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self._events = meter.create_counter(
            "standfast.events", unit="{event}", description="Decisions of a policy"
        )

    def __call__(self, event: Event) -> None:
        """Count `event`."""
        if isinstance(event, CallFinished):
            attributes = {"policy": event.policy, "pattern": event.pattern, "outcome": event.outcome}
            self._calls.add(event.times, attributes)
            self._durations.record(event.duration_seconds, attributes)
        else:
            self._events.add(event.times, {"policy": event.policy, "event": type(event).__name__})
