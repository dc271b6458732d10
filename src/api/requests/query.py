"""Read a query string with a model. An invalid query is a 422, like an invalid body."""

from functools import lru_cache
from typing import Generic, TypeVar, get_origin
from urllib.parse import parse_qsl

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from src.api.errors import ProblemError, field_errors, validation_problem

Q = TypeVar("Q", bound=BaseModel)

_CACHED_QUERIES = 2048
_CACHED_QUERY_BYTES = 256
"""The number and the largest length of the queries whose parsed form is cached."""


class QueryReader(Generic[Q]):
    """Reads the queries of one route.

    Args:
        model: The model of a query. It must be frozen, since requests with equal queries share one instance.
    """

    def __init__(self, model: type[Q]) -> None:
        self._adapter = TypeAdapter(model)
        self._repeated = {
            name for name, member in model.model_fields.items() if get_origin(member.annotation) is tuple
        }
        self._cached_parse = lru_cache(_CACHED_QUERIES)(self._parse)

    def read(self, request: Request) -> Q:
        """Return the query of `request`.

        If a parameter occurs several times and the model's member is a tuple, the tuple has all the values.
        Otherwise the last value counts.

        Raises:
            ProblemError: 422 if the query is invalid.
        """
        query: bytes = request.scope["query_string"]
        return self._cached_parse(query) if len(query) <= _CACHED_QUERY_BYTES else self._parse(query)

    def _parse(self, query: bytes) -> Q:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        members: dict[str, object] = dict(pairs)
        for name in self._repeated & members.keys():
            members[name] = tuple(value for other, value in pairs if other == name)
        try:
            return self._adapter.validate_python(members)
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False, include_input=False))
            raise ProblemError(validation_problem(errors)) from None
