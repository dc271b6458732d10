"""Circuit breakers that all workers share: decided in Redis by one script a call, by the server's clock.

The five keys of a breaker share the tag `{name}` and so one slot. They never expire: an order to stay open
must last, and there are as many breakers as the program has names for.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from src.resilience.breaker_store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    CircuitBreakerOptions,
    ManualState,
    Refusal,
    Ticket,
    Transition,
)
from src.services.errors import StorageUnavailableError
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import SERVER_TIME, Script, load_script

_log = logging.getLogger(__name__)


class RedisBreakerStore:
    """A `BreakerStore` in Redis. Every method raises `StorageUnavailableError` when Redis is away.

    Args:
        link: To Redis.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._admit, self._record, self._obey, self._status = (
            load_script(f"breaker_{task}", "breaker", time_source=time_source)
            for task in ("admit", "record", "force", "status")
        )
        self._giving_back: set[asyncio.Task[None]] = set()

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now. A caller cancelled meanwhile leaves no permit behind."""
        asking = asyncio.ensure_future(self._ask(name, options))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            giving_back = asyncio.create_task(self._give_back(name, asking))
            self._giving_back.add(giving_back)
            giving_back.add_done_callback(self._giving_back.discard)
            raise

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count the outcome of a call."""
        outcome = (ticket.generation, ticket.probe or "", int(failed), int(slow))
        return _transition(await self._run(self._record, name, options, outcome))

    async def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome."""
        if ticket.probe is not None:  # its name is unique, so no later generation's permit can be hit
            await self._link.send("ZREM", f"{_key(name)}:leases", ticket.probe)

    async def force(self, name: str, options: CircuitBreakerOptions, order: ManualState) -> Transition | None:
        """Go to the state ordered."""
        return _transition(await self._run(self._obey, name, options, (order.name, order.value)))

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands."""
        reply = await self._run(self._status, name, options)
        state, in_a_row, calls, failures, opened_us, wait_us, transitions = reply
        return BreakerStatus(
            state=BreakerState(state.decode()),
            name=name,
            failure_count=in_a_row,
            success_count=calls - failures,
            failure_rate=failures / calls if calls else 0.0,
            opened_at=opened_us / 1e6 if opened_us else None,
            retry_after=wait_us / 1e6 if wait_us else None,
            transitions=tuple(map(_parse, transitions)),
        )

    async def _ask(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        admitted, *reply = await self._run(self._admit, name, options)
        if not admitted:
            reason, wait_us = reply
            return Refusal(reason.decode(), wait_us / 1e6)
        generation, probe, transition = reply
        return Ticket(self, int(generation), probe and probe.decode(), _transition(transition))

    async def _give_back(self, name: str, asking: asyncio.Task[Ticket | Refusal]) -> None:
        with suppress(StorageUnavailableError):  # the lease runs out
            admission = await asking
            if isinstance(admission, Ticket):
                await self.release(name, admission)

    async def _run(
        self, script: Script, name: str, options: CircuitBreakerOptions, own: Sequence[Argument] = ()
    ) -> Reply:
        key = _key(name)
        keys = [key, f"{key}:leases", f"{key}:transitions", f"{key}:calls", f"{key}:buckets"]
        return await self._link.run(script, keys, (*_arguments(options), *own))


class FailoverBreakerStore:
    """A `BreakerStore` that decides in `fleet`, and while that is away in `local`.

    A result goes to the store that admitted the call and to no other; where that is away, it is dropped.
    Each store goes on from where it was when it last decided.

    Args:
        fleet: Shared by all workers.
        local: This worker's own; never away.
    """

    def __init__(self, fleet: BreakerStore, local: BreakerStore) -> None:
        self._fleet = fleet
        self._local = local
        self._fleet_is_away = False

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now."""
        try:
            admission = await self._fleet.admit(name, options)
        except StorageUnavailableError:
            self._note(away=True)
            return await self._local.admit(name, options)
        self._note(away=False)
        return admission

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count the outcome of a call where it was admitted."""
        try:
            return await ticket.origin.record(name, options, ticket, failed=failed, slow=slow)
        except StorageUnavailableError:
            self._note(away=True)
            return None

    async def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome; where that fails, its lease runs out."""
        try:
            await ticket.origin.release(name, ticket)
        except StorageUnavailableError:
            self._note(away=True)

    async def force(self, name: str, options: CircuitBreakerOptions, order: ManualState) -> Transition | None:
        """Go to the state ordered, in the store that decides now."""
        try:
            return await self._fleet.force(name, options, order)
        except StorageUnavailableError:
            self._note(away=True)
            return await self._local.force(name, options, order)

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands in the store that decides now."""
        try:
            return await self._fleet.status(name, options)
        except StorageUnavailableError:
            self._note(away=True)
            return await self._local.status(name, options)

    def _note(self, *, away: bool) -> None:
        if away != self._fleet_is_away:
            self._fleet_is_away = away
            _log.warning("breaker_local" if away else "breaker_shared_again")


def _key(name: str) -> str:
    return f"breaker:{{{name}}}"


def _arguments(options: CircuitBreakerOptions) -> tuple[Argument, ...]:
    return (
        options.failure_threshold or 0,
        options.failure_rate_threshold or 0,
        options.slow_call_rate_threshold or 0,
        options.window_calls,
        _us(options.window_seconds),
        options.minimum_calls,
        _us(options.open_seconds),
        options.open_seconds_factor,
        _us(options.open_seconds_max),
        options.half_open_permits,
        options.successes_to_close,
        _us(options.probe_lease_seconds),
    )


def _us(seconds: float | None) -> int:
    return round((seconds or 0) * 1e6)


def _transition(reply: bytes | None) -> Transition | None:
    return None if reply is None else _parse(reply)


def _parse(transition: bytes) -> Transition:
    at_us, before, after, reason = transition.decode().split(" ", 3)
    return Transition(int(at_us) / 1e6, BreakerState(before), BreakerState(after), reason)
