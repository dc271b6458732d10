"""Circuit breakers that all workers share: decided in Redis by one script a call, by the server's clock.

The five keys of a breaker share the tag `{name}` and so one slot. They never expire: an order to stay open
must last, and there are as many breakers as the program has names for.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import StoreUnavailableError
from ..redis.client_runner import Client, script_runner
from ..redis.port import Argument, Reply, ScriptRunner
from ..redis.scripts import COMMAND, SERVER_TIME, Script, load_script
from .options import CircuitBreakerOptions
from .store import BreakerState, BreakerStatus, ManualState, Refusal, Ticket, Transition, WouldOpen

T = TypeVar("T")

_FOLDER = Path(__file__).parent


class RedisBreakerStore:
    """A `BreakerStore` in Redis. Every method raises `StoreUnavailableError` if Redis is unavailable.

    Args:
        redis: A client of `redis.asyncio`, or what else runs scripts.
        time_source: Lua that defines `now_us()`.
    """

    def __init__(self, redis: ScriptRunner | Client, *, time_source: str = SERVER_TIME) -> None:
        self._runner = script_runner(redis)
        self._admit, self._record, self._renew, self._force, self._status = (
            load_script(_FOLDER / f"{task}.lua", time_source=time_source)
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
            self._begin_if_possible(self._give_back_what_comes(name, asking))
            raise

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call. A probe's is counted though its caller is cancelled meanwhile."""
        outcome = (ticket.generation, ticket.probe or "", int(failed), int(slow))
        recording = self._run(self._record, name, options, outcome)
        reply = await (recording if ticket.probe is None else asyncio.shield(self._begin(recording)))
        if isinstance(reply, list):
            return WouldOpen(reply[0].decode())
        return _transition(reply)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Let a probe keep its permit."""
        return bool(await self._run(self._renew, name, options, (ticket.probe or "",)))

    def release(self, name: str, ticket: Ticket) -> None:
        """Give back the permit of a call that had no outcome, in the background."""
        if ticket.probe is not None:
            self._begin_if_possible(self._give_back(name, ticket.probe))

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        order: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Go to the state ordered."""
        own = (order.name, order.value, _us(open_seconds))
        return _transition(await self._run(self._force, name, options, own))

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
        """Begin a task that continues when its caller has gone."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _begin_if_possible(self, work: Coroutine[object, object, None]) -> None:
        """Begin `work`, unless the event loop has ended: then the permit is free when its lease runs out."""
        try:
            self._begin(work)
        except RuntimeError:
            work.close()

    async def _end_of_background(self) -> None:
        """Wait until what this worker gave back or recorded before is taken into account."""
        if self._background:
            await asyncio.wait(self._background)

    async def _give_back(self, name: str, probe: str) -> None:
        with suppress(StoreUnavailableError):  # the lease runs out
            # The probe's name is unique, so no later generation's permit can be hit.
            await self._runner.run(COMMAND, [f"{_key(name)}:leases"], ["ZREM", probe])

    async def _give_back_what_comes(self, name: str, asking: asyncio.Task[Ticket | Refusal]) -> None:
        with suppress(StoreUnavailableError):  # as above
            admission = await asking
            if isinstance(admission, Ticket) and admission.probe is not None:
                await self._give_back(name, admission.probe)

    async def _run(
        self, script: Script, name: str, options: CircuitBreakerOptions, own: Sequence[Argument] = ()
    ) -> Reply:
        key = _key(name)
        keys = [key, f"{key}:leases", f"{key}:transitions", f"{key}:calls", f"{key}:buckets"]
        return await self._runner.run(script, keys, (*_arguments(options), *own))


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
        options.failures_in_window or 0,
        " ".join(str(_us(length)) for length in options.open_lengths),
    )


def _us(seconds: float | None) -> int:
    return round((seconds or 0) * 1e6)


def _transition(reply: bytes | None) -> Transition | None:
    return None if reply is None else _parse(reply)


def _parse(transition: bytes) -> Transition:
    at_us, before, after, reason = transition.decode().split(" ", 3)
    return Transition(int(at_us) / 1e6, BreakerState(before), BreakerState(after), reason)
