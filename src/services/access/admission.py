"""Decide whether a client's request is admitted: by the rate limiter, or by a policy without its store.

This module is the only place of the failure policy. The limiter cannot decide while its store is unavailable,
rejects the command, or is slower than its time budget. One of three policies then applies (docs/adr/0005):

- `open`: every request is admitted without a decision. A service that rejected requests because it cannot
  count them would be less available than a service without a limiter.
- `local`: this worker decides alone, by its share of the quota.
- `closed`: the request fails with the error of the store.

The module logs the first request without a decision, and the first decision after an outage. Requests that
are admitted without a decision are reported as `Bypassed`. All decisions of one iteration of the event loop
are reported together, so a flood of rejections is one event with their number.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from src.observation.tick_batch import TickBatch
from src.resilience.events import Bypassed, Listener, Rejected, notify
from src.resilience.rate_limiter.options import Quota
from src.resilience.rate_limiter.store import Decision, RateLimiter
from src.services.errors import StorageUnavailableError

_log = logging.getLogger(__name__)

R = TypeVar("R")

AdmissionOutcome: TypeAlias = Literal["allowed", "refused", "bypassed"]

OutagePolicy: TypeAlias = Literal["open", "local", "closed"]
"""The policy while the limiter's store is unavailable."""

HitWithCommand: TypeAlias = Callable[[str], Awaitable[tuple[Decision, R]]]
"""Takes one unit of the quota with the given key together with another command, and returns both results."""

_OUTAGE_EVENTS: dict[OutagePolicy, str] = {
    "open": "limiter_fails_open",
    "local": "limiter_local",
    "closed": "limiter_fails_closed",
}
"""The log event at the beginning of an outage."""


class Admission:
    """The admission of requests by one quota for each client.

    Args:
        name: The name of the quota in the `RateLimit` header.
        quota: The number of requests, and the window.
        limiter: Decides on each request.
        listener: Receives one event for the rejections of each iteration of the loop, and one for the
            bypasses.
        observe: Called with the number of requests of each outcome, after each iteration of the loop.
        outage_policy: The policy while the limiter's store is unavailable.
        local: The limiter by this worker's share of the quota. Required if the policy is "local", else None.
    """

    def __init__(
        self,
        name: str,
        quota: Quota,
        limiter: RateLimiter,
        listener: Listener,
        observe: Callable[[Mapping[AdmissionOutcome, int]], object] = lambda _outcomes: None,
        *,
        outage_policy: OutagePolicy = "open",
        local: RateLimiter | None = None,
    ) -> None:
        assert (local is not None) == (outage_policy == "local")
        self.name = name
        self.quota = quota
        self._limiter = limiter
        self._listener = listener
        self._observe = observe
        self._outage_policy: OutagePolicy = outage_policy
        self._local = local
        self._results = TickBatch[Decision | StorageUnavailableError](self._report)
        self._has_store = True

    async def decide(self, client: str) -> Decision | None:
        """Decide on one request of `client`. A rejected request does not use up the quota.

        Returns:
            The decision; None if the request is admitted without a decision.

        Raises:
            StorageUnavailableError: There is no decision, and the policy is "closed".
        """
        decision, _ = await self.decide_with(client, self._hit_alone)
        return decision

    async def decide_with(
        self, client: str, hit: HitWithCommand[R]
    ) -> tuple[Decision | None, R | StorageUnavailableError]:
        """Decide like `decide`. `hit` takes the unit of the quota together with another command.

        Returns:
            The decision, and the result of the other command; the error of `hit` in place of the result.
        """
        try:
            decision, result = await hit(self._key(client))
        except StorageUnavailableError as error:
            self._set_has_store(has_store=False)
            return await self._decide_without_store(client, error), error
        if decision.allowed:  # a repeated rejection does not prove that the store is available
            self._set_has_store(has_store=True)
        self._results.add(decision)
        return decision, result

    def known_rejection(self, client: str) -> Decision | None:
        """Return a rejection that is known without the store; None if `decide` must be called."""
        decision = self._limiter.refusal(self._key(client))
        if decision is not None:
            self._results.add(decision)
        return decision

    async def _decide_without_store(self, client: str, error: StorageUnavailableError) -> Decision | None:
        if self._local is not None:
            decision = await self._local.hit(self._key(client))
            self._results.add(decision)
            return decision
        self._results.add(error)
        if self._outage_policy == "closed":
            raise error
        return None

    async def _hit_alone(self, key: str) -> tuple[Decision, None]:
        return await self._limiter.hit(key), None

    def _key(self, client: str) -> str:
        return f"rl:{self.name}:{client}"

    def _set_has_store(self, *, has_store: bool) -> None:
        if has_store == self._has_store:
            return
        self._has_store = has_store
        event = "limiter_recovered" if has_store else _OUTAGE_EVENTS[self._outage_policy]
        _log.warning(event, extra={"quota": self.name})

    def _report(self, results: Sequence[Decision | StorageUnavailableError]) -> None:
        errors = [result for result in results if isinstance(result, StorageUnavailableError)]
        retry_afters = [
            result.retry_after for result in results if isinstance(result, Decision) and not result.allowed
        ]
        allowed = len(results) - len(retry_afters) - len(errors)
        if self._outage_policy == "closed":
            retry_afters += [error.retry_after for error in errors]
            errors = []
        self._observe({"allowed": allowed, "refused": len(retry_afters), "bypassed": len(errors)})
        if retry_afters:
            times = len(retry_afters)
            notify(self._listener, Rejected(policy=self.name, times=times, retry_after=retry_afters[0]))
        if errors:
            notify(self._listener, Bypassed(policy=self.name, times=len(errors), error=errors[0]))
