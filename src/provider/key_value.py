"""`/kv`: the key-value store over HTTP."""

from typing import Annotated

import orjson
from fastapi import APIRouter, HTTPException, Path
from starlette.responses import Response

from src.provider.bodies import MAX_BODY_BYTES, BoundedBody
from src.provider.problems import problem_responses
from src.provider.store import KeyValueStore, StoreFullError

MAX_KEY_LENGTH = 256

Key = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        description="The key, which may contain slashes.",
        examples=["metric-types/cpu_usage"],
    ),
]

_EXAMPLE = {"type": "cpu_usage", "unit": "percent", "description": "…", "owner": "platform"}
_BAD_KEY = {422: "key: String should have at most 256 characters"}
_NO_SUCH_KEY = {404: "there is no key metric-types/unheard_of"}


def key_value_router(store: KeyValueStore) -> APIRouter:
    """Return the endpoints of `store`."""
    router = APIRouter(tags=["key-value store"])

    @router.get(
        "/kv",
        summary="List the keys",
        responses={200: {"content": {"application/json": {"example": ["metric-types/cpu_usage"]}}}},
    )
    async def list_keys() -> list[str]:
        """Return all keys in ascending order."""
        return store.keys()

    @router.get(
        "/kv/{key:path}",
        summary="Read a value",
        response_class=Response,
        responses={
            200: {"content": {"application/json": {"example": _EXAMPLE}}},
            **problem_responses(_NO_SUCH_KEY | _BAD_KEY),
        },
    )
    async def read(key: Key) -> Response:
        """Return the value with the bytes that were stored."""
        value = store.get(key)
        if value is None:
            raise HTTPException(404, f"there is no key {key}")
        return Response(value, media_type="application/json")

    @router.put(
        "/kv/{key:path}",
        summary="Write a value",
        status_code=201,
        response_class=Response,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"example": _EXAMPLE}}}
        },
        responses={
            200: {"description": "The value was replaced"},
            201: {"description": "The key is new"},
            **problem_responses(
                {
                    400: "the body is not JSON: unexpected character: line 1 column 1 (char 0)",
                    413: f"the body is larger than {MAX_BODY_BYTES} bytes",
                    507: "the store already has 10000 keys; delete one first",
                }
                | _BAD_KEY
            ),
        },
    )
    async def write(key: Key, body: BoundedBody) -> Response:
        """Store a JSON value of at most 64 KiB. `NaN` and `Infinity` are not JSON (RFC 8259)."""
        try:
            orjson.loads(body)
            is_new = store.put(key, body)
        except orjson.JSONDecodeError as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
        except StoreFullError as error:
            raise HTTPException(507, str(error)) from error
        return Response(status_code=201 if is_new else 200)

    @router.delete(
        "/kv/{key:path}",
        summary="Delete a key",
        status_code=204,
        response_class=Response,
        responses=problem_responses(_NO_SUCH_KEY | _BAD_KEY),
    )
    async def delete(key: Key) -> Response:
        """Delete the key and its value."""
        if not store.delete(key):
            raise HTTPException(404, f"there is no key {key}")
        return Response(status_code=204)

    return router
