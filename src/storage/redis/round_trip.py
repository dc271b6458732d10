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
        replies: The number of their replies.
        future: The future that the caller waits for.
        ends_at: The number of waits after which the commands time out.
        has_short_deadline: Whether the commands fail at once after another command with a short deadline has
            timed out, until Redis answers.
    """

    commands: bytes
    replies: int
    future: Replies
    ends_at: float
    has_short_deadline: bool = False


class RoundTrip(NamedTuple):
    """A running round trip.

    Attributes:
        batch: The commands that were sent together.
        replies: The number of their replies.
        connection: The connection that the commands were sent on.
        sent_at: The time at which the commands were sent, in seconds of the event loop's clock.
        ends_at: The number of waits after which the round trip times out.
    """

    batch: list[PendingCommands]
    replies: int
    connection: RedisConnection
    sent_at: float
    ends_at: int

    def finish(self, replies: Iterable[Reply]) -> None:
        """Give each caller that still waits the replies to its commands."""
        remaining = iter(replies)
        for pending in self.batch:
            caller_replies = list(islice(remaining, pending.replies))
            if not pending.future.done():
                pending.future.set_result(caller_replies)


def fail(future: Replies, error: RedisError) -> None:
    """Raise `error` in the caller that waits for `future`, unless the future is done."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # asyncio then logs no "exception was never retrieved" if the caller was cancelled


def round_trip_error(error: BaseException) -> RedisError:
    """Return `error` as an error of redis-py that every caller can raise, even if it is a cancellation."""
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)):
        return error
    wrapped = RedisConnectionError(str(error) or type(error).__name__)
    wrapped.__cause__ = error
    return wrapped
