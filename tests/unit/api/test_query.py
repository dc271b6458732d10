"""Query strings, read by a model."""

import pytest
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from src.api.errors import ProblemError
from src.api.requests.query import QueryReader


class Query(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: str = Field(pattern="^[a-z/ ]+$")
    from_: int = Field(0, alias="from")


READER = QueryReader(Query)


def read(query: bytes) -> Query:
    return READER.read(Request({"type": "http", "query_string": query}))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"type=cpu", ("cpu", 0)),
        (b"from=7&type=cpu", ("cpu", 7)),
        (b"%74ype=a%2Fb+c", ("a/b c", 0)),
        (b"type=cpu&type=gpu", ("gpu", 0)),
        (b"&&type=cpu&", ("cpu", 0)),
        (b"type=cpu&unknown=1", ("cpu", 0)),
        (b"type=cpu&unknown=" + b"x" * 10_000, ("cpu", 0)),
    ],
)
def test_equivalent_encodings_of_a_query_are_equal(query, expected):
    for _ in range(2):
        found = read(query)
        assert (found.type, found.from_) == expected


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        (b"", "type", "Field required"),
        (b"type", "type", "String should match pattern '^[a-z/ ]+$'"),
        (b"type=cpu&from=x", "from", "Input should be a valid integer, unable to parse string as an integer"),
        (b"type=\xff", "type", "String should match pattern '^[a-z/ ]+$'"),
    ],
)
def test_an_invalid_parameter_is_reported(query, field, message):
    for _ in range(2):
        with pytest.raises(ProblemError) as caught:
            read(query)
        problem = caught.value.problem
        assert (problem.status, problem.code) == (422, "VALIDATION_ERROR")
        assert problem.errors == [{"field": field, "message": message}]


def test_a_short_query_is_cached_and_a_long_one_is_not():
    assert read(b"type=cpu") is read(b"type=cpu")
    long = b"type=" + b"a" * 300
    assert read(long) is not read(long)
