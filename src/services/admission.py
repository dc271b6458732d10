"""Whether a client may go on: the rate limiter's verdict, and what holds while it has none.

The failure policy of the limiter is here and nowhere else: when its store is away, or slower than its
budget, the request is let through unexamined. The first such request is logged, every one is
reported as `Bypassed`. A service that stopped answering because it could not count its callers would be less
available than one that did not count.
"""

import logging
from collections.abc import Callable
from typing import Literal, TypeAlias

from src.resilience.events import Bypassed, Listener, Rejected, notify
from src.resilience.rate_limiter import Decision, Quota, RateLimiter
from src.services.errors import StorageUnavailableError

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["allowed", "refused", "bypassed"]


class Admission:
    """One quota for each client.

    Args:
        name: Of the quota, as it stands in the `RateLimit` header.
        quota: How many requests in which window.
        limiter: Decides.
        listener: Told of every refusal and every bypass.
        observe: Told the outcome of every request; an event for each that is allowed would cost too much.
    """

    def __init__(
        self,
        name: str,
        quota: Quota,
        limiter: RateLimiter,
        listener: Listener,
        observe: Callable[[Outcome], object] = lambda _outcome: None,
    ) -> None:
        self.name = name
        self.quota = quota
        self._limiter = limiter
        self._listener = listener
        self._observe = observe
        self._fails_open = False

    async def decide(self, client: str) -> Decision | None:
        """Count one request of `client` against the quota; a refused one does not count.

        Returns:
            The verdict, or None when there was none and the request is to be let through.
        """
        try:
            decision = await self._limiter.hit(f"rl:{self.name}:{client}")
        except StorageUnavailableError as error:
            self._note(fails_open=True)
            self._observe("bypassed")
            notify(self._listener, Bypassed(policy=self.name, error=error))
            return None
        self._note(fails_open=False)
        self._observe("allowed" if decision.allowed else "refused")
        if not decision.allowed:
            notify(self._listener, Rejected(policy=self.name, retry_after=decision.retry_after))
        return decision

    def _note(self, *, fails_open: bool) -> None:
        if fails_open == self._fails_open:
            return
        self._fails_open = fails_open
        _log.warning("limiter_fails_open" if fails_open else "limiter_is_back", extra={"quota": self.name})
