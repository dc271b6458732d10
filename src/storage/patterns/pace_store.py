"""Turns of a paced queue that all workers share: given out in Redis by one script a question, on its clock.

The two keys of a line share the tag `{name}` and so one slot. They never expire: a policy must last, and
there are as many lines as the program has names for.

**When Redis forgets**, emptied or restarted with data of a while ago, it is told so: every worker knows the
number of the last turn it heard of. Where that is higher than Redis' own, turns were lost, and the next one
is given an interval from then. Only where whoever asks first had never asked before can two calls come too
close.
"""

import logging
from contextlib import suppress
from typing import cast

from src.resilience.clock import Clock
from src.resilience.memory_pace_store import MemoryPaceStore
from src.resilience.pace_store import (
    Offer,
    PacedQueueOptions,
    PaceStatus,
    PaceStore,
    QueuePolicy,
    Turn,
    Verdict,
)
from src.services.errors import StorageUnavailableError
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import PROBE_INTERVAL_SECONDS, RedisLink
from src.storage.redis.scripts import SERVER_TIME, Script, load_script

_log = logging.getLogger(__name__)


class RedisPaceStore:
    """A `PaceStore` in Redis. Every method raises `StorageUnavailableError` when Redis is away.

    Args:
        name: Of the line.
        options: Of the line.
        link: To Redis.
        time_source: Lua that defines `now_us()`.
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
        """Take note of a worker's line, give its newcomers places and perhaps it a turn."""
        options = self._options
        admitted, has_turn, turn, policy, wait_us, size = await self._run(
            self._ask,
            *(options.interval_us, options.capacity, options.grace_us, options.poll_us),
            *(worker, offer.size, offer.newcomers, offer.age_us, offer.lead_us),
            *(self._known_turn, self._policy),
        )
        self._policy = cast("QueuePolicy", policy.decode())
        self._known_turn = max(self._known_turn, turn)
        return Verdict(
            admitted,
            Turn(self, turn) if has_turn else None,
            self._policy,
            wait_us,
            options.retry_after(size, wait_us),
        )

    async def give_back(self, turn: Turn) -> None:
        """Take back a turn that was not used, if it is the last one given."""
        await self._run(self._give_back, turn.number)

    async def postpone(self, seconds: float) -> None:
        """Give no turn for `seconds`."""
        await self._run(self._postpone, round(seconds * 1e6))

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Give turns by `policy` from now on."""
        await self._link.send("HSET", self._keys[0], "policy", policy)
        self._policy = policy

    async def status(self) -> PaceStatus:
        """Return how the line stands."""
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
    """A `PaceStore` that asks `fleet`, and while that is away gives turns by itself, at this worker's share.

    All workers together then keep to the pace on average, though not to the order, and two of them may start
    a call at the same time. A change brings no call too close to one before it: this worker's own first turn
    comes one of its own intervals after it noticed the outage; the fleet's first one an interval after every
    worker can have noticed that it is over. Where some workers still reach the fleet's store, those that do
    not come on top of its pace.

    Args:
        fleet: Shared by all workers.
        options: Those of `fleet`.
        clock: Says when this worker's own turns are due.
        workers: How many share the pace.
    """

    def __init__(self, fleet: PaceStore, options: PacedQueueOptions, clock: Clock, *, workers: int) -> None:
        self._fleet = fleet
        self._options = options
        self._clock = clock
        self._share = options.share(workers)
        self._local = MemoryPaceStore(self._share, clock)
        self._policy = options.policy
        self._postponed_until = clock.monotonic()
        self._fleet_is_away = False

    async def ask(self, worker: str, offer: Offer) -> Verdict:
        """Ask the fleet's store, and this worker's own while that is away."""
        try:
            if self._fleet_is_away:
                await self._come_back()
            verdict = await self._fleet.ask(worker, offer)
        except StorageUnavailableError:
            await self._go_alone()
            return await self._local.ask(worker, offer)
        self._policy = verdict.policy
        return verdict

    async def give_back(self, turn: Turn) -> None:
        """Take back a turn where it was given; while that is away, it stays used."""
        with suppress(StorageUnavailableError):
            await turn.origin.give_back(turn)

    async def postpone(self, seconds: float) -> None:
        """Give no turn for `seconds`. If the fleet's store is away it hears of it when it is back."""
        self._postponed_until = max(self._postponed_until, self._clock.monotonic() + seconds)
        await self._local.postpone(seconds)
        with suppress(StorageUnavailableError):
            await self._fleet.postpone(seconds)

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Give turns by `policy` from now on.

        Raises:
            StorageUnavailableError: The workers can't be told; the policy last known holds.
        """
        await self._fleet.set_policy(policy)
        self._policy = policy

    async def status(self) -> PaceStatus:
        """Return how the line stands in the store that gives the turns now."""
        try:
            return await self._fleet.status()
        except StorageUnavailableError:
            await self._go_alone()
            return await self._local.status()

    async def _go_alone(self) -> None:
        if not self._fleet_is_away:
            self._fleet_is_away = True
            _log.warning("pace_local")
            await self._local.set_policy(self._policy)
            await self._local.postpone(self._share.interval_seconds)

    async def _come_back(self) -> None:
        still_postponed = self._postponed_until - self._clock.monotonic()
        await self._fleet.postpone(
            max(self._options.interval_seconds + PROBE_INTERVAL_SECONDS, still_postponed)
        )
        self._fleet_is_away = False
        _log.warning("pace_shared_again")
