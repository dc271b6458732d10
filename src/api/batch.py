"""Reading a batch: a JSON array, or one JSON object a line. Valid points are kept, the others are reported.

A body within its limit may still take too much memory: five megabytes of `[[],[],…` are hundreds once they
are parsed. So points are parsed one at a time, and parsing stops at a point that is larger than
`MAX_OBJECT_BYTES` or beyond the most that are allowed.

Reading ten thousand points takes a tenth of a second, so the event loop has a turn every `SLICE_BYTES`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from src.analytics.points import Point
from src.api.body import MAX_OBJECT_BYTES
from src.api.errors import BAD_JSON, FieldError, Problem, ProblemError, field_errors, validation_problem
from src.api.models.metrics import METRIC_IN
from src.resilience.clock import Clock

MAX_ERRORS = 100
"""How many errors are reported; the rest are only counted."""

SLICE_BYTES = 10_000
"""Read in one turn of the event loop, a point as `_LEAST_BYTES` at least: about a millisecond."""
_LEAST_BYTES = 100

MAX_DEPTH = 8
"""How deep a point may be nested, itself included, in an array. An array nested deeper is unreadable (RFC
8259, section 9, allows a limit)."""


TOO_FAR_AHEAD = FieldError(field="timestamp", message="lies too far ahead of the server's clock")


@dataclass(slots=True)
class Batch:
    """The points and the errors of a batch.

    Attributes:
        latest_us: The latest timestamp there may be, in µs since 1970.
        points: The good ones, in their order.
        places: Their places in the batch, from 0.
        rejected: How many were not.
        errors: `{"index", "field", "message"}` of the first `MAX_ERRORS` things wrong.
    """

    latest_us: int
    points: list[Point] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rejected: int = 0
    errors: list[FieldError] = field(default_factory=list)

    def add(self, index: int, text: bytes) -> bool:
        """Keep the point at `index`, or note what is wrong with it. Return whether its `text` was parsed."""
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
            self.reject(index, [TOO_FAR_AHEAD])
        else:
            self.points.append(point)
            self.places.append(index)
        return True

    def reject(self, index: int, errors: Sequence[FieldError]) -> None:
        """Note what is wrong with the point at `index`."""
        self.rejected += 1
        room = MAX_ERRORS - len(self.errors)
        self.errors.extend({"index": index, **error} for error in errors[:room])


async def read_json_array(body: bytes, max_points: int, latest_us: int, clock: Clock) -> Batch:
    """Read a JSON array of points.

    Args:
        body: The array.
        max_points: The most there may be.
        latest_us: The latest timestamp there may be, in µs since 1970.
        clock: Gives the event loop its turns.

    Raises:
        ProblemError: 400, it is not JSON; 413, there are more than `max_points`; 422, it is no array.
    """
    return await _read(_elements(body), max_points, Batch(latest_us), clock, all_json=True)


async def read_ndjson(body: bytes, max_points: int, latest_us: int, clock: Clock) -> Batch:
    """Read one point a line; blank lines are passed over and not counted. The arguments are as above.

    Raises:
        ProblemError: 413, there are more than `max_points`.
    """
    return await _read(_lines(body), max_points, Batch(latest_us), clock, all_json=False)


async def _read(
    texts: Iterator[bytes], max_points: int, batch: Batch, clock: Clock, *, all_json: bool
) -> Batch:
    in_slice = 0
    for index, text in enumerate(texts):
        if index == max_points:
            raise too_many(max_points)
        if not batch.add(index, text) and all_json and not _is_json(text):
            raise ProblemError(BAD_JSON)
        in_slice += max(_LEAST_BYTES, len(text))
        if in_slice >= SLICE_BYTES:
            in_slice = 0
            await clock.sleep(0)
    return batch


def _is_json(text: bytes) -> bool:
    """Return whether `text` keeps to the grammar of JSON (RFC 8259).

    The parser rejects some texts that do: an integer of more than 4,300 digits, half a surrogate pair.
    """
    try:
        json.loads(text.decode(), parse_int=float)  # which takes any number of digits
    except ValueError:
        return False
    return True


def too_many(max_points: int) -> ProblemError:
    """Return the 413 for a batch of more than `max_points`."""
    return ProblemError(Problem(413, "PAYLOAD_TOO_LARGE", f"A batch may have at most {max_points} points"))


_LINE = re.compile(rb"\S[^\n]*+")  # passes over blanks and blank lines, of which a body may be full


def _lines(body: bytes) -> Iterator[bytes]:
    return (match[0].rstrip() for match in _LINE.finditer(body))


# An array is split into its elements by a pattern that matches brackets and strings, and leaves the rest to
# the parser. Every repetition is possessive: nothing is tried twice, so its time is linear for every body.

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'


def _nested(depth: int) -> bytes:
    """Return the pattern of an array or object that is at most `depth` deep."""
    inner = rb"|" + _nested(depth - 1) if depth > 1 else b""
    return rb'[\[{](?:[^\[\]{}"]++|%b%b)*+[\]}]' % (_STRING, inner)


_END = rb"(?P<end>\]%b\Z)" % _SPACE
_BEGIN = re.compile(rb"%b\[%b%b?" % (_SPACE, _SPACE, _END))
_VALUE = rb'%b|%b|[^\[\]{}", \t\n\r]++' % (_nested(MAX_DEPTH), _STRING)
_ELEMENT = re.compile(rb"%b(?P<text>%b)%b(?:,|%b)" % (_SPACE, _VALUE, _SPACE, _END), re.DOTALL)
_OTHER_JSON = re.compile(rb'%b[{"\-0-9tfn]' % _SPACE)


def _elements(body: bytes) -> Iterator[bytes]:
    """Yield the text of each element of a JSON array, which need not be JSON itself.

    Raises:
        ProblemError: 400, it is no array that can be read; 422, it is another kind of JSON.
    """
    match = _BEGIN.match(body)
    if match is None and _OTHER_JSON.match(body):
        wrong = [FieldError(field="body", message="must be a JSON array of points")]
        raise ProblemError(validation_problem(wrong))
    while match and match["end"] is None:
        match = _ELEMENT.match(body, match.end())
        if match:
            yield match["text"]
    if match is None:
        raise ProblemError(BAD_JSON)
