"""The readiness of the metric service for writes and for reads."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Readiness:
    """The readiness at one moment.

    Attributes:
        ingest: Whether the store accepts measurements.
        reads: Whether the store can read summaries and lists.
    """

    ingest: bool
    reads: bool
