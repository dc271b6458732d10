"""A read-through cache: bytes under a key, computed once for all who want them.

What it promises:

- **Single flight.** A computation belongs to the cache and not to the caller who was first. All callers of a
  key in this process (those who refresh apart) wait for one task, and a caller that is cancelled harms no
  other; when every caller has gone the computation still finishes, since its answer is of use to the next
  one. Across processes a lease in the store lets one worker compute while the others wait for its answer. A
  holder that died loses its lease, and another takes over.
- **A refresh is fresh.** It is answered only by a computation that began after it was asked for, in whichever
  worker, and so sees every write acknowledged before. A plain caller asks for less: as the entry it finds may
  be from before a write, so may be the computation under way that it joins.
- **No old answer after a write.** `invalidate` drops entry and lease together, and an answer is only stored
  under the lease it was computed under. (Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section
  3.2.1.) The callers of a computation that was overtaken still get what was computed for them.
- **Early refresh.** Shortly before an entry runs out, one caller's hit starts a new computation in the
  background. (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB
  8(8), 2015.)
- **Stale if error.** A last good copy outlives the entry and answers when a computation fails (RFC 5861).

The bytes and the leases are in a `CacheStore`.
"""

import asyncio
import functools
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from src.resilience.cache_store import CacheOptions, CacheStore, Entry, Lease
from src.resilience.clock import Clock, Randomizer
from src.resilience.events import (
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    Listener,
    ignore,
    notify,
)

T = TypeVar("T")

Outcome = Literal["hit", "miss", "stale"]

POLL_INTERVAL_SECONDS = 0.02
"""How often a worker without the lease looks for the answer of the one that has it."""

_PATIENCE_IN_LEASES = 2
"""How long it goes on looking: the lease of a holder that died, and that of the successor."""

_Course = tuple[str, bool]
"""What tells the flights of a process apart: the key, and whether it is a refresh. No two share a course."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller gets.

    Attributes:
        body: The answer.
        outcome: "hit" when the store had it, "miss" when it was computed while the caller waited, here or in
            another worker, "stale" when the computation failed and this is the last good one.
        age_seconds: Time since it was stored.
        error: With "stale", why the computation failed.
    """

    body: bytes
    outcome: Outcome
    age_seconds: float = 0.0
    error: BaseException | None = None


Compute = Callable[[], Awaitable[bytes]]
"""Computes an answer from nothing; begun in a task of its own, at most once for each `get`."""


