"""Reading a query string: a model says what it may hold, and what is wrong is a 422 like any other."""

from functools import lru_cache
from typing import Generic, TypeVar, get_origin
from urllib.parse import parse_qsl

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from src.api.errors import ProblemError, field_errors, validation_problem

Q = TypeVar("Q", bound=BaseModel)

_REMEMBERED = 2048
_REMEMBERED_BYTES = 256
"""Queries that are read once for all requests with the same one: how many, and of what length at most."""


class QueryReader(Generic[Q]):
    """Reads the queries of one route.

    Args:
        model: What a query is read as. It is frozen, since equal queries are the same object.
    """

    def __init__(self, model: type[Q]) -> None:
        self._adapter = TypeAdapter(model)
        self._repeated = {
            name for name, member in model.model_fields.items() if get_origin(member.annotation) is tuple
        }
        self._remembered = lru_cache(_REMEMBERED)(self._parsed)

    def read(self, request: Request) -> Q:
        """Return the query of `request`.

        If a parameter occurs several times, all its values count where the model's member is a tuple, else
        the last one.

        Raises:
            ProblemError: 422, something in it is wrong.
        """
        query: bytes = request.scope["query_string"]
        return self._remembered(query) if len(query) <= _REMEMBERED_BYTES else self._parsed(query)

    def _parsed(self, query: bytes) -> Q:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        members: dict[str, object] = dict(pairs)
        for name in self._repeated & members.keys():
            members[name] = tuple(value for other, value in pairs if other == name)
        try:
            return self._adapter.validate_python(members)
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False, include_input=False))
            raise ProblemError(validation_problem(errors)) from None
