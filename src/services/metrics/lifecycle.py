"""The retention and the deletion of metrics.

Retention is a deletion that runs by itself: every `SWEEP_SECONDS` one worker deletes the hours that are older
than their type's retention. So expired points disappear from all reads at the same time, and a new rule also
applies to the points that are already stored. Points are deleted in whole hours: they are kept for at least
the retention, and for at most an hour and `SWEEP_SECONDS` longer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from src.analytics.window import HOUR_US
from src.resilience.clock import Clock
from src.services.errors import ServiceError, StorageUnavailableError
from src.services.metrics.labels import LabelFilters

_log = logging.getLogger(__name__)

MAX_RULES: Final = 100
"""The highest number of retention rules."""
SWEEP_SECONDS: Final = 60
"""The time between two deletions of expired points."""


class TooManyRulesError(ServiceError):
    """There are `MAX_RULES` retention rules already."""

    def __init__(self) -> None:
        super().__init__(f"there are {MAX_RULES} rules already, which is the limit")


class DeletableStore(Protocol):
    """A metric store that deletes points. Methods raise `StorageUnavailableError` if it is unavailable."""

    async def delete(
        self, metric_type: str, filters: LabelFilters | None = None, before_us: int | None = None
    ) -> int:
        """Delete points of `metric_type`, and return how many.

        Args:
            metric_type: The type.
            filters: Delete the points of matching series only.
            before_us: Delete the points before this timestamp only, in µs since 1970.
        """
        ...

    async def oldest(self) -> Sequence[tuple[str, int]]:
        """Return each type, and the start of the hour of its oldest point, in µs since 1970."""
        ...

    async def now_us(self) -> int:
        """Return the time of the store's clock, in µs since 1970."""
        ...


class RetentionStore(Protocol):
    """The retention rules of all workers. Methods raise `StorageUnavailableError` if it is unavailable."""

    async def rules(self) -> Mapping[str, int]:
        """Return the seconds of each pattern."""
        ...

    async def set_rule(self, pattern: str, seconds: int, max_rules: int) -> bool:
        """Set the rule of a pattern. Return False if there are `max_rules` other rules already."""
        ...

    async def remove_rule(self, pattern: str) -> bool:
        """Remove the rule of a pattern. Return False if there is none."""
        ...

    async def take_turn(self, seconds: float) -> bool:
        """Return whether this worker may sweep. Then no other worker may for `seconds`."""
        ...


class RetentionRules:
    """The retention of each type.

    Args:
        rules: Seconds by pattern: the name of a type, or its beginning and an asterisk. 0 means no limit.
        default_seconds: The retention of types that no pattern matches.
    """

    def __init__(self, rules: Mapping[str, int], default_seconds: int) -> None:
        self._exact = {name: seconds for name, seconds in rules.items() if not name.endswith("*")}
        self._prefixes = {name[:-1]: seconds for name, seconds in rules.items() if name.endswith("*")}
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        self._default_seconds = default_seconds

    @property
    def keep_all(self) -> bool:
        """Whether no rule deletes anything."""
        return not any((self._default_seconds, *self._exact.values(), *self._prefixes.values()))

    def seconds_for(self, metric_type: str) -> int:
        """Return the retention of a type: its own rule, or that of the longest prefix, or the default."""
        if metric_type in self._exact:
            return self._exact[metric_type]
        for length in self._lengths:
            if metric_type[:length] in self._prefixes and length <= len(metric_type):
                return self._prefixes[metric_type[:length]]
        return self._default_seconds

    def expired(self, oldest: Sequence[tuple[str, int]], now_us: int) -> list[tuple[str, int]]:
        """Return each type with hours to delete, and the start of the first hour that is kept.

        Args:
            oldest: Each type, and the start of the hour of its oldest point, in µs since 1970.
            now_us: The time, in µs since 1970.
        """
        found = []
        for name, oldest_us in oldest:
            seconds = self.seconds_for(name)
            first_us = (now_us - seconds * 1_000_000) // HOUR_US * HOUR_US
            if seconds and oldest_us < first_us:
                found.append((name, first_us))
        return found


