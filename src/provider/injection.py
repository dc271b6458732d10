"""Fault injection around the whole application, as one pure ASGI middleware that also keeps count."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.provider.faults import FaultSchedule
from src.provider.problems import problem

UNTOUCHED = frozenset({"faults", "health", "stats", "docs", "redoc", "openapi.json"})
"""First path segments of what never fails and is never counted: one must be able to end the trouble."""

_CUT_BODY = b'{"detail": "the rest of this'
_CUT_LENGTH = 2 * len(_CUT_BODY)


class ConnectionCutError(ConnectionResetError):
    """The answer ends here, mid-body. A server closes the connection; in process it reaches the caller."""


@dataclass(slots=True)
class Stats:
    """What became of the calls since the start.

    Attributes:
        calls: All that faults could touch.
        failed: Those a fault hit, and those answered with a 5xx.
        refused: Those answered with a 429.
        by_endpoint: Calls by first path segment; what has no endpoint is "other".
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
        """Count an answer that no fault has touched."""
        self.failed += status >= 500
        self.refused += status == 429


class FaultInjection:
    """Lets a call through, late or not, or makes it fail.

    Args:
        app: What stands behind.
        schedule: Decides which calls fail, and says how.
        stats: Is kept up to date.
        sleep: Waits a number of seconds.
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
            ConnectionCutError: The answer was cut off on purpose.
        """
        if scope["type"] != "http" or (endpoint := _first_segment(scope["path"])) in UNTOUCHED:
            await self._app(scope, receive, send)
            return
        self._stats.count(endpoint)
        # Decided on arrival: what is changed while this call waits is for the calls after it.
        faults, fails = self._schedule.faults, self._schedule.next_call_fails()
        if faults.latency_ms:
            await self._sleep(faults.latency_ms / 1000)
        if not fails:
            await self._pass_on(scope, receive, send)
            return
        self._stats.failed += 1
        match faults.kind:
            case "status":
                await problem(faults.status, "failed on purpose, see /faults")(scope, receive, send)
            case "hang":
                await _until_the_client_leaves(receive)
            case "cut":
                await _send_half_an_answer(send)
                raise ConnectionCutError("cut on purpose, see /faults")

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._stats.count_answer(message["status"])
            await send(message)

        await self._app(scope, receive, send_counted)


def _first_segment(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


async def _until_the_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_half_an_answer(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % _CUT_LENGTH)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _CUT_BODY, "more_body": True})
