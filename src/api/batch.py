"""Reading a batch: a JSON array, or one JSON object a line; what is good is kept, what is not is told of."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from src.analytics.points import Point
from src.api.errors import BAD_JSON, FieldError, Problem, ProblemError, field_errors, validation_problem
from src.api.models import METRIC_IN

MAX_ERRORS = 100
"""Errors told of; the rest are only counted."""


@dataclass(slots=True)
class Batch:
    """What a batch came to.

    Attributes:
        points: The good ones, in their order.
        rejected: How many were not.
        errors: `{"index", "field", "message"}` of the first `MAX_ERRORS` things wrong.
    """

    points: list[Point] = field(default_factory=list)
    rejected: int = 0
    errors: list[FieldError] = field(default_factory=list)

    def reject(self, index: int, error: ValidationError) -> None:
        """Note that the point at `index` is not good."""
        self.rejected += 1
        room = MAX_ERRORS - len(self.errors)
        for wrong in field_errors(error.errors(include_url=False, include_input=False))[:room]:
            self.errors.append({"index": index, **wrong})


def read_json_array(body: bytes, max_points: int) -> Batch:
    """Read a JSON array of points.

    Raises:
        ProblemError: 400, it is not JSON; 413, there are more than `max_points`; 422, it is no array.
    """
    array = TypeAdapter(Annotated[list[Any], Field(max_length=max_points)])
    try:
        items = array.validate_json(body)
    except ValidationError as error:
        match error.errors()[0]["type"]:
            case "json_invalid":
                raise ProblemError(BAD_JSON) from None
            case "too_long":
                raise too_many(max_points) from None
            case _:
                wrong = validation_problem([{"field": "body", "message": "must be a JSON array of points"}])
                raise ProblemError(wrong) from None
    batch = Batch()
    for index, item in enumerate(items):
        try:
            batch.points.append(METRIC_IN.validate_python(item).point())
        except ValidationError as error:
            batch.reject(index, error)
    return batch


def read_ndjson(body: bytes, max_points: int) -> Batch:
    """Read one point a line; blank lines are passed over and not counted.

    Raises:
        ProblemError: 413, there are more than `max_points`.
    """
    batch = Batch()
    for index, line in enumerate(_lines(body)):
        if index == max_points:
            raise too_many(max_points)
        try:
            batch.points.append(METRIC_IN.validate_json(line).point())
        except ValidationError as error:
            batch.reject(index, error)
    return batch


def too_many(max_points: int) -> ProblemError:
    """Return the 413 for a batch of more than `max_points`."""
    return ProblemError(Problem(413, "PAYLOAD_TOO_LARGE", f"A batch may have at most {max_points} points"))


def _lines(body: bytes) -> Iterable[bytes]:
    return (line for line in map(bytes.strip, io.BytesIO(body)) if line)
