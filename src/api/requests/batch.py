"""Read a batch: a JSON array, or one JSON object per line. Valid points are kept, the others are reported.

A body within its limit can still need too much memory: five megabytes of `[[],[],…` become hundreds of
megabytes of parsed JSON. This module therefore parses one point at a time. It rejects a point of more than
`MAX_OBJECT_BYTES` unparsed, and stops after the largest allowed number of points.

Reading ten thousand points takes 0.1 s. Other tasks therefore run after every `SLICE_BYTES`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from src.analytics.points import Point
from src.api.errors import BAD_JSON, FieldError, Problem, ProblemError, field_errors, validation_problem
from src.api.models.metrics import METRIC_IN
from src.api.requests.body import MAX_OBJECT_BYTES
from src.resilience.clock import Clock
from src.services.metrics.ingest import PointRejection

MAX_ERRORS = 100
"""The largest number of errors in an answer. Further errors are only counted."""

SLICE_BYTES = 10_000
"""Bytes that are read without a pause for other tasks, in about 1 ms."""
_LEAST_BYTES = 100
"""The least number of bytes that a point counts as, since a short point costs time too."""

MAX_DEPTH = 8
"""The deepest nesting of a point in an array; the point itself is level 1. A deeper array is rejected as
unreadable (RFC 8259, section 9, allows a limit)."""


FUTURE_TIMESTAMP = FieldError(field="timestamp", message="is too far ahead of the server's clock")


@dataclass(slots=True)
class Batch:
    """The points and the errors of a batch.

    Attributes:
        latest_us: The latest timestamp that is accepted, in µs since 1970.
        points: The valid points, in the order of the batch.
        indexes: The index of each valid point in the batch, from 0.
        rejected: The number of invalid points.
        errors: `{"index", "field", "message"}` for each of the first `MAX_ERRORS` errors.
    """

    latest_us: int
    points: list[Point] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    rejected: int = 0
    errors: list[FieldError] = field(default_factory=list)

    def add(self, index: int, text: bytes) -> bool:
        """Keep the point at `index`, or record its errors. Return False if `text` could not be parsed."""
        if len(text) > MAX_OBJECT_BYTES:
            message = f"a point may be at most {MAX_OBJECT_BYTES} bytes"
            self.reject(index, [{"field": "body", "message": message}])
            return True
        try:
            point = METRIC_IN.validator.validate_json(text).point()
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            self.reject(index, field_errors(errors) if len(self.errors) < MAX_ERRORS else [])
            return errors[0]["type"] != "json_invalid"
        if point.timestamp_us > self.latest_us:
            self.reject(index, [FUTURE_TIMESTAMP])
        else:
            self.points.append(point)
            self.indexes.append(index)
        return True

    def reject(self, index: int, errors: Sequence[FieldError]) -> None:
        """Count the point at `index` as rejected, and record its errors."""
        self.rejected += 1
        room = MAX_ERRORS - len(self.errors)
        self.errors.extend({"index": index, **error} for error in errors[:room])

    def reject_stored(self, rejections: Sequence[PointRejection]) -> None:
        """Count valid points as rejected by the store, and record the first errors of all, by index."""
        self.rejected += len(rejections)
        first = sorted(rejections)[:MAX_ERRORS]
        errors = self.errors + [FieldError(index=n, field=name, message=text) for n, name, text in first]
        self.errors = sorted(errors, key=lambda error: int(error["index"]))[:MAX_ERRORS]


async def read_json_array(body: bytes, max_points: int, latest_us: int, clock: Clock) -> Batch:
    """Read a JSON array of points.

    Args:
        body: The array.
        max_points: The largest number of points.
        latest_us: The latest timestamp that is accepted, in µs since 1970.
        clock: Lets other tasks run while the array is read.

    Raises:
        ProblemError: 400 if the body is not JSON; 413 if it has more than `max_points` points; 422 if it is
            not an array.
    """
    return await _read(_elements(body), max_points, Batch(latest_us), clock, all_json=True)


async def read_ndjson(body: bytes, max_points: int, latest_us: int, clock: Clock) -> Batch:
    """Read one point per line; blank lines are not counted. The arguments are those of `read_json_array`.

    Raises:
        ProblemError: 413 if the body has more than `max_points` points.
    """
    return await _read(_lines(body), max_points, Batch(latest_us), clock, all_json=False)


async def _read(
    texts: Iterator[bytes], max_points: int, batch: Batch, clock: Clock, *, all_json: bool
) -> Batch:
    in_slice = 0
    for index, text in enumerate(texts):
        if index == max_points:
            raise _too_many_points(max_points)
        if not batch.add(index, text) and all_json and not _is_json(text):
            raise ProblemError(BAD_JSON)
        in_slice += max(_LEAST_BYTES, len(text))
        if in_slice >= SLICE_BYTES:
            in_slice = 0
            await clock.sleep(0)
    return batch


def _is_json(text: bytes) -> bool:
    """Return whether `text` is JSON (RFC 8259).

    The parser rejects some valid JSON: an integer of more than 4,300 digits, or half a surrogate pair.
    """
    try:
        json.loads(text.decode(), parse_int=float)  # float accepts any number of digits
    except ValueError:
        return False
    return True


def _too_many_points(max_points: int) -> ProblemError:
    return ProblemError(Problem(413, "PAYLOAD_TOO_LARGE", f"A batch may have at most {max_points} points"))


_LINE = re.compile(rb"\S[^\n]*+")  # skips blanks and blank lines, which may fill the whole body


def _lines(body: bytes) -> Iterator[bytes]:
    return (match[0].rstrip() for match in _LINE.finditer(body))


# A pattern splits an array into its elements. The pattern matches brackets and strings only; the parser then
# checks each element. Every repetition is possessive, so the pattern never backtracks and takes linear time.

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _nested(depth: int) -> bytes:
    """Return the pattern of an array or object of at most `depth` levels."""
    inner = rb"|" + _nested(depth - 1) if depth > 1 else b""
    return rb'[\[{](?:[^\[\]{}"]++|%b%b)*+[\]}]' % (_STRING, inner)


_END = rb"(?P<end>\]%b\Z)" % _SPACE
_BEGIN = re.compile(rb"%b\[%b%b?" % (_SPACE, _SPACE, _END))
_VALUE = rb'%b|%b|[^\[\]{}", \t\n\r]++' % (_nested(MAX_DEPTH), _STRING)
_ELEMENT = re.compile(rb"%b(?P<text>%b)%b(?:,|%b)" % (_SPACE, _VALUE, _SPACE, _END), re.DOTALL)
_OTHER_JSON = re.compile(rb'%b[{"\-0-9tfn]' % _SPACE)


def _elements(body: bytes) -> Iterator[bytes]:
    """Yield the text of each element of a JSON array. The text of an element may be invalid JSON.

    Raises:
        ProblemError: 400 if the body is not a readable array; 422 if it is another kind of JSON.
    """
    match = _BEGIN.match(body)
    if match is None and _OTHER_JSON.match(body):
        errors = [FieldError(field="body", message="must be a JSON array of points")]
        raise ProblemError(validation_problem(errors))
    while match and match["end"] is None:
        match = _ELEMENT.match(body, match.end())
        if match:
            yield match["text"]
    if match is None:
        raise ProblemError(BAD_JSON)