class LifecycleService:
    """Deletes metrics, by request and by retention.

    Args:
        store: The points.
        retention: The retention rules.
        default_seconds: The retention of types that no rule matches; 0 means no limit.
        discard: Drops the cached summaries of a type.
    """

    def __init__(
        self,
        store: DeletableStore,
        retention: RetentionStore,
        default_seconds: int,
        discard: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._retention = retention
        self._default_seconds = default_seconds
        self._discard = discard
        self.rules = retention.rules

    async def delete(
        self, metric_type: str, filters: LabelFilters | None = None, before_us: int | None = None
    ) -> int:
        """Delete points of `metric_type` as `DeletableStore.delete` does, and drop its cached summaries.

        Raises:
            StorageUnavailableError: The store is unavailable. Some points may be deleted; repeat the
                deletion to delete the rest.
        """
        try:
            deleted = await self._store.delete(metric_type, filters, before_us)
        finally:
            await self._discard(metric_type)
        if deleted:
            _log.info("metrics_deleted", extra={"type": metric_type, "points": deleted})
        return deleted

    async def set_rule(self, pattern: str, seconds: int) -> None:
        """Keep the types that match `pattern` for `seconds`. The rule also applies to stored points.

        Raises:
            TooManyRulesError: There are `MAX_RULES` rules already.
            StorageUnavailableError: The store is unavailable. If the rule is stored, the next sweep applies
                it.
        """
        if not await self._retention.set_rule(pattern, seconds, MAX_RULES):
            raise TooManyRulesError
        await self.sweep()

    async def remove_rule(self, pattern: str) -> bool:
        """Remove the rule of `pattern`. Return False if there is none.

        Raises:
            StorageUnavailableError: The store is unavailable. If the rule is removed, the next sweep applies
                the remaining rules.
        """
        is_removed = await self._retention.remove_rule(pattern)
        await self.sweep()
        return is_removed

    async def sweep(self) -> None:
        """Delete the points that are older than their type's retention.

        A type that cannot be read is logged and skipped.

        Raises:
            StorageUnavailableError: The store is unavailable.
        """
        rules = await self._current_rules()
        if rules.keep_all:
            return
        oldest, now_us = await self._store.oldest(), await self._store.now_us()
        for name, first_us in await asyncio.to_thread(rules.expired, oldest, now_us):
            try:
                await self.delete(name, None, first_us)
            except StorageUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 -- a type with foreign values must not stop the others
                _log.warning("retention_failed", extra={"type": name, "reason": str(error)})

    async def keeps_all(self) -> bool:
        """Return whether no rule deletes anything.

        Raises:
            StorageUnavailableError: The store is unavailable.
        """
        return (await self._current_rules()).keep_all

    async def _current_rules(self) -> RetentionRules:
        return RetentionRules(await self._retention.rules(), self._default_seconds)


class RetentionSweeper:
    """Sweeps every `SWEEP_SECONDS`, in one of all workers.

    Args:
        lifecycle: Deletes the points.
        retention: Chooses the worker that sweeps.
        clock: The clock for the sweeps.
    """

    def __init__(self, lifecycle: LifecycleService, retention: RetentionStore, clock: Clock) -> None:
        self._lifecycle = lifecycle
        self._retention = retention
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that sweeps, on the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop. The next sweep of any worker finishes an interrupted sweep."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if not await self._lifecycle.keeps_all() and await self._retention.take_turn(SWEEP_SECONDS):
                    await self._lifecycle.sweep()
            except StorageUnavailableError:  # the link has logged it
                pass
            except Exception as error:  # noqa: BLE001 -- such as a foreign value in place of the rules
                _log.warning("retention_failed", extra={"reason": str(error)})
            await self._clock.sleep(SWEEP_SECONDS)
