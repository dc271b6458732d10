"""Take a unit of a client's quota and store its measurement, in one script.

Redis decides on the request and stores the measurement, in this order. Two commands one after the other would
be two round trips, which is a large part of the cost of a single measurement. One script run handles all
measurements of one tick of the event loop. The script stores them if it allows all requests; otherwise it
stores none, and the caller stores each allowed one separately. That is rare, since requests that are known to
be over the quota are rejected without Redis.
"""

from src.analytics.columns import columns_of
from src.analytics.points import Point
from src.resilience.rate_limiter.redis import Hit, RedisRateLimiter
from src.resilience.rate_limiter.store import Decision
from src.resilience.redis.port import Reply
from src.services.errors import OutcomeUnknownError, WriteUnconfirmedError
from src.services.metrics.ingest import StoreResult
from src.storage.metrics.store import UNFINISHED, RedisMetricStore, unfinished
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script


class AdmittedPoints:
    """Admits requests and stores their measurements. `admit_and_add` is an `AdmitAndAdd`.

    Args:
        limiter: The limiter with the quota.
        store: The store of the measurements.
        link: The link to the Redis of both.
    """

    def __init__(self, limiter: RedisRateLimiter, store: RedisMetricStore, link: RedisLink) -> None:
        self._limiter = limiter
        self._store = store
        self._link = link
        self._script = storage_script(
            "metrics/admit_points", after=limiter.algorithm_file, time_source=limiter.time_source
        )
        self._requests = link.tick_loader(self._run)

    async def admit_and_add(self, key: str, point: Point) -> tuple[Decision, StoreResult]:
        """Take a unit of the quota with `key`, and store `point` in the same script run if possible.

        Returns:
            The decision, and whether the point is stored.

        Raises:
            WriteUnconfirmedError: There is no decision, and it is not known whether the point is stored.
            StorageUnavailableError: There is no decision, and the point is not stored.
            StorageRefusedError: Redis rejected the script, so there is no decision, and the point is not
                stored. Redis may accept the command that stores the point alone.
        """
        is_stored: StoreResult = False

        async def decide(hit: Hit) -> Reply:
            nonlocal is_stored
            reply, is_stored = await self._requests.add((hit, point))
            return reply

        decision = await self._limiter.hit(key, decide=decide)
        return decision, is_stored

    async def _run(self, requests: list[tuple[Hit, Point]]) -> list[tuple[Reply, StoreResult]]:
        hits, points = zip(*requests, strict=True)
        keys, hit_arguments = self._limiter.arguments_of(hits)
        point_arguments, seconds = self._store.arguments_of(columns_of(points))
        arguments = [len(hit_arguments) + 2, *hit_arguments, *point_arguments]
        try:
            written, decisions = await self._link.run(
                self._script, ["types", *keys], arguments, timeout_seconds=seconds
            )
        except OutcomeUnknownError as error:
            raise WriteUnconfirmedError(str(error)) from error
        if written[0] == 1:
            self._store.tidy_up(*written[1:])
        unconfirmed = unfinished(written[1]) if written[0] == UNFINISHED else None
        store_result: StoreResult = unconfirmed or written[0] == 1
        return [(decision, store_result) for decision in decisions]
