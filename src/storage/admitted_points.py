"""Measurements that are stored in the very step that takes a unit of their client's quota.

Redis decides on both, and storing must wait for the verdict. Asked one after the other they are two round
trips, which is a good part of what a measurement costs that comes alone. So one script does both: those that
come in one tick of the event loop are one run of it, and are stored by it if all of them are let through.
Otherwise it stores none, and each that was let through is then stored as ever. That is seldom, since Redis is
not asked about those who are known to be over the quota.
"""

from src.analytics.points import Point
from src.resilience.rate_limiter import Decision
from src.services.errors import StorageRefusedError
from src.storage.client import RedisLink
from src.storage.gathering import Gathering
from src.storage.limiter_store import Hit, RedisRateLimiter
from src.storage.metric_store import RedisMetricStore
from src.storage.wire import Reply


class RedisAdmittedPoints:
    """Makes the writes of such measurements.

    Args:
        limiter: Keeps the quota.
        store: Keeps the measurements.
        link: The way to the Redis that both are in.
    """

    def __init__(self, limiter: RedisRateLimiter, store: RedisMetricStore, link: RedisLink) -> None:
        self._limiter = limiter
        self._store = store
        self._link = link
        self._script = limiter.script("admit_points", "points")
        self._asked = Gathering(self._run)

    def write(self, point: Point) -> "RedisAdmittedWrite":
        """Return the write of `point`. Nothing is asked yet."""
        return RedisAdmittedWrite(point, self._limiter, self._store, self._asked)

    async def _run(self, asked: list[tuple[Hit, Point]]) -> list[tuple[Reply, bool]]:
        hits, points = zip(*asked, strict=True)
        keys, arguments = self._limiter.told(hits)
        told, seconds = self._store.written(points)
        is_stored, verdicts = await self._link.run(
            self._script, ["types", *keys], [*arguments, *told], timeout_seconds=seconds
        )
        return [(verdict, bool(is_stored)) for verdict in verdicts]


class RedisAdmittedWrite:
    """One such measurement.

    Attributes:
        point: What is written.
    """

    __slots__ = ("_asked", "_error", "_is_stored", "_limiter", "_store", "point")

    def __init__(
        self,
        point: Point,
        limiter: RedisRateLimiter,
        store: RedisMetricStore,
        asked: Gathering[tuple[Hit, Point], tuple[Reply, bool]],
    ) -> None:
        self.point = point
        self._limiter = limiter
        self._store = store
        self._asked = asked
        self._is_stored = False
        self._error: Exception | None = None

    async def hit(self, key: str) -> Decision:
        """Take a unit of `key`, and store the point along with it if that can be.

        Raises:
            StorageUnavailableError: There is no verdict.
        """
        return await self._limiter.hit(key, ask=self._ask)

    async def finish(self) -> None:
        """Return once the point is stored. To be awaited after the hit, unless that was refused.

        Raises:
            StorageUnavailableError: Nothing is known to be stored.
        """
        if self._error is not None:  # it may be stored even so, and must not be stored twice
            raise self._error
        if not self._is_stored:
            await self._store.add([self.point])

    async def _ask(self, hit: Hit) -> Reply:
        try:
            verdict, self._is_stored = await self._asked.add((hit, self.point))
        except Exception as error:
            # What Redis refuses it has not done; and perhaps it refuses the verdict alone.
            self._error = None if isinstance(error, StorageRefusedError) else error
            raise
        return verdict
