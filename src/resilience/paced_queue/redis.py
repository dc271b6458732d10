"""The slots of a paced queue that all workers share. Scripts in Redis assign the slots, by Redis' clock.

The two keys of a queue have the hash tag `{name}` in common. They never expire, because a policy must last,
and a program has few queues.

**If Redis loses data**, because it was flushed or restarted with older data, the scripts detect the loss.
Each worker stores the highest slot number that it has received, and sends the number with each offer. If it
is higher than the number in Redis, slots were lost, and the next slot is due after one interval. Two calls
can start too close together only if the first offer after the loss comes from a new worker.
"""

from pathlib import Path
from typing import cast

from ..redis.client_runner import Client, script_runner
from ..redis.port import Argument, Reply, ScriptRunner
from ..redis.scripts import COMMAND, SERVER_TIME, Script, load_script
from .options import PacedQueueOptions, QueuePolicy
from .store import Offer, PaceStatus, Slot, SlotDecision

_FOLDER = Path(__file__).parent


class RedisPaceStore:
    """A `PaceStore` in Redis. Every method raises `StoreUnavailableError` if Redis is unavailable.

    Args:
        name: The name of the queue.
        options: The options of the queue.
        redis: A client of `redis.asyncio`, or another `ScriptRunner`.
        time_source: Lua code that defines `now_us()`.
    """

    def __init__(
        self,
        name: str,
        options: PacedQueueOptions,
        redis: ScriptRunner | Client,
        *,
        time_source: str = SERVER_TIME,
    ) -> None:
        self._options = options
        self._runner = script_runner(redis)
        self._ask, self._give_back, self._postpone, self._status = (
            load_script(_FOLDER / f"{task}.lua", time_source=time_source)
            for task in ("ask", "give_back", "postpone", "status")
        )
        self._keys = [f"pace:{{{name}}}", f"pace:{{{name}}}:offers"]
        self._known_slot = 0
        self._policy = options.policy

    async def ask(self, worker: str, offer: Offer) -> SlotDecision:
        """Record a worker's queue, admit its new callers, and assign a slot to it if it is next."""
        options = self._options
        admitted, has_slot, number, policy, wait_us, size, is_late = await self._run(
            self._ask,
            *(options.interval_us, options.capacity, options.grace_us, options.poll_us),
            *(worker, offer.size, offer.newcomers, offer.age_us, offer.lead_us),
            *(self._known_slot, self._policy, options.max_wait_us),
        )
        self._policy = cast("QueuePolicy", policy.decode())
        self._known_slot = max(self._known_slot, number)
        return SlotDecision(
            admitted,
            Slot(self, number) if has_slot else None,
            self._policy,
            wait_us,
            options.retry_after(size, wait_us),
            options.max_wait_seconds if is_late else None,
        )

    async def give_back(self, slot: Slot) -> None:
        """Take back a slot that was not used, if no later slot was assigned."""
        await self._run(self._give_back, slot.number)

    async def postpone(self, seconds: float) -> None:
        """Assign no slot for `seconds`."""
        await self._run(self._postpone, round(seconds * 1e6))

    async def set_policy(self, policy: QueuePolicy) -> None:
        """Assign slots by `policy` from now on."""
        await self._runner.run(COMMAND, self._keys[:1], ["HSET", "policy", policy])
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
            next_slot_seconds=wait_us / 1e6,
        )

    async def _run(self, script: Script, *arguments: Argument) -> Reply:
        return await self._runner.run(script, self._keys, arguments)
