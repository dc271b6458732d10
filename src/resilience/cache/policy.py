"""A read-through cache: it returns the bytes stored under a key, or computes and stores them.

The guarantees:

- **Single flight.** All callers of a key in this process wait for one task. Refreshes share a task of their
  own. The task does not depend on its callers: it continues when a caller is cancelled, and finishes even if
  all callers are gone. Across processes, a lease in the store lets one worker compute while the others wait
  for its answer. The lease is short and is renewed during the computation. If its holder dies, another worker
  soon computes.
- **Bounded wait.** After `patience_seconds` of a computation, in any worker, callers get the last good answer
  while the computation continues. This does not apply after an invalidation.
- **Fresh refresh.** A refresh is answered only by a computation that began after the refresh was requested,
  in any worker. Its answer therefore includes every write that was acknowledged before. A plain call may get
  an entry, or join a computation, that began before a write.
- **No old answer after a write.** `invalidate` removes the entry and the lease together. An answer is stored
  only if its worker still holds the lease of the computation (Nishtala et al., "Scaling Memcache at
  Facebook", NSDI 2013, section 3.2.1). After an invalidation, the callers of the running computation still
  get its answer.
- **Early refresh.** Shortly before an entry expires, one hit starts a new computation in the background
  (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8), 2015).
- **Stale while revalidate.** For `revalidate_seconds` after its expiry, an entry is still served at once,
  while one worker computes the next entry in the background (RFC 5861, section 3). This does not apply after
  an invalidation.
- **Stale if error.** A last good copy is kept longer than the entry, and is served if a computation fails
  (RFC 5861, section 4).
- **Negative caching.** A failed computation is not repeated for `negative_seconds`: a caller that finds no
  entry gets the error or the last good copy at once. A refresh always computes. A success or an invalidation
  removes the error. An error is kept only if its worker still held the lease. Each worker keeps its own
  errors, and an invalidation in another worker does not remove them (RFC 2308 describes the idea for DNS).

A `CacheStore` holds the bytes and the leases.
"""

import asyncio
import functools
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Final, ParamSpec, get_args

from ..building_blocks.lease import LeaseRenewal
from ..building_blocks.outcomes import report_outcomes
from ..building_blocks.recent_failures import RecentFailures
from ..building_blocks.shared_tasks import SharedTask, SharedTasks
from ..clock import SYSTEM_CLOCK, SYSTEM_RANDOMIZER, Clock, Randomizer
from ..events import (
    CacheAnswered,
    CacheRefreshed,
    CacheRefreshFailed,
    Listener,
    ignore,
    notify,
)
from ..policy import AsyncPartial, is_misuse, require_async
from .answer import Answer, CacheRead, Outcome
from .options import CacheOptions
from .store import CacheStore, Entry, Lease

P = ParamSpec("P")

POLL_INTERVAL_SECONDS = 0.02
"""The time between two checks of a worker that waits for the answer of the lease holder."""

_TaskKey = tuple[str, bool]
"""The key of a shared task: the key of the answer, and whether the task is a refresh."""


Compute = Callable[[], Awaitable[bytes]]
"""Computes an answer. It runs in a separate task, at most once for each `get`."""


_DEFAULT_OPTIONS: Final = CacheOptions()