class ReadThroughCache:
    """The cache in front of a computation. See the module's docstring for what it promises.

    Args:
        store: Where the bytes are.
        options: How long things last.
        clock: Paces and measures the wait for another worker.
        randomizer: Decides who refreshes early.
        stale_on: Errors of a computation that a last good copy may stand in for.
        name: What events call this cache.
        listener: Told of every answer, every computation that succeeded and every early one that failed.
    """

    def __init__(
        self,
        store: CacheStore,
        options: CacheOptions,
        clock: Clock,
        randomizer: Randomizer,
        *,
        stale_on: tuple[type[Exception], ...] = (Exception,),
        name: str = "cache",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._store = store
        self._options = options
        self._clock = clock
        self._randomizer = randomizer
        self._stale_on = stale_on
        self._listener = listener
        self._flights: dict[_Course, asyncio.Task[Answer]] = {}
        self._early: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()

    async def lookup(self, key: str) -> Entry | None:
        """Return the fresh entry of `key`, if there is one, for `get`.

        It is a step of its own so that it can share a round trip with something else the caller asks.
        """
        return await self._store.read(key, self._options)

    async def get(
        self, key: str, compute: Compute, *, entry: Entry | None = None, refresh: bool = False
    ) -> Answer:
        """Answer from `entry`, or else from a computation shared with everyone who wants `key` now.

        Args:
            key: What the answer is stored under.
            compute: Run if need be, in a task that outlives this call.
            entry: What `lookup` returned.
            refresh: Be content only with a computation that begins after this call, here or in another
                worker. Those who ask for it while one is under way share the next one.

        Raises:
            BaseException: Whatever the computation raised, if no last good copy may stand in for it.
        """
        if entry is not None and not refresh:
            if key not in self._early and self._is_due_early(entry):
                self._early.add(key)
                self._spawn(self._refresh_early(key, compute, entry))
            answer = Answer(entry.body, "hit", entry.age_seconds)
        else:
            answer = await self._share_flight((key, refresh), compute)
        notify(self._listener, CacheAnswered(policy=self.name, outcome=answer.outcome))
        return answer

    async def invalidate(self, keys: Sequence[str]) -> None:
        """Make every later `lookup` and `get` of `keys` see what was written before this call.

        Last good copies stay: they are what is left when a computation fails. Another worker's computation
        that began before still answers the callers which that worker joins to it, but is not stored.
        """
        await self._store.invalidate(keys)
        for key in keys:
            for refresh in (False, True):
                self._flights.pop((key, refresh), None)

    async def aclose(self) -> None:
        """Cancel every computation under way, and whoever waits for one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _share_flight(self, course: _Course, compute: Compute) -> Answer:
        _, refresh = course
        if refresh and (earlier := self._flights.get(course)) is not None:
            await asyncio.wait((earlier,))  # what it read may be from before this call: the next one will do
            if earlier.cancelled():  # by `aclose`, after which nothing is begun
                raise asyncio.CancelledError
        flight = self._flights.get(course)
        if flight is None:
            flight = self._flights[course] = self._spawn(self._fly(course, compute))
            flight.add_done_callback(functools.partial(self._land, course))
        await asyncio.wait((flight,))  # unlike `await flight`, leaves it alone when this caller is cancelled
        return flight.result()

    async def _fly(self, course: _Course, compute: Compute) -> Answer:
        key, refresh = course
        token = uuid.uuid4().hex
        began = self._clock.monotonic()
        outcome: Outcome = "hit"
        while True:
            waited = self._clock.monotonic() - began
            # A refresh is content with what another worker began to compute after this one began to wait.
            begun_within = waited if refresh else math.inf
            found = await self._store.take_lease(key, token, begun_within, self._options)
            if isinstance(found, Entry):
                return Answer(found.body, outcome, found.age_seconds)
            if found is Lease.TAKEN or waited >= _PATIENCE_IN_LEASES * self._options.lease_seconds:
                break
            outcome = "miss"
            await self._clock.sleep(POLL_INTERVAL_SECONDS)
        try:
            return Answer(await self._compute(key, token, compute, early=False), "miss")
        except self._stale_on as error:
            last_good = await self._store.read_last_good(key, self._options)
            if last_good is None:
                raise
            return Answer(last_good.body, "stale", last_good.age_seconds, error)

    async def _compute(self, key: str, token: str, compute: Compute, *, early: bool) -> bytes:
        try:
            body = await compute()
        except BaseException:
            await self._store.release(key, token)
            raise
        # Awaited before anybody is answered: who asks again after the answer finds it stored.
        await self._store.fill(key, token, body, self._options)
        notify(self._listener, CacheRefreshed(policy=self.name, early=early))
        return body

    def _is_due_early(self, entry: Entry) -> bool:
        """Draw whether to refresh now: when -cost · beta · ln(rand), rand in (0, 1], reaches past the end."""
        eagerness = entry.cost_seconds * self._options.early_refresh_beta
        return entry.remaining_seconds <= -eagerness * math.log(1.0 - self._randomizer.random())

    async def _refresh_early(self, key: str, compute: Compute, entry: Entry) -> None:
        token = uuid.uuid4().hex
        begun_ago = entry.age_seconds + entry.cost_seconds
        try:
            if await self._store.take_lease(key, token, begun_ago, self._options) is Lease.TAKEN:
                await self._compute(key, token, compute, early=True)
        except Exception as error:  # noqa: BLE001 -- nobody waits for it: the entry is still fresh
            notify(self._listener, CacheRefreshFailed(policy=self.name, error=error))
        finally:
            self._early.discard(key)

    def _spawn(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _land(self, course: _Course, flight: "asyncio.Task[Answer]") -> None:
        if self._flights.get(course) is flight:  # and not its successor after an invalidation
            del self._flights[course]
        if not flight.cancelled():
            flight.exception()  # counts as seen, though every caller may have gone
