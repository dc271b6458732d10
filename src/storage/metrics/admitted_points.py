"""Measurements that are stored in the very step that takes a unit of their client's quota.

Redis decides on both, and storing must wait for the verdict. Run one after the other they are two round
trips, which is a good part of what a measurement costs that comes alone. So one script does both: those that
come in one tick of the event loop are one run of it, and are stored by it if all of them are let through.
Otherwise it stores none, and each that was let through is then stored by itself. That is seldom, since
clients that are known to be over the quota are refused without Redis.
"""

from src.analytics.columns import columns_of
from src.analytics.points import Point
from src.resilience.rate_limiter.redis import Hit, RedisRateLimiter
from src.resilience.rate_limiter.store import Decision
from src.resilience.redis.port import Reply
from src.services.errors import StorageRefusedError, StorageUnavailableError
from src.services.metrics.ingest import PointRejection
from src.storage.metrics.store import UNFINISHED, RedisMetricStore, unfinished
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import storage_script
from src.storage.redis.tick_loader import TickLoader


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
        self._script = storage_script(
            "admit_points", after=limiter.algorithm_file, time_source=limiter.time_source
        )
        self._asked = link.tick_loader(self._run)

    def write(self, point: Point) -> "RedisAdmittedWrite":
        """Return the write of `point`. Nothing is asked yet."""
        return RedisAdmittedWrite(point, self._limiter, self._store, self._asked)

    async def _run(
        self, asked: list[tuple[Hit, Point]]
    ) -> list[tuple[Reply, StorageUnavailableError | bool]]:
        hits, points = zip(*asked, strict=True)
        keys, about_hits = self._limiter.arguments_of(hits)
        about_points, seconds = self._store.arguments_of(columns_of(points))
        written, verdicts = await self._link.run(
            self._script, ["types", *keys], [*about_hits, *about_points], timeout_seconds=seconds
        )
        if written[0] == 1:
            self._store.tidy_up(*written[1:])
        error = unfinished(written[1]) if written[0] == UNFINISHED else None
        return [(verdict, error or written[0] == 1) for verdict in verdicts]


class RedisAdmittedWrite:
    """An `AdmittedWrite`, as `RedisAdmittedPoints` makes it.

    Attributes:
        point: What is written.
    """

    __slots__ = ("_asked", "_is_in_doubt", "_is_stored", "_limiter", "_store", "point")

    def __init__(
        self,
        point: Point,
        limiter: RedisRateLimiter,
        store: RedisMetricStore,
        asked: TickLoader[tuple[Hit, Point], tuple[Reply, StorageUnavailableError | bool]],
    ) -> None:
        self.point = point
        self._limiter = limiter
        self._store = store
        self._asked = asked
        self._is_stored = False
        self._is_in_doubt = False

    async def hit(self, key: str) -> Decision:
        """Take a unit of `key`, and store the point along with it if that can be."""
        return await self._limiter.hit(key, decide=self._ask)

    async def finish(self) -> PointRejection | None:
        """Return once the point is stored, or why it is rejected.

        Raises:
            StorageUnavailableError: It is not known whether the point is stored.
        """
        if self._is_in_doubt:
            raise StorageUnavailableError("it is not known whether it is stored; it must not be stored twice")
        return None if self._is_stored else await self._store.add_one(self.point)

    async def _ask(self, hit: Hit) -> Reply:
        try:
            verdict, is_stored = await self._asked.add((hit, self.point))
        except Exception as error:
            # What Redis refuses it has not done; and perhaps it refuses the verdict alone.
            self._is_in_doubt = not isinstance(error, StorageRefusedError)
            raise
        self._is_in_doubt = isinstance(is_stored, StorageUnavailableError)
        self._is_stored = is_stored is True
        return verdict
