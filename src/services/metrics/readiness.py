"""Which parts of the metric service work at the moment."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the store would do with a request that comes now.

    Attributes:
        ingest: Whether it would store a measurement.
        reads: Whether it would summarize and list measurements.
    """

    ingest: bool
    reads: bool