class ReadThroughCache:
    """The cache. The docstring of the module lists its guarantees.

    Args:
        store: The store of the bytes and the leases.
        options: The lifetimes and limits.
        clock: The clock for waits and their limits.
        randomizer: The random numbers that select the hits with an early refresh.
        stale_on: The errors of a computation that the last good copy may replace.
        negative_on: The errors of a computation that are remembered for `negative_seconds`.
        name: The name of this cache in events.
        listener: Receives `CacheAnswered` for every answer, `CacheRefreshed` for every successful computation
            and `CacheRefreshFailed` for every failed computation in the background. The calls of
            `CallFinished` are those of `get` and of the `result` of a read.
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
        # The events are made once, because every call sends one.
        self._events = {outcome: CacheAnswered(policy=name, outcome=outcome) for outcome in get_args(Outcome)}
        self._computations = SharedTasks[_TaskKey, Answer](clock)
        self._replacements = SharedTasks[str, None](clock)
        self._failures = RecentFailures(options.negative_seconds, clock)
        self._invalidations = 0
        report_outcomes(self, clock, listener, method="_finish")

    def begin(self, key: str, compute: Compute, *, refresh: bool = False) -> CacheRead:
        """Begin to read the answer under `key`. The read from the store starts with this call.

        The caller can send other commands in the same round trip. The arguments are those of `get`. The
        caller need not await the result.
        """
        entry = None if refresh else self._store.read(key, self._options)
        return CacheRead(partial(self._finish, key, compute, entry))

    async def get(self, key: str, compute: Compute, *, refresh: bool = False) -> Answer:
        """Return the answer from the store, or from a computation that all callers of `key` share.

        Args:
            key: The key of the answer.
            compute: Computes the answer if necessary, in a task that may outlive this call.
            refresh: Whether to accept only a computation that begins after this call, in any worker.
                Refreshes that are requested during a computation share the next one.

        Raises:
            BaseException: The error of the computation, now or up to `negative_seconds` ago, unless a last
                good copy replaces it.
        """
        return await self.begin(key, compute, refresh=refresh).result()

    async def _finish(self, key: str, compute: Compute, reading: Awaitable[Entry | None] | None) -> Answer:
        """Return the answer. `reading` is the read of the entry, or None for a refresh."""
        if reading is None:
            answer = await self._refresh(key, compute)
        elif (entry := await reading) is not None:
            if self._is_due_early(entry):
                self._refresh_in_background(key, compute, entry)
            answer = Answer(entry.body, "hit", entry.age_seconds)
        else:
            answer = await self._answer_without_entry(key, compute)
        notify(self._listener, self._events[answer.outcome])
        return answer

    def cached(
        self, key: Callable[P, str]
    ) -> Callable[[Callable[P, Awaitable[bytes]]], Callable[P, Coroutine[Any, Any, Answer]]]:
        """Return a decorator for async functions. A decorated function returns the answer of `get`.

        Args:
            key: Called with the arguments of a call. It returns the key of the answer.

        Raises:
            TypeError: The decorated function is a plain function. The decorator raises this.
        """

        def decorate(function: Callable[P, Awaitable[bytes]]) -> Callable[P, Coroutine[Any, Any, Answer]]:
            require_async(function)

            @functools.wraps(function)
            async def from_cache(*args: P.args, **kwargs: P.kwargs) -> Answer:
                return await self.get(key(*args, **kwargs), AsyncPartial(function, *args, **kwargs))

            return from_cache

        return decorate

    async def invalidate(self, keys: Sequence[str], *, last_good: bool = False) -> None:
        """Ensure that later calls of `begin` and `get` for `keys` return answers with the writes before now.

        Last good copies stay unless `last_good` is set: they answer when a computation fails. If another
        worker's computation began before this call, its answer still goes to the callers in that worker, but
        is not stored.
        """
        await self._store.invalidate(keys, last_good=last_good)
        self._invalidations += 1
        for key in keys:
            self._failures.forget(key)
            for refresh in (False, True):
                self._computations.forget((key, refresh))

    async def aclose(self) -> None:
        """Cancel every running computation. The callers that wait for one are cancelled too."""
        await asyncio.gather(self._computations.aclose(), self._replacements.aclose())

    async def _answer_without_entry(self, key: str, compute: Compute) -> Answer:
        if self._options.revalidate_seconds > 0:
            expired = await self._store.read_expired(key, self._options, self._options.served_seconds)
            if expired is not None:
                self._refresh_in_background(key, compute, expired)
                return Answer(expired.body, "updating", expired.age_seconds)
        if (error := self._failures.get(key)) is not None:
            return await self._last_good_or_raise(key, error)
        computation = self._join((key, False), compute)
        return await self._answer_in_time(key, computation) or await computation.result()

    async def _refresh(self, key: str, compute: Compute) -> Answer:
        task_key = key, True
        if (earlier := self._computations.get(task_key)) is not None:
            # The earlier refresh may have read data from before this call. Wait for it, then share the next
            # one.
            await asyncio.wait((earlier.task,))
            if earlier.task.cancelled():  # `aclose` cancelled it, and no further computation may begin
                raise asyncio.CancelledError
        return await self._join(task_key, compute).result()

    def _join(self, task_key: _TaskKey, compute: Compute) -> SharedTask[Answer]:
        """Return the running task of `task_key`, or begin one."""
        require_async(compute)
        return self._computations.get(task_key) or self._computations.begin(
            task_key, self._find_or_compute(task_key, compute)
        )

    async def _answer_in_time(self, key: str, computation: SharedTask[Answer]) -> Answer | None:
        """Wait for `computation` up to `patience_seconds`. Then return the last good answer.

        Returns:
            None if there is no answer yet: `computation` continues and no last good answer may be served, or
            `computation` failed.
        """
        options = self._options
        if not options.stale_seconds:
            return None
        seconds = computation.began_at + options.patience_seconds - self._clock.monotonic()
        if seconds > 0:
            with suppress(TimeoutError):  # the computation itself may raise it too
                async with self._clock.timeout(seconds):
                    return await computation.result()
        if computation.task.done():
            return None
        expired = await self._store.read_expired(key, options, options.stale_seconds)
        return None if expired is None else Answer(expired.body, "updating", expired.age_seconds)

    async def _find_or_compute(self, task_key: _TaskKey, compute: Compute) -> Answer:
        """Take the lease and compute the answer, or wait for the answer of the lease holder."""
        key, refresh = task_key
        token = uuid.uuid4().hex
        began = self._clock.monotonic()
        longest_wait = self._options.computation_seconds + self._options.lease_seconds
        outcome: Outcome = "hit"
        while True:
            waited = self._clock.monotonic() - began
            # A refresh accepts a computation of another worker only if it began after this task began to
            # wait.
            begun_within = waited if refresh else math.inf
            reply = await self._store.take_lease(key, token, begun_within, self._options)
            if isinstance(reply, Entry):
                return Answer(reply.body, outcome, reply.age_seconds)
            if reply is Lease.TAKEN or waited >= longest_wait:
                break
            outcome = "miss"
            await self._clock.sleep(POLL_INTERVAL_SECONDS)
        try:
            return Answer(await self._compute(key, token, compute, early=False), "miss")
        except Exception as error:  # noqa: BLE001 -- it is raised again unless a last good copy replaces it
            return await self._last_good_or_raise(key, error)

    async def _last_good_or_raise(self, key: str, error: Exception) -> Answer:
        """Return the last good copy after a computation failed with `error`.

        Without a copy, raise `error`.
        """
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
        except GeneratorExit:  # the event loop has ended, and the lease expires by itself
            raise
        except BaseException as error:
            invalidations = self._invalidations
            is_held = await self._store.release(key, token)
            # An invalidation may have happened while this task waited for the reply of the store.
            is_current = is_held and invalidations == self._invalidations
            if is_current and isinstance(error, self._negative_on) and not is_misuse(error):
                self._failures.add(key, error)
            raise
        # The callers get the answer after it is stored, so that their next call finds it.
        await self._store.fill(key, token, body, self._options)
        self._failures.forget(key)
        notify(self._listener, CacheRefreshed(policy=self.name, early=early))
        return body

    def _is_due_early(self, entry: Entry) -> bool:
        """Decide at random whether to refresh: if -cost·beta·ln(r), r in (0, 1], exceeds the time left."""
        eagerness = entry.cost_seconds * self._options.early_refresh_beta
        return entry.remaining_seconds <= -eagerness * math.log(1.0 - self._randomizer.random())

    def _refresh_in_background(self, key: str, compute: Compute, entry: Entry) -> None:
        """Begin a task that replaces `entry`, unless there is one or the computation failed recently."""
        require_async(compute)
        if self._replacements.get(key) is None and self._failures.get(key) is None:
            # The task must not inherit the context variables of this request.
            self._replacements.begin(key, self._replace(key, compute, entry), Context())

    async def _replace(self, key: str, compute: Compute, entry: Entry) -> None:
        token = uuid.uuid4().hex
        begun_ago = entry.age_seconds + entry.cost_seconds
        early = entry.age_seconds < self._options.ttl_seconds
        try:
            if await self._store.take_lease(key, token, begun_ago, self._options) is Lease.TAKEN:
                await self._compute(key, token, compute, early=early)
        except Exception as error:  # noqa: BLE001 -- no caller waits, and the old answer is still served
            notify(self._listener, CacheRefreshFailed(policy=self.name, error=error))
