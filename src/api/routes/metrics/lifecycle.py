"""Deletion of measurements, and how long they are kept."""

from fastapi import APIRouter, Request

from src.api.access.admin_access import RequireAdmin
from src.api.dependencies import state
from src.api.errors import ProblemError, validation_problem
from src.api.models.lifecycle import Deleted, DeletionQuery, RetentionQuery, RetentionRule
from src.api.openapi import (
    ADMIN_ERRORS,
    BODY_ERRORS,
    json_body,
    problems,
    query_parameters,
    request_headers,
)
from src.api.requests.body import MAX_OBJECT_BYTES, body_too_large
from src.api.requests.json_object import read_json_object
from src.api.requests.query import QueryReader
from src.services.metrics.lifecycle import TooManyRulesError

router = APIRouter()

_DELETION_QUERY = QueryReader(DeletionQuery)
_RETENTION_QUERY = QueryReader(RetentionQuery)


@router.delete(
    "/api/metrics",
    tags=["metrics"],
    summary="Delete measurements",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, "VALIDATION_ERROR", "REDIS_UNAVAILABLE"),
    openapi_extra=query_parameters(DeletionQuery),
)
async def delete_metrics(request: Request) -> Deleted:
    """Delete the measurements of a type; with `label`, of matching series; with `before`, older ones only.

    They disappear from lists, summaries, series, labels, limits and the cache, hour by hour, from all of them
    at the same time. If the answer is not 200, some hours may be deleted: repeat the request to delete the
    rest. A measurement that arrives during the deletion is either deleted or kept, the same in all reads.
    """
    query = _DELETION_QUERY.read(request)
    lifecycle = state(request)["lifecycle"]
    return Deleted(deleted=await lifecycle.delete(query.type, query.filters() or None, query.before))


@router.get(
    "/api/admin/retention",
    tags=["admin"],
    summary="Retention rules",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, "REDIS_UNAVAILABLE"),
)
async def retention_rules(request: Request) -> list[RetentionRule]:
    """Return the retention rules, by pattern."""
    rules = await state(request)["lifecycle"].rules()
    return [RetentionRule(pattern=pattern, seconds=rules[pattern]) for pattern in sorted(rules)]


@router.put(
    "/api/admin/retention",
    tags=["admin"],
    summary="Set a retention rule",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, *BODY_ERRORS, body_too_large(MAX_OBJECT_BYTES), "REDIS_UNAVAILABLE"),
    openapi_extra=request_headers("Content-Encoding") | json_body(RetentionRule),
)
async def set_retention_rule(request: Request) -> RetentionRule:
    """Keep the types that match a pattern for some time. The rule also applies to stored measurements.

    Measurements are deleted in whole hours, every minute: they are kept for at least `seconds`, and for at
    most an hour and a minute longer. Types that no pattern matches are kept for `METRIC_RETENTION_SECONDS`.
    """
    rule = await read_json_object(request, RetentionRule)
    try:
        await state(request)["lifecycle"].set_rule(rule.pattern, rule.seconds)
    except TooManyRulesError as error:
        raise ProblemError(validation_problem([{"field": "pattern", "message": str(error)}])) from None
    return rule


@router.delete(
    "/api/admin/retention",
    tags=["admin"],
    summary="Remove a retention rule",
    dependencies=[RequireAdmin],
    responses=problems(*ADMIN_ERRORS, "VALIDATION_ERROR", "REDIS_UNAVAILABLE"),
    openapi_extra=query_parameters(RetentionQuery),
)
async def remove_retention_rule(request: Request) -> Deleted:
    """Remove a retention rule. The rule that now applies to its types also applies to stored measurements."""
    pattern = _RETENTION_QUERY.read(request).pattern
    return Deleted(deleted=int(await state(request)["lifecycle"].remove_rule(pattern)))
