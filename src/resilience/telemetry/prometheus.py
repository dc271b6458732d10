"""A listener that counts events with `prometheus_client`.

===================================== ========= ===============================
metric                                kind      labels
===================================== ========= ===============================
`standfast_calls_total`               counter   `policy`, `pattern`, `outcome`
`standfast_call_duration_seconds`     histogram `policy`, `pattern`, `outcome`
`standfast_events_total`              counter   `policy`, `event`
===================================== ========= ===============================

The first three labels are those of `CallFinished`. `event` is the class of any other event, such as
"Retried". This query returns the share of successful calls over five minutes::

    sum by (policy, pattern) (rate(standfast_calls_total{outcome="succeeded"}[5m]))
      / sum by (policy, pattern) (rate(standfast_calls_total[5m]))
"""

from collections.abc import Sequence
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from ..events import CallFinished, Event
from . import DURATION_BUCKETS_SECONDS


class PrometheusListener:
    """Counts every event, and measures every call. Create one listener per registry, for all policies.

    Args:
        registry: The registry for the metrics.
        buckets: Upper bounds of the histogram's buckets, in seconds.

    Raises:
        ValueError: The registry has these metrics already.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        buckets: Sequence[float] = DURATION_BUCKETS_SECONDS,
    ) -> None:
        labels = ("policy", "pattern", "outcome")
        calls = Counter("standfast_calls", "Calls of a policy, by outcome", labels, registry=registry)
        durations = Histogram(
            "standfast_call_duration_seconds",
            "Time from the call of a policy to its end",
            labels,
            registry=registry,
            buckets=buckets,
        )
        events = Counter("standfast_events", "Decisions of a policy", ("policy", "event"), registry=registry)
        # There are few series, and a lookup costs several times as much as a count.
        self._calls = cache(calls.labels)
        self._durations = cache(durations.labels)
        self._events = cache(events.labels)

    def __call__(self, event: Event) -> None:
        """Count `event`."""
        if isinstance(event, CallFinished):
            series = event.policy, event.pattern, event.outcome
            self._calls(*series).inc(event.times)
            self._durations(*series).observe(event.duration_seconds)
        else:
            self._events(event.policy, type(event).__name__).inc(event.times)
