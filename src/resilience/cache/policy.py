"""A read-through cache: bytes under a key, computed once for all who want them.

What it promises:

- **Single flight.** A computation belongs to the cache and not to the caller who was first. All callers of a
  key in this process (those who refresh apart) wait for one task, and a caller that is cancelled harms no
  other; when every caller has gone the computation still finishes, since its answer is of use to the next
  one. Across processes a lease in the store lets one worker compute while the others wait for its answer. The
  lease is short and renewed while its holder computes, so another soon takes over from one that died.
- **No long wait where an answer is at hand.** A caller that has waited for `patience_seconds`, or comes after
  that, is answered with the last good answer while the computation goes on, in whichever worker. Never after
  an invalidation.
- **A refresh is fresh.** It is answered only by a computation that began after it was asked for, in whichever
  worker, and so sees every write acknowledged before. A plain caller asks for less: as the entry it finds may
  be from before a write, so may be the computation under way that it joins.
- **No old answer after a write.** `invalidate` drops entry and lease together, and an answer is only stored
  under the lease it was computed under. (Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section
  3.2.1.) The callers of a computation that was overtaken still get what was computed for them.
- **Early refresh.** Shortly before an entry runs out, one caller's hit starts a new computation in the
  background. (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB
  8(8), 2015.)
- **Stale while revalidate.** For a while after its end an entry still answers, at once, while one caller of
  all workers computes the next one in the background (RFC 5861, section 3). Never after an invalidation.
- **Stale if error.** A last good copy outlives the entry and answers when a computation fails (RFC 5861,
  section 4).
- **Negative caching.** A computation that failed is not begun again for a while: who finds no entry gets the
  error at once, or the last good copy. A refresh computes all the same, and a success or an invalidation ends
  it. Like an answer, an error is only kept under the lease it was computed under. It is kept in this process:
  each worker fails for itself, and does not see another's invalidation end it. (RFC 2308 for the idea.)

The bytes and the leases are in a `CacheStore`.
"""

import asyncio
import functools
import math
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, ParamSpec, get_args

from ..clock import SYSTEM_CLOCK, SYSTEM_RANDOMIZER, Clock, Randomizer
from ..events import (
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    Listener,
    ignore,
    notify,
)
from ..lease import LeaseRenewal
from ..policy import AsyncPartial, is_misuse, require_async
from ..shared_tasks import SharedTask, SharedTasks
from .options import CacheOptions
from .store import CacheStore, Entry, Lease

P = ParamSpec("P")

Outcome = Literal["hit", "miss", "updating", "stale"]

POLL_INTERVAL_SECONDS = 0.02
"""How often a worker without the lease looks for the answer of the one that has it."""

MAX_FAILURES = 1_000
"""Keys whose failed computation is remembered; beyond that the one that failed longest ago is forgotten."""

_Course = tuple[str, bool]
"""What tells the computations that callers wait for apart: the key, and whether it is a refresh."""


class Answer(NamedTuple):
    """What a caller gets.

    Attributes:
        body: The answer.
        outcome: "hit" when the store had it, "miss" when it was computed while the caller waited, here or in
            another worker, "updating" when the entry ran out and the next one is still being computed,
            "stale" when the computation failed and this is the last good one. (The terms are nginx', of
            `$upstream_cache_status`.)
        age_seconds: Time since it was stored.
        error: With "stale", why the computation failed.
    """

    body: bytes
    outcome: Outcome
    age_seconds: float = 0.0
    error: BaseException | None = None

    @property
    def is_old(self) -> bool:
        """Whether a newer answer was due, and this is the last good one."""
        return self.outcome in {"updating", "stale"}


Compute = Callable[[], Awaitable[bytes]]
"""Computes an answer from nothing; begun in a task of its own, at most once for each `get`."""


