"""Permits: run a block of code, and not a call, under a policy.

::

    async with breaker as permit:
        response = await client.get(url)
        if response.status_code >= 500:
            permit.fail(ConnectionError(response.status_code))

The policy's own `run` makes every decision. Its coroutine is run up to the moment at which it would begin its
call, stays suspended while the block runs, and then continues with the block's outcome as that of the call.
"""

import asyncio
from collections.abc import Coroutine, Generator
from functools import cached_property, partial
from types import TracebackType, coroutine
from typing import Any, Self

from ..policy import BasePolicy, Policy


class Permit:
    """The permission of a policy to run one block, as an asynchronous context manager for one use.

    Entering it waits and raises as `run` does. At the end of the block, also by an error or a cancellation,
    the policy releases everything that it holds for the block.

    Args:
        policy: The policy, which must run a call at most once.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._block = _Block()
        self._running: Coroutine[Any, Any, None] | None = None
        self._failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Count the block as failed by `error` although it will end without an error.

        The policy handles `error` as if the block had raised it, but does not raise it. Use it if a result
        shows the failure. If the block does raise an error, that error counts instead.
        """
        self._failure = error

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("a permit is for one block: take a new one for each")
        self._running = self._policy.run(self._block)
        await _resume(self._running, self._block, None)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is None:
            raise RuntimeError("the permit's block has not begun")
        outcome = self._failure if error is None else error
        try:
            await _resume(self._running, self._block, outcome)
        except BaseException as raised:
            if raised is not outcome and not _stands_for(raised, outcome):
                raise
            if error is not None:
                error.__traceback__ = traceback  # without the frames of the policy


class BlockPolicy(BasePolicy):
    """A policy that runs a call at most once, and so can also run a block of code.

    `async with policy as permit:` is short for `async with policy.permit() as permit:`. Several tasks can use
    it at the same time. Where a block may end in another task than the one in which it began, as in an
    asynchronous generator that its user abandons, take a permit: the short form would then confuse the
    outcomes of two such blocks.
    """

    def permit(self) -> Permit:
        """Return the permit for one block."""
        return Permit(self)

    async def __aenter__(self) -> Permit:
        permit = self.permit()
        await permit.__aenter__()
        self._entered.add(permit)
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._entered.remove_last().__aexit__(kind, error, traceback)

    @cached_property
    def _entered(self) -> "_EnteredPermits":
        return _EnteredPermits()


class _Block:
    """The call that `run` is given: it stays suspended until the block has ended."""

    def __call__(self) -> Self:
        return self

    def __await__(self) -> "Generator[_Block, None, None]":
        yield self


class _EnteredPermits:
    """The permits whose blocks have begun and not ended, by task. The blocks of one task are nested."""

    def __init__(self) -> None:
        self._by_task: dict[asyncio.Task[object] | None, list[Permit]] = {}

    def add(self, permit: Permit) -> None:
        self._by_task.setdefault(_current_task(), []).append(permit)

    def remove_last(self) -> Permit:
        """Return the permit that this task has entered last.

        A coroutine may be closed by another task, or after the end of its event loop. Then any permit will
        do, so that as many are given back as were taken.
        """
        task = _current_task()
        if task not in self._by_task:
            task = next(reversed(self._by_task))
        permits = self._by_task[task]
        permit = permits.pop()
        if not permits:
            del self._by_task[task]
        return permit


def _current_task() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None


def _stands_for(raised: BaseException, outcome: BaseException | None) -> bool:
    """Return whether `raised` is what a generator raises in place of a `StopIteration` (PEP 479)."""
    return isinstance(outcome, StopIteration) and raised.__cause__ is outcome


@coroutine
def _resume(
    running: Coroutine[Any, Any, None], block: _Block, error: BaseException | None
) -> Generator[Any, Any, None]:
    """Continue `running`, after an error if there is one, until it begins its call, or to its end."""
    step = partial(running.send, None) if error is None else partial(running.throw, error)
    while True:
        try:
            signal = step()
        except StopIteration:
            return
        if signal is block:
            return
        try:
            reply = yield signal
        except BaseException as raised:  # noqa: BLE001 -- a cancellation, for `running` to handle
            step = partial(running.throw, raised)
        else:
            step = partial(running.send, reply)
