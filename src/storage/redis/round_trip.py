"""A round trip to Redis: the commands of several callers, sent together, and their replies."""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from src.resilience.redis.port import Reply
from src.storage.redis.connection import RedisConnection

Replies: TypeAlias = "asyncio.Future[list[Reply]]"


class PendingCommands(NamedTuple):
    """Commands of one caller, not answered yet.

    Attributes:
        commands: The commands as Redis reads them.
        replies: How many replies they have.
        future: What the caller waits for.
        ends_at: Count of waits at which the caller's time is over.
        has_short_deadline: Whether they fail at once while others of their kind wait in vain.
    """

    commands: bytes
    replies: int
    future: Replies
    ends_at: float
    has_short_deadline: bool = False


class RoundTrip(NamedTuple):
    """A round trip under way.

    Attributes:
        batch: The commands that travel together.
        replies: How many replies they have.
        wire: The connection that they left by.
        left_at: When they left, in seconds of the event loop's clock.
        ends_at: Count of waits at which the round trip is given up.
    """

    batch: list[PendingCommands]
    replies: int
    wire: RedisConnection
    left_at: float
    ends_at: int

    def finish(self, replies: Iterable[Reply]) -> None:
        """Give each caller that still waits its own replies."""
        rest = iter(replies)
        for pending in self.batch:
            own = list(islice(rest, pending.replies))
            if not pending.future.done():
                pending.future.set_result(own)


def fail(future: Replies, error: RedisError) -> None:
    """Fail the caller that waits for `future`, if it still does."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # counts as seen, though its caller may not want it any more


def round_trip_error(error: BaseException) -> RedisError:
    """Return `error` as one that every caller of a round trip can be given: none that ends their tasks."""
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
        return error
    wrapped = RedisConnectionError(str(error) or type(error).__name__)
    wrapped.__cause__ = error
    return wrapped
