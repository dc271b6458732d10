"""The points that the benchmark sends, as JSON and as line protocol."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson

from bench.load import Request
from bench.peers.databases import WRITE_PATH

BATCH_PATH = "/api/metrics/batch"
NDJSON, JSON = "application/x-ndjson", "application/json"

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_NO_LABELS: Final[Mapping[str, str]] = {}


class BenchPoint(NamedTuple):
    """A point.

    Attributes:
        type: The metric type; the measurement in line protocol.
        timestamp_us: Microseconds since 1970.
        value: A finite number.
        labels: Labels, or tags.
    """

    type: str
    timestamp_us: int
    value: float
    labels: Mapping[str, str] = _NO_LABELS

    def as_json(self) -> bytes:
        """Return the JSON object that this API accepts."""
        timestamp = _EPOCH + timedelta(microseconds=self.timestamp_us)
        members = {"timestamp": timestamp, "value": self.value, "type": self.type}
        return orjson.dumps({**members, "labels": self.labels} if self.labels else members)

    def as_line(self) -> str:
        """Return the line of line protocol."""
        tags = "".join(f",{name}={value}" for name, value in self.labels.items())
        return f"{self.type}{tags} value={self.value} {self.timestamp_us}"


def ndjson_request(points: Iterable[BenchPoint]) -> Request:
    """Return the request that stores `points` in this API as NDJSON."""
    return Request("POST", BATCH_PATH, b"\n".join(point.as_json() for point in points), NDJSON)


def array_request(points: Iterable[BenchPoint]) -> Request:
    """Return the request that stores `points` in this API as a JSON array."""
    return Request("POST", BATCH_PATH, b"[" + b",".join(point.as_json() for point in points) + b"]", JSON)


def single_request(point: BenchPoint) -> Request:
    """Return the request that stores one point in this API."""
    return Request("POST", "/api/metrics", point.as_json(), JSON)


def lines_request(points: Iterable[BenchPoint]) -> Request:
    """Return the request that stores `points` in a database."""
    return Request("POST", WRITE_PATH, "\n".join(point.as_line() for point in points).encode("ascii"))
