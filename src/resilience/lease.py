"""The renewal of a lease while its holder works.

A short lease soon frees what a dead holder held; renewed, it outlasts work of any length.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from .clock import Clock

RENEWALS_PER_LEASE = 3
"""How often a lease is renewed in the time that it lasts: one renewal may come to nothing."""

_log = logging.getLogger(__name__)


class LeaseRenewal:
    """Renews a lease in the background until `end` is called, the lease is lost or its longest time is over.

    Args:
        renew: Renews the lease for `lease_seconds`, and returns False if it is lost. An error is logged, and
            the next renewal comes at its time.
        clock: To sleep by.
        lease_seconds: How long the lease lasts.
        longest_seconds: How long it may last with every renewal, counted from now. With no more than
            `lease_seconds` it is never renewed, nor where no event loop runs, as in `SyncPolicy.run_sync`.
    """

    def __init__(
        self,
        renew: Callable[[], Awaitable[bool]],
        clock: Clock,
        *,
        lease_seconds: float,
        longest_seconds: float,
    ) -> None:
        self._renew = renew
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._last_renewal_at = clock.monotonic() + longest_seconds - lease_seconds
        self._task: asyncio.Task[None] | None = None
        if longest_seconds > lease_seconds and _has_event_loop():
            # The lease belongs to no request: a clean context.
            self._task = asyncio.create_task(self._keep_renewing(), context=Context())

    def end(self) -> None:
        """Stop renewing the lease. This neither waits nor fails."""
        if self._task is not None:
            self._task.cancel()

    async def _keep_renewing(self) -> None:
        while True:
            await self._clock.sleep(self._lease_seconds / RENEWALS_PER_LEASE)
            if self._clock.monotonic() > self._last_renewal_at:
                return
            try:
                is_held = await self._renew()
            except Exception as error:  # noqa: BLE001 -- the holder works on, whatever the store answers
                _log.warning("lease_not_renewed", extra={"reason": repr(error)})
            else:
                if not is_held:
                    return


def _has_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
