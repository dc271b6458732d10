"""Whether a client may go on: the rate limiter's verdict, and what holds while it has none.

The failure policy of the limiter is here and nowhere else. When its store is unavailable, refuses, or is
slower than its budget, there is no verdict of the fleet, and one of three policies holds (docs/adr/0005):

- `open`: the request is let through unexamined, whatever its client has used. A service that stopped
  answering because it could not count its callers would be less available than one that did not count.
- `local`: this worker decides by itself, by its share of the quota.
- `closed`: the request fails, as the store does.

The first such request is logged, and so is the first verdict of the fleet after it. Requests that are let
through unexamined are reported as `Bypassed`. What was decided in one tick of the event loop is reported at
its end: a flood of refusals is one event, with their number.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from src.observation.tick_batch import TickBatch
from src.resilience.events import Bypassed, Listener, Rejected, notify
from src.resilience.rate_limiter.options import Quota
from src.resilience.rate_limiter.store import Decision, RateLimiter
from src.services.errors import StorageUnavailableError

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["allowed", "refused", "bypassed"]

WithoutStore: TypeAlias = Literal["open", "local", "closed"]
"""What holds while the limiter's store gives no verdict."""

AskLimiter: TypeAlias = Callable[[str], Awaitable[Decision]]
"""Takes a unit of the quota of a key, as a rate limiter does."""

_BEGUN: dict[WithoutStore, str] = {
    "open": "limiter_fails_open",
    "local": "limiter_local",
    "closed": "limiter_fails_closed",
}
"""What is logged when the policy begins to hold."""


class Admission:
    """One quota for each client.

    Args:
        name: Of the quota, as it stands in the `RateLimit` header.
        quota: How many requests in which window.
        limiter: Decides.
        listener: Told of the refusals of a tick, and of its bypasses.
        observe: Told how many requests of a tick had which outcome.
        without_store: What holds while the limiter's store gives no verdict.
        local: Decides then, by this worker's share of the quota; given exactly where that is "local".
    """

    def __init__(
        self,
        name: str,
        quota: Quota,
        limiter: RateLimiter,
        listener: Listener,
        observe: Callable[[Mapping[Outcome, int]], object] = lambda _outcomes: None,
        *,
        without_store: WithoutStore = "open",
        local: RateLimiter | None = None,
    ) -> None:
        assert (local is not None) == (without_store == "local")
        self.name = name
        self.quota = quota
        self._limiter = limiter
        self._listener = listener
        self._observe = observe
        self._without_store: WithoutStore = without_store
        self._local = local
        self._verdicts = TickBatch[Decision | StorageUnavailableError](self._tell)
        self._has_store = True

    async def decide(self, client: str, hit: AskLimiter | None = None) -> Decision | None:
        """Count one request of `client` against the quota; a refused one does not count.

        Args:
            client: Who asks.
            hit: Asks the limiter along with something else; without it, the limiter is asked by itself.

        Returns:
            The verdict, or None when there was none and the request is to be let through.

        Raises:
            StorageUnavailableError: There was none, and the request is not to be let through.
        """
        try:
            decision = await (hit or self._limiter.hit)(self._key(client))
        except StorageUnavailableError as error:
            self._note(has_store=False)
            return await self._decide_without_store(client, error)
        if decision.allowed:  # a refusal the limiter may have repeated, without its store
            self._note(has_store=True)
        self._verdicts.add(decision)
        return decision

    def refusal(self, client: str) -> Decision | None:
        """Refuse a request of `client`, where that needs no asking; None where `decide` has to be asked."""
        decision = self._limiter.refusal(self._key(client))
        if decision is not None:
            self._verdicts.add(decision)
        return decision

    async def _decide_without_store(self, client: str, error: StorageUnavailableError) -> Decision | None:
        if self._local is not None:
            decision = await self._local.hit(self._key(client))
            self._verdicts.add(decision)
            return decision
        self._verdicts.add(error)
        if self._without_store == "closed":
            raise error
        return None

    def _key(self, client: str) -> str:
        return f"rl:{self.name}:{client}"

    def _note(self, *, has_store: bool) -> None:
        if has_store == self._has_store:
            return
        self._has_store = has_store
        event = "limiter_is_back" if has_store else _BEGUN[self._without_store]
        _log.warning(event, extra={"quota": self.name})

    def _tell(self, verdicts: Sequence[Decision | StorageUnavailableError]) -> None:
        errors = [verdict for verdict in verdicts if isinstance(verdict, StorageUnavailableError)]
        retry_afters = [
            verdict.retry_after
            for verdict in verdicts
            if isinstance(verdict, Decision) and not verdict.allowed
        ]
        allowed = len(verdicts) - len(retry_afters) - len(errors)
        if self._without_store == "closed":
            retry_afters += [error.retry_after for error in errors]
            errors = []
        self._observe({"allowed": allowed, "refused": len(retry_afters), "bypassed": len(errors)})
        if retry_afters:
            times = len(retry_afters)
            notify(self._listener, Rejected(policy=self.name, times=times, retry_after=retry_afters[0]))
        if errors:
            notify(self._listener, Bypassed(policy=self.name, times=len(errors), error=errors[0]))
