"""Circuit breakers that all workers share: decided in Redis by one script a call, by the server's clock.

The five keys of a breaker share the tag `{name}` and so one slot. They never expire: an order to stay open
must last, and there are as many breakers as the program has names for.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TypeVar

from src.resilience.circuit_breaker.options import CircuitBreakerOptions
from src.resilience.circuit_breaker.store import (
    BreakerState,
    BreakerStatus,
    BreakerStore,
    ManualState,
    Refusal,
    Ticket,
    Transition,
)
from src.services.errors import StorageUnavailableError
from src.storage.redis.connection import Argument, Reply
from src.storage.redis.link import RedisLink
from src.storage.redis.scripts import SERVER_TIME, Script, load_script

T = TypeVar("T")

_log = logging.getLogger(__name__)


class RedisBreakerStore:
    """A `BreakerStore` in Redis. Every method raises `StorageUnavailableError` when Redis is away.

    Args:
        link: To Redis.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, link: RedisLink, *, time_source: str = SERVER_TIME) -> None:
        self._link = link
        self._admit, self._record, self._renew, self._obey, self._status = (
            load_script(f"breaker_{task}", "breaker", time_source=time_source)
            for task in ("admit", "record", "renew", "force", "status")
        )
        self._background: set[asyncio.Task[object]] = set()

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether a call may be made now. A caller cancelled meanwhile leaves no permit behind."""
        await self._end_of_background()
        asking = asyncio.ensure_future(self._ask(name, options))
        try:
            return await asyncio.shield(asking)
        except BaseException:
            self._begin(self._give_back_what_comes(name, asking))
            raise

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | None:
        """Count the outcome of a call. A probe's is counted though its caller is cancelled meanwhile."""
        outcome = (ticket.generation, ticket.probe or "", int(failed), int(slow))
        recording = self._run(self._record, name, options, outcome)
        reply = await (recording if ticket.probe is None else asyncio.shield(self._begin(recording)))
        return _transition(reply)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit."""
        return bool(await self._run(self._renew, name, options, (ticket.probe or "",)))

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome, in the background."""
        if ticket.probe is not None:
            with suppress(RuntimeError):  # there is no event loop any more: the lease runs out
                self._begin(self._give_back(name, ticket.probe))

    async def force(self, name: str, options: CircuitBreakerOptions, order: ManualState) -> Transition | None:
        """Go to the state ordered."""
        return _transition(await self._run(self._obey, name, options, (order.name, order.value)))

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return how the breaker stands."""
        await self._end_of_background()
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
            return Refusal(reason.decode(), None if wait_us is None else wait_us / 1e6)
        generation, probe, transition = reply
        return Ticket(self, int(generation), probe and probe.decode(), _transition(transition))

    def _begin(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        """Begin something that goes on when its caller has gone."""
        try:
            task = asyncio.create_task(work)
        except RuntimeError:
            work.close()
            raise
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _end_of_background(self) -> None:
        """Wait until what this worker gave back or recorded before is taken into account."""
        if self._background:
            await asyncio.wait(self._background)

    async def _give_back(self, name: str, probe: str) -> None:
        with suppress(StorageUnavailableError):  # the lease runs out
            # The probe's name is unique, so no later generation's permit can be hit.
            await self._link.send("ZREM", f"{_key(name)}:leases", probe)

    async def _give_back_what_comes(self, name: str, asking: asyncio.Task[Ticket | Refusal]) -> None:
        with suppress(StorageUnavailableError):  # as above
            admission = await asking
            if isinstance(admission, Ticket) and admission.probe is not None:
                await self._give_back(name, admission.probe)

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

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit where it was admitted."""
        return await ticket.origin.renew(name, options, ticket)

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome where it was admitted."""
        ticket.origin.release(name, ticket)

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
        options.failures_to_open or 0,
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
        _us(options.probe_renewal_seconds),
    )


def _us(seconds: float | None) -> int:
    return round((seconds or 0) * 1e6)


def _transition(reply: bytes | None) -> Transition | None:
    return None if reply is None else _parse(reply)


def _parse(transition: bytes) -> Transition:
    at_us, before, after, reason = transition.decode().split(" ", 3)
    return Transition(int(at_us) / 1e6, BreakerState(before), BreakerState(after), reason)
