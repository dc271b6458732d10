"""The renewal of a lease while its holder works.

A short lease expires soon after its holder has died. With renewals, it lasts for work of any length.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from ..clock import Clock

RENEWALS_PER_LEASE = 3
"""The number of renewals in the length of a lease. With 3, the lease survives a failed renewal."""

_log = logging.getLogger(__name__)


class LeaseRenewal:
    """Renews a lease in the background until `end` is called, the lease is lost or its longest time is over.

    Without a running event loop, as in `SyncPolicy.run_sync`, the lease is not renewed.

    Args:
        renew: Renews the lease for `lease_seconds`, and returns False if the lease is lost. An error is
            logged, and does not stop later renewals.
        clock: The clock for the waits between renewals.
        lease_seconds: The length of the lease without a renewal.
        longest_seconds: The longest time that the lease may last with renewals, counted from now. If it is at
            most `lease_seconds`, the lease is not renewed.
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
            # The renewal must not inherit the context variables of the request.
            self._task = asyncio.create_task(self._keep_renewing(), context=Context())

    def end(self) -> None:
        """Stop the renewals. This neither waits nor fails."""
        if self._task is not None:
            self._task.cancel()

    async def _keep_renewing(self) -> None:
        while True:
            await self._clock.sleep(self._lease_seconds / RENEWALS_PER_LEASE)
            if self._clock.monotonic() > self._last_renewal_at:
                return
            try:
                is_held = await self._renew()
            except Exception as error:  # noqa: BLE001 -- a failed renewal must not stop the holder's work
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
