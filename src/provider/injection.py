"""The ASGI middleware that injects faults into calls and counts the calls."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.provider.faults import FaultSchedule
from src.provider.problems import problem

UNTOUCHED = frozenset({"faults", "health", "stats", "docs", "redoc", "openapi.json"})
"""First path segments of calls without faults and counts. Without them, faults could not be removed."""

_CUT_BODY = b'{"detail": "the rest of this'
_CUT_LENGTH = 2 * len(_CUT_BODY)


class ConnectionCutError(ConnectionResetError):
    """The answer ends too early. A server closes the connection; in process, the caller gets this error."""


@dataclass(slots=True)
class Stats:
    """The numbers of calls since the start.

    Attributes:
        calls: All calls with fault injection.
        failed: Calls that a fault affected, and calls that were answered with a 5xx.
        refused: Calls that were answered with a 429.
        by_endpoint: Calls by first path segment; a call without an endpoint counts as "other".
    """

    calls: int = 0
    failed: int = 0
    refused: int = 0
    by_endpoint: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("kv", "get", "delay", "status", "score", "other"), 0)
    )

    def count(self, endpoint: str) -> None:
        """Count a call to `endpoint` that has just arrived."""
        self.calls += 1
        self.by_endpoint[endpoint if endpoint in self.by_endpoint else "other"] += 1

    def count_answer(self, status: int) -> None:
        """Count the answer to a call without a fault."""
        self.failed += status >= 500
        self.refused += status == 429


class FaultInjection:
    """Delays calls, passes them to the app, or makes them fail.

    Args:
        app: The app that serves the calls.
        schedule: Decides which calls fail, and how.
        stats: The counts, which this middleware updates.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        schedule: FaultSchedule,
        stats: Stats,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._app = app
        self._schedule = schedule
        self._stats = stats
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call.

        Raises:
            ConnectionCutError: A fault cuts the answer off.
        """
        if scope["type"] != "http" or (endpoint := _first_segment(scope["path"])) in UNTOUCHED:
            await self._app(scope, receive, send)
            return
        self._stats.count(endpoint)
        # Decided on arrival: a change of the faults during the delay affects later calls only.
        faults, fails = self._schedule.faults, self._schedule.next_call_fails()
        if faults.latency_ms:
            await self._sleep(faults.latency_ms / 1000)
        if not fails:
            await self._pass_on(scope, receive, send)
            return
        self._stats.failed += 1
        match faults.kind:
            case "status":
                await problem(faults.status, "an injected fault, see /faults")(scope, receive, send)
            case "hang":
                await _wait_for_disconnect(receive)
            case "cut":
                await _send_half_an_answer(send)
                raise ConnectionCutError("an injected fault, see /faults")

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._stats.count_answer(message["status"])
            await send(message)

        await self._app(scope, receive, count_and_send)


def _first_segment(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_half_an_answer(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % _CUT_LENGTH)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _CUT_BODY, "more_body": True})
