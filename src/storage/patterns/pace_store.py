"""The slots of a paced queue that all workers share. Scripts in Redis assign the slots, by Redis' clock.

The two keys of a queue have the hash tag `{name}` in common. They never expire, because a policy must last,
and a program has few queues.

**If Redis loses data**, because it was flushed or restarted with older data, it learns that from the
workers. Each worker remembers the highest number of a slot and sends it with each question. If that number
is higher than the one in Redis, slots were lost, and the next slot comes an interval later. Two calls can
come too close only if the first question comes from a worker that has never asked before.
"""

import logging
from contextlib import suppress
from typing import cast

from src.resilience.clock import Clock
from src.resilience.paced_queue.memory import MemoryPaceStore
from src.resilience.paced_queue.options import PacedQueueOptions, QueuePolicy
from src.resilience.paced_queue.store import Offer, PaceStatus, PaceStore, Turn, Verdict
from src.services.errors import StorageUnavailableError
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import PROBE_INTERVAL_SECONDS, RedisLink
from src.storage.redis.scripts import SERVER_TIME, Script, load_script

_log = logging.getLogger(__name__)


class RedisPaceStore:
    """A `PaceStore` in Redis. Every method raises `StorageUnavailableError` if Redis is unavailable.

    Args:
        name: The name of the queue.
        options: The options of the queue.
        link: The connection to Redis.
        time_source: Lua code that defines `now_us()`.
    """

    def __init__(
        self, name: str, options: PacedQueueOptions, link: RedisLink, *, time_source: str = SERVER_TIME
    ) -> None:
        self._options = options
        self._link = link
        self._ask, self._give_back, self._postpone, self._status = (
            load_script(f"paced_{task}", "paced", time_source=time_source)
            for task in ("ask", "give_back", "postpone", "status")
        )
        self._keys = [f"pace:{{{name}}}", f"pace:{{{name}}}:lines"]
        self._known_turn = 0
        self._policy = options.policy

    async def ask(self, worker: str, offer: Offer) -> Verdict:
        """Record a worker's queue, admit its new callers, and assign a slot to it if it is next."""
        options = self._options
        admitted, has_turn, turn, policy, wait_us, size, is_late = await self._run(
            self._ask,
            *(options.interval_us, options.capacity, options.grace_us, options.poll_us),
            *(worker, offer.size, offer.newcomers, offer.age_us, offer.lead_us),
            *(self._known_turn, self._policy, options.max_wait_us),
        )
        self._policy = cast("QueuePolicy", policy.decode())
        self._known_turn = max(self._known_turn, turn)
        return Verdict(
            admitted,
            Turn(self, turn) if has_turn else None,
            self._policy,
            wait_us,
            options.retry_after(size, wait_us),
            options.max_wait_seconds if is_late else None,
        )

    async def give_back(self, turn: Turn) -> None:
        """Take back a slot that was not used, if no later slot was assigned."""
        await self._run(self._give_back, turn.number)

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`."""
        await self._run(self._postpone, round(seconds * 1e6))

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on."""
        await self._link.send("HSET", self._keys[0], "policy", policy)
        self._policy = policy

    async def status(self) -> PaceStatus:
        """Return the state of the queue."""
        options = self._options
        policy, size, oldest_age_us, wait_us = await self._run(
            self._status, options.interval_us, options.grace_us
        )
        return PaceStatus(
            policy=self._policy if policy is None else cast("QueuePolicy", policy.decode()),
            size=size,
            capacity=options.capacity,
            oldest_age_seconds=None if oldest_age_us is None else oldest_age_us / 1e6,
            next_turn_seconds=wait_us / 1e6,
        )

    async def _run(self, script: Script, *arguments: Argument) -> Reply:
        return await self._link.run(script, self._keys, arguments)


class FailoverPaceStore:
    """A `PaceStore` that uses `fleet`, and this worker's own local store while `fleet` is unavailable.

    The local store gives this worker its share of the pace. So all workers together keep to the pace on
    average, but not to the order, and two workers may start calls at the same time. If only some workers
    reach `fleet`, the calls of the others come on top of its pace.

    A change of the store brings no call too close to an earlier one. The first local slot comes one local
    interval after the outage was noticed. After the outage, the first slot of `fleet` comes an interval after
    every worker can have noticed its end. `fleet` counts as available again only when it has answered a
    worker's question. If it fails again before it has given this worker a slot, the worker keeps to the local
    store until that has given it one. So an outage that comes and goes delays slots but does not stop them.

    Args:
        fleet: The store of all workers.
        options: The options of `fleet`.
        clock: Measures the local intervals.
        workers: The number of workers that share the pace.
    """

    def __init__(self, fleet: PaceStore, options: PacedQueueOptions, clock: Clock, *, workers: int) -> None:
        self._fleet = fleet
        self._options = options
        self._clock = clock
        self._share = options.share(workers)
        self._local = MemoryPaceStore(self._share, clock)
        self._postponed_until = clock.monotonic()
        self._is_local = False
        self._has_fleet_given = True
        """Whether `fleet` has given this worker a slot since the last outage."""
        self._needs_local = False
        """Whether the local store must give this worker a slot before `fleet` is asked again."""

    async def ask(self, worker: str, offer: Offer) -> Verdict:
        """Ask `fleet`, or the local store while `fleet` is unavailable."""
        if not self._needs_local:
            try:
                return await self._ask_fleet(worker, offer)
            except StorageUnavailableError:
                await self._use_local()
        verdict = await self._local.ask(worker, offer)
        self._needs_local = self._needs_local and verdict.turn is None
        return verdict

    async def give_back(self, turn: Turn) -> None:
        """Take back a slot in the store that gave it. If that is unavailable, the slot stays used."""
        with suppress(StorageUnavailableError):
            await turn.origin.give_back(turn)

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`. If `fleet` fails, it is postponed before it is asked again."""
        self._postponed_until = max(self._postponed_until, self._clock.monotonic() + seconds)
        await self._local.postpone(seconds)
        try:
            await self._fleet.postpone(seconds)
        except StorageUnavailableError:
            await self._use_local()

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on.

        Raises:
            StorageUnavailableError: `fleet` is unavailable. The policy does not change.
        """
        await self._fleet.set_policy(policy)
        await self._local.set_policy(policy)

    async def status(self) -> PaceStatus:
        """Return the state of `fleet`; that of the local store if callers wait there or `fleet` fails."""
        local = await self._local.status()
        if local.size:
            return local
        try:
            return await self._fleet.status()
        except StorageUnavailableError:
            return local

    async def _ask_fleet(self, worker: str, offer: Offer) -> Verdict:
        if self._is_local:
            postponed_seconds = self._postponed_until - self._clock.monotonic()
            noticed_seconds = self._options.interval_seconds + PROBE_INTERVAL_SECONDS
            await self._fleet.postpone(max(noticed_seconds, postponed_seconds))
        verdict = await self._fleet.ask(worker, offer)
        await self._local.set_policy(verdict.policy)
        if self._is_local:
            self._is_local, self._has_fleet_given = False, False
            await self._local.ask(worker, Offer(0))  # its callers wait in `fleet` now
            _log.warning("pace_shared_again")
        self._has_fleet_given = self._has_fleet_given or verdict.turn is not None
        return verdict

    async def _use_local(self) -> None:
        if not self._is_local:
            self._is_local, self._needs_local = True, not self._has_fleet_given
            _log.warning("pace_local")
            await self._local.postpone(self._share.interval_seconds)
