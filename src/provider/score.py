"""`/score`: an endpoint that accepts one call per second, for trying out paced clients."""

import hashlib
import math
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from src.provider.problems import problem_responses

INTERVAL_SECONDS = 1.0
MAX_SCORE = 1000

_TOO_FAST = "all callers together may make one call per second"
_PUNCTUATION = str.maketrans("", "", ".-/ ")


def _eleven_digits(text: str) -> str:
    digits = text.translate(_PUNCTUATION)
    if len(digits) != 11 or not (digits.isascii() and digits.isdigit()):
        raise PydanticCustomError("cpf", "must have 11 digits, such as 123.456.789-09")
    return digits


Cpf = Annotated[
    str,
    AfterValidator(_eleven_digits),
    Query(
        description="A Brazilian taxpayer number: 11 digits, with or without punctuation. Check digits are "
        "not verified.",
        examples=["123.456.789-09"],
    ),
]


class Score(BaseModel):
    """The score of a CPF, 0 to 1000. The same CPF always has the same score."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cpf": "12345678909", "score": 549}]})

    cpf: str
    score: int


def score_router(now: Callable[[], float]) -> APIRouter:
    """Return the endpoint. `now` returns a monotonic reading in seconds."""
    router = APIRouter(tags=["score"])
    free_at = -math.inf

    @router.get(
        "/score",
        summary="Score a CPF, once per second",
        responses=problem_responses(
            {
                422: "cpf: must have 11 digits, such as 123.456.789-09",
                429: _TOO_FAST,
            }
        ),
    )
    async def score(cpf: Cpf) -> Score:
        """Return the score of a CPF.

        All callers together may make one call per second. Further calls are answered 429, and do not delay
        the next call.
        """
        nonlocal free_at
        present = now()
        wait = free_at - present
        if wait > 0:
            raise HTTPException(429, _TOO_FAST, {"Retry-After": str(math.ceil(wait))})
        free_at = present + INTERVAL_SECONDS
        digest = hashlib.sha256(cpf.encode()).digest()
        return Score(cpf=cpf, score=int.from_bytes(digest[:8]) % (MAX_SCORE + 1))

    return router
