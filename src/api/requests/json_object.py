"""Bodies that are one JSON object, as the admin routes read them."""

from functools import lru_cache
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, TypeAdapter

from src.api.dependencies import state
from src.api.requests.body import await_body, read_object
from src.api.requests.eager_coroutine import EagerCoroutine

T = TypeVar("T", bound=BaseModel)


async def read_json_object(request: Request, model: type[T]) -> T:
    """Return the body of `request` as `model`.

    Raises:
        ProblemError: The body is no such object, or it is too large or takes too long.
    """
    services = state(request)
    adapter: TypeAdapter[T] = _adapter(model)
    reading = EagerCoroutine(read_object(request, adapter, services["body_limits"].max_bytes))
    found, _ = await await_body(reading, services["clock"])
    return found


@lru_cache
def _adapter(model: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(model)