class CacheRead(NamedTuple):
    """A read that has begun.

    Attributes:
        result: Returns the answer, and raises what `ReadThroughCache.get` raises. To be awaited once at most.
    """

    result: Callable[[], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception
    traceback: TracebackType | None  # the error's own grows each time it is raised
    ends_at: float


_DEFAULT_OPTIONS: Final = CacheOptions()


class ReadThroughCache:
    """The cache in front of a computation. See the module's docstring for what it promises.

    Args:
        store: Where the bytes are.
        options: How long things last.
        clock: Paces and measures the wait for another worker.
        randomizer: Decides who refreshes early.
        stale_on: Errors of a computation that a last good copy may stand in for.
        negative_on: Errors of a computation that are remembered for `negative_seconds`.
        name: What events call this cache.
        listener: Told of every answer, every computation that succeeded and every one in the background that
            failed.
    """

    def __init__(
        self,
        store: CacheStore,
        options: CacheOptions = _DEFAULT_OPTIONS,
        clock: Clock = SYSTEM_CLOCK,
        randomizer: Randomizer = SYSTEM_RANDOMIZER,
        *,
        stale_on: tuple[type[Exception], ...] = (Exception,),
        negative_on: tuple[type[Exception], ...] = (Exception,),
        name: str = "cache",
        listener: Listener = ignore,
    ) -> None:
        self.name = name
        self._store = store
        self._options = options
        self._clock = clock
        self._randomizer = randomizer
        self._stale_on = stale_on
        self._negative_on = negative_on
        self._listener = listener
        # Made once: one comes with every call.
        self._told = {outcome: CacheAnswered(policy=name, outcome=outcome) for outcome in get_args(Outcome)}
        self._flights = SharedTasks[_Course, Answer](clock)
        self._replacements = SharedTasks[str, None](clock)
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._invalidations = 0

    def begin(self, key: str, compute: Compute, *, refresh: bool = False) -> CacheRead:
        """Begin to read the answer under `key`: the store is asked at once.

        So the caller may ask for something else meanwhile, in the same round trip. The arguments are those of
        `get`. A read that is begun need not be finished.
        """
        entry = None if refresh else self._store.read(key, self._options)
        return CacheRead(partial(self._finish, key, compute, entry))

    async def get(self, key: str, compute: Compute, *, refresh: bool = False) -> Answer:
        """Answer from the store, or else from a computation shared with all other callers of `key`.

        Args:
            key: What the answer is stored under.
            compute: Run if need be, in a task that outlives this call.
            refresh: Be content only with a computation that begins after this call, here or in another
                worker. Those who ask for it while one is under way share the next one.

        Raises:
            BaseException: Whatever the computation raised, now or up to `negative_seconds` ago, if no last
                good copy may stand in for it.
        """
        return await self.begin(key, compute, refresh=refresh).result()

    async def _finish(self, key: str, compute: Compute, reading: Awaitable[Entry | None] | None) -> Answer:
        """Answer from the entry that `reading` finds; None stands for a refresh."""
        if reading is None:
            answer = await self._refresh(key, compute)
        elif (entry := await reading) is not None:
            if self._is_due_early(entry):
                self._refresh_behind(key, compute, entry)
            answer = Answer(entry.body, "hit", entry.age_seconds)
        else:
            answer = await self._answer_anew(key, compute)
        notify(self._listener, self._told[answer.outcome])
        return answer

    def cached(
        self, key: Callable[P, str]
    ) -> Callable[[Callable[P, Awaitable[bytes]]], Callable[P, Coroutine[Any, Any, Answer]]]:
        """Return a decorator for async functions: each call answers from the cache, as `get` does.

        Args:
            key: Called with the arguments of a call; returns the key of its answer.

        Raises:
            TypeError: By the decorator: the function is a plain function.
        """

        def decorate(function: Callable[P, Awaitable[bytes]]) -> Callable[P, Coroutine[Any, Any, Answer]]:
            require_async(function)

            @functools.wraps(function)
            async def from_cache(*args: P.args, **kwargs: P.kwargs) -> Answer:
                return await self.get(key(*args, **kwargs), AsyncPartial(function, *args, **kwargs))

            return from_cache

        return decorate

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Make every later `begin` and `get` of `keys` see what was written before this call.

        Last good copies stay unless `last_good` is set: they answer when a computation fails. Another
        worker's computation that began before still answers the callers which that worker joins to it, but is
        not stored.
        """
        await self._store.invalidate(keys, last_good=last_good)
        self._invalidations += 1
        for key in keys:
            self._failures.pop(key, None)
            for refresh in (False, True):
                self._flights.forget((key, refresh))

    async def aclose(self) -> None:
        """Cancel every computation under way, and whoever waits for one."""
        await asyncio.gather(self._flights.aclose(), self._replacements.aclose())

    async def _answer_anew(self, key: str, compute: Compute) -> Answer:
        if self._options.revalidate_seconds > 0:
            expired = await self._store.read_expired(key, self._options, self._options.served_seconds)
            if expired is not None:
                self._refresh_behind(key, compute, expired)
                return Answer(expired.body, "updating", expired.age_seconds)
        if (failure := self._recent_failure(key)) is not None:
            return await self._stand_in(key, failure.error.with_traceback(failure.traceback))
        flight = self._join((key, False), compute)
        return await self._answer_in_time(key, flight) or await _result(flight)

    async def _refresh(self, key: str, compute: Compute) -> Answer:
        course = key, True
        if (earlier := self._flights.get(course)) is not None:
            # What that one read may be from before this call: the next one will do.
            await asyncio.wait((earlier.task,))
            if earlier.task.cancelled():  # by `aclose`, after which nothing is begun
                raise asyncio.CancelledError
        return await _result(self._join(course, compute))

    def _join(self, course: _Course, compute: Compute) -> SharedTask[Answer]:
        require_async(compute)
        return self._flights.get(course) or self._flights.begin(course, self._fly(course, compute))

    async def _answer_in_time(self, key: str, flight: SharedTask[Answer]) -> Answer | None:
        """Answer in the time that a caller waits: with the answer of `flight`, or else the last good one.

        Returns:
            None where there is neither: `flight` goes on and nothing may be served meanwhile, or it failed.
        """
        options = self._options
        if not options.stale_seconds:
            return None
        seconds = flight.began_at + options.patience_seconds - self._clock.monotonic()
        if seconds > 0:
            with suppress(TimeoutError):  # perhaps one of the computation's own
                async with self._clock.timeout(seconds):
                    return await _result(flight)
        if flight.task.done():
            return None
        expired = await self._store.read_expired(key, options, options.stale_seconds)
        return None if expired is None else Answer(expired.body, "updating", expired.age_seconds)

    async def _fly(self, course: _Course, compute: Compute) -> Answer:
        key, refresh = course
        token = uuid.uuid4().hex
        began = self._clock.monotonic()
        longest_wait = self._options.computation_seconds + self._options.lease_seconds
        outcome: Outcome = "hit"
        while True:
            waited = self._clock.monotonic() - began
            # A refresh is content with what another worker began to compute after this one began to wait.
            begun_within = waited if refresh else math.inf
            found = await self._store.take_lease(key, token, begun_within, self._options)
            if isinstance(found, Entry):
                return Answer(found.body, outcome, found.age_seconds)
            if found is Lease.TAKEN or waited >= longest_wait:
                break
            outcome = "miss"
            await self._clock.sleep(POLL_INTERVAL_SECONDS)
        try:
            return Answer(await self._compute(key, token, compute, early=False), "miss")
        except Exception as error:  # noqa: BLE001 -- raised again unless something stands in for it
            return await self._stand_in(key, error)

    async def _stand_in(self, key: str, error: Exception) -> Answer:
        """Answer with the last good copy where a computation failed with `error`, or raise that."""
        last_good = None
        if isinstance(error, self._stale_on) and not is_misuse(error):
            last_good = await self._store.read_last_good(key, self._options)
        if last_good is None:
            raise error
        return Answer(last_good.body, "stale", last_good.age_seconds, error)

    async def _compute(self, key: str, token: str, compute: Compute, *, early: bool) -> bytes:
        renewal = LeaseRenewal(
            partial(self._store.renew, key, token, self._options),
            self._clock,
            lease_seconds=self._options.lease_seconds,
            longest_seconds=self._options.computation_seconds,
        )
        try:
            try:
                body = await compute()
            finally:
                renewal.end()
        except GeneratorExit:  # the event loop is over: the lease runs out
            raise
        except BaseException as error:
            invalidations = self._invalidations
            is_held = await self._store.release(key, token)
            # An invalidation may also have come between the lease's end and the news of it.
            if is_held and invalidations == self._invalidations:
                self._remember(key, error)
            raise
        # Awaited before anybody is answered: who asks again after the answer finds it stored.
        await self._store.fill(key, token, body, self._options)
        self._failures.pop(key, None)
        notify(self._listener, CacheRefreshed(policy=self.name, early=early))
        return body

    def _is_due_early(self, entry: Entry) -> bool:
        """Draw whether to refresh now: when -cost · beta · ln(rand), rand in (0, 1], reaches past the end."""
        eagerness = entry.cost_seconds * self._options.early_refresh_beta
        return entry.remaining_seconds <= -eagerness * math.log(1.0 - self._randomizer.random())

    def _refresh_behind(self, key: str, compute: Compute, entry: Entry) -> None:
        """See to it that `entry` is replaced, while its callers have it already."""
        require_async(compute)
        if self._replacements.get(key) is None and self._recent_failure(key) is None:
            # Nobody's request: what the context of this one says does not hold for it.
            self._replacements.begin(key, self._replace(key, compute, entry), Context())

    async def _replace(self, key: str, compute: Compute, entry: Entry) -> None:
        token = uuid.uuid4().hex
        begun_ago = entry.age_seconds + entry.cost_seconds
        early = entry.age_seconds < self._options.ttl_seconds
        try:
            if await self._store.take_lease(key, token, begun_ago, self._options) is Lease.TAKEN:
                await self._compute(key, token, compute, early=early)
        except Exception as error:  # noqa: BLE001 -- nobody waits for it: the old answer serves on
            notify(self._listener, CacheRefreshFailed(policy=self.name, error=error))

    def _remember(self, key: str, error: BaseException) -> None:
        if not (self._options.negative_seconds and isinstance(error, self._negative_on)) or is_misuse(error):
            return
        ends_at = self._clock.monotonic() + self._options.negative_seconds
        self._failures[key] = _Failure(error, error.__traceback__, ends_at)
        self._failures.move_to_end(key)
        if len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)

    def _recent_failure(self, key: str) -> _Failure | None:
        """Return how the computation failed lately; what is too long ago is forgotten."""
        failure = self._failures.get(key)
        if failure is None or self._clock.monotonic() < failure.ends_at:
            return failure
        del self._failures[key]
        return None


async def _result(flight: SharedTask[Answer]) -> Answer:
    """Wait for a computation; unlike `await`, this leaves it alone when its caller is cancelled."""
    await asyncio.wait((flight.task,))
    return flight.task.result()
