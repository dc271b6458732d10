"""The resilience events of all workers, as text and as server-sent events."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from html import escape
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from src.api.dependencies import state
from src.api.errors import Problem, ProblemError
from src.api.header import header
from src.api.openapi import Responses, problems
from src.api.rate_limit import admit
from src.api.responses.negotiation import prefers_html
from src.api.routes.dashboard import PAGE_HEADERS
from src.services.events.feed import EventFeed, TooManyFollowersError
from src.services.events.log import LoggedEvent

router = APIRouter(tags=["lab"])

_TEXT_EXAMPLE = (
    '2026-01-31T12:00:00.120481Z [4711] external-service StateChanged before="CLOSED" after="OPEN" '
    'reason="5 consecutive failures"\n'
)
_SSE_EXAMPLE = (
    'data: {"at":"2026-01-31T12:00:00.120481Z","worker":4711,"policy":"external-service",'
    '"event":"StateChanged","before":"CLOSED","after":"OPEN","reason":"5 consecutive failures"}\n'
    "id: 1769860800231-0\n\n"
)
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_HTML_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Resilience events</title>'
    '<link rel="stylesheet" href="dashboard/logs.css"></head><body><main tabindex="0"><pre>'
)
"""The start of the HTML page of the log. The style sheet scrolls to the newest line without a script."""

_TOO_MANY_FOLLOWERS = Problem(
    429, "LAB_BUSY", "The largest allowed number of clients already follow the events"
)


class _EventStream(StreamingResponse):
    """Server-sent events, sent one page at a time. FastAPI's class sends single events by two more tasks."""

    media_type = "text/event-stream"


def _example(media_type: str, example: str) -> Responses:
    content: dict[str, Any] = {media_type: {"schema": {"type": "string"}, "example": example}}
    return {200: {"description": "The events", "content": content}}


async def _admit(request: Request) -> None:
    await admit(request, state(request)["read_admission"])


async def _admit_page(request: Request) -> None:
    await admit(request, state(request)["page_admission"])


@contextmanager
def _hold_slot(feed: EventFeed) -> Iterator[float]:
    try:
        with feed.slot() as until:
            yield until
    except TooManyFollowersError as error:
        problem = replace(_TOO_MANY_FOLLOWERS, retry_after=error.retry_after)
        raise ProblemError(problem) from error


# A slot is a dependency, because a request cannot be rejected after its stream has begun. FastAPI closes the
# dependency at the end of the answer.


async def _slot(request: Request) -> AsyncIterator[float]:
    with _hold_slot(state(request)["event_feed"]) as until:
        yield until


async def _slot_if_followed(
    request: Request,
    follow: Annotated[bool, Query(description="Whether to continue with new events")] = False,
) -> AsyncIterator[float | None]:
    with _hold_slot(state(request)["event_feed"]) if follow else nullcontext() as until:
        yield until


@router.get(
    "/logs",
    summary="Resilience events as text",
    dependencies=[Depends(_admit)],
    response_class=PlainTextResponse,
    responses=_example("text/plain", _TEXT_EXAMPLE)
    | problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", _TOO_MANY_FOLLOWERS, "REDIS_UNAVAILABLE"),
)
async def logs(request: Request, until: Annotated[float | None, Depends(_slot_if_followed)]) -> Response:
    """Return about the last thousand events of all workers as lines, the newest last.

    Each line has the time, the worker, the policy, the event and its details. The log does not contain cache
    hits and misses. With `follow=true` the answer continues with each new event until the client disconnects,
    for at most one hour. A browser then gets a page that scrolls to the newest line.
    """
    feed = state(request)["event_feed"]
    if until is None:
        return PlainTextResponse(_text(await feed.recent()))
    if prefers_html(header(request.scope, b"accept"), "text/plain"):
        headers = PAGE_HEADERS | _UNBUFFERED | {"Vary": "Accept"}
        return StreamingResponse(_html_pages(feed, until), media_type="text/html", headers=headers)
    headers = _UNBUFFERED | {"Vary": "Accept"}
    return StreamingResponse(_texts(feed, until), media_type="text/plain", headers=headers)


@router.get(
    "/api/events",
    summary="Resilience events as server-sent events",
    dependencies=[Depends(_admit_page)],
    response_class=_EventStream,
    responses=_example("text/event-stream", _SSE_EXAMPLE)
    | problems("VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", _TOO_MANY_FOLLOWERS),
)
async def events(
    request: Request,
    until: Annotated[float, Depends(_slot)],
    last_event_id: Annotated[
        str | None, Header(pattern=r"^\d{1,19}-\d{1,19}$", description="Continue after this event")
    ] = None,
) -> Response:
    """Send the last events of all workers, then each new event, as JSON objects.

    After a disconnection, a client sends `Last-Event-ID` to continue after that event; a browser's
    `EventSource` does so by itself. Without events, a comment every 15 s keeps the connection alive. The
    answer ends after one hour, and the client can then reconnect.
    """
    pages = state(request)["event_feed"].follow(last_event_id, until)
    return _EventStream(_messages(pages), headers=_UNBUFFERED)


async def _messages(pages: AsyncIterator[Sequence[LoggedEvent]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(map(_message, page)) or KEEPALIVE_COMMENT


def _message(event: LoggedEvent) -> bytes:
    return b"data: %b\nid: %b\n\n" % (event.body, event.id.encode("ascii"))


async def _texts(feed: EventFeed, until: float) -> AsyncIterator[str]:
    async for page in feed.follow(None, until):
        yield _text(page)


async def _html_pages(feed: EventFeed, until: float) -> AsyncIterator[str]:
    yield _HTML_HEAD
    async for text in _texts(feed, until):
        yield escape(text, quote=False)


def _text(events: Sequence[LoggedEvent]) -> str:
    return "".join(map(_line, events))


def _line(event: LoggedEvent) -> str:
    details = orjson.loads(event.body)
    at, worker, policy, kind = (details.pop(name) for name in ("at", "worker", "policy", "event"))
    texts = (f" {name}={orjson.dumps(value).decode()}" for name, value in details.items())
    return f"{at} [{worker}] {policy} {kind}{''.join(texts)}\n"
