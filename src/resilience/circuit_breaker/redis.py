"""The circuit breakers that all workers share: Lua scripts in Redis decide, by the clock of the server.

The five keys of a breaker have the hash tag `{name}`, and so are in one slot. They never expire: a forced
state must last, and a program has a fixed number of breakers.
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
        redis: A client of `redis.asyncio`, or a `ScriptRunner`.
        time_source: Lua code that defines `now_us()`.
    """

    def __init__(self, redis: ScriptRunner | Client, *, time_source: str = SERVER_TIME) -> None:
        self._runner = script_runner(redis)
        self._admit, self._record, self._renew, self._force, self._status = (
            load_script(_FOLDER / f"{task}.lua", time_source=time_source)
            for task in ("admit", "record", "renew", "force", "status")
        )
        self._background: set[asyncio.Task[object]] = set()

    async def admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        """Decide whether to admit a call. If the caller is cancelled during this, its permit is released."""
        await self._wait_for_background_tasks()
        admission = asyncio.ensure_future(self._run_admit(name, options))
        try:
            return await asyncio.shield(admission)
        except BaseException:
            self._begin_if_possible(self._release_admission(name, admission))
            raise

    async def record(
        self, name: str, options: CircuitBreakerOptions, ticket: Ticket, *, failed: bool, slow: bool
    ) -> Transition | WouldOpen | None:
        """Count the outcome of a call.

        The outcome of a probe is counted even if its caller is cancelled during this.
        """
        outcome = (ticket.generation, ticket.probe or "", int(failed), int(slow))
        recording = self._run(self._record, name, options, outcome)
        reply = await (recording if ticket.probe is None else asyncio.shield(self._begin(recording)))
        if isinstance(reply, list):
            return WouldOpen(reply[0].decode())
        return _transition(reply)

    async def renew(self, name: str, options: CircuitBreakerOptions, ticket: Ticket) -> bool:
        """Renew the permit of a probe."""
        return bool(await self._run(self._renew, name, options, (ticket.probe or "",)))

    def release(self, name: str, ticket: Ticket) -> None:
        """Release the permit of a call without an outcome, in the background."""
        if ticket.probe is not None:
            self._begin_if_possible(self._release_permit(name, ticket.probe))

    async def force(
        self,
        name: str,
        options: CircuitBreakerOptions,
        manual_state: ManualState,
        open_seconds: float | None = None,
    ) -> Transition | None:
        """Change the state by hand."""
        arguments = (manual_state.name, manual_state.value, _us(open_seconds))
        return _transition(await self._run(self._force, name, options, arguments))

    async def status(self, name: str, options: CircuitBreakerOptions) -> BreakerStatus:
        """Return the status of the breaker."""
        await self._wait_for_background_tasks()
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
            transitions=tuple(map(_parse_transition, transitions)),
        )

    async def _run_admit(self, name: str, options: CircuitBreakerOptions) -> Ticket | Refusal:
        is_admitted, *reply = await self._run(self._admit, name, options)
        if not is_admitted:
            reason, wait_us = reply
            return Refusal(reason.decode(), None if wait_us is None else wait_us / 1e6)
        generation, probe, transition = reply
        return Ticket(self, int(generation), probe and probe.decode(), _transition(transition))

    def _begin(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        """Begin a task that continues when its caller is cancelled."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _begin_if_possible(self, work: Coroutine[object, object, None]) -> None:
        """Begin `work`, unless the event loop has ended. The permit is then free when its lease expires."""
        try:
            self._begin(work)
        except RuntimeError:
            work.close()

    async def _wait_for_background_tasks(self) -> None:
        """Wait for earlier releases and records of this worker: the next script must see them."""
        if self._background:
            await asyncio.wait(self._background)

    async def _release_permit(self, name: str, probe: str) -> None:
        with suppress(StoreUnavailableError):  # the lease expires
            # Probe ids are unique, so that this cannot release a permit of a later generation.
            await self._runner.run(COMMAND, [f"{_key(name)}:leases"], ["ZREM", probe])

    async def _release_admission(self, name: str, admission: asyncio.Task[Ticket | Refusal]) -> None:
        """Wait for the decision about a cancelled caller, and release its permit."""
        with suppress(Exception):  # the caller got the error, or has gone and its lease expires
            ticket = await admission
            if isinstance(ticket, Ticket) and ticket.probe is not None:
                await self._release_permit(name, ticket.probe)

    async def _run(
        self, script: Script, name: str, options: CircuitBreakerOptions, arguments: Sequence[Argument] = ()
    ) -> Reply:
        key = _key(name)
        keys = [key, f"{key}:leases", f"{key}:transitions", f"{key}:calls", f"{key}:buckets"]
        return await self._runner.run(script, keys, (*_option_arguments(options), *arguments))


def _key(name: str) -> str:
    return f"breaker:{{{name}}}"


def _option_arguments(options: CircuitBreakerOptions) -> tuple[Argument, ...]:
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
    return None if reply is None else _parse_transition(reply)


def _parse_transition(transition: bytes) -> Transition:
    at_us, before, after, reason = transition.decode().split(" ", 3)
    return Transition(int(at_us) / 1e6, BreakerState(before), BreakerState(after), reason)
