"""Whether a client may go on: the rate limiter's verdict, and what holds while it has none.

The failure policy of the limiter is here and nowhere else: when its store is away, or slower than its
budget, the request is let through unexamined. The first such request is logged, and all are reported as
`Bypassed`. A service that stopped answering because it could not count its callers would be less available
than one that did not count.

What was decided in one tick of the event loop is told at its end: a flood of refusals is one event, that says
how many they were.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from src.observation.tick_batch import TickBatch
from src.resilience.events import Bypassed, Listener, Rejected, notify
from src.resilience.rate_limiter import Decision, Quota, RateLimiter
from src.services.errors import StorageUnavailableError

_log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["allowed", "refused", "bypassed"]

AskLimiter: TypeAlias = Callable[[str], Awaitable[Decision]]
"""Takes a unit of the quota of a key, as a rate limiter does."""


class Admission:
    """One quota for each client.

    Args:
        name: Of the quota, as it stands in the `RateLimit` header.
        quota: How many requests in which window.
        limiter: Decides.
        listener: Told of the refusals of a tick, and of its bypasses.
        observe: Told how many requests of a tick had which outcome.
    """

    def __init__(
        self,
        name: str,
        quota: Quota,
        limiter: RateLimiter,
        listener: Listener,
        observe: Callable[[Mapping[Outcome, int]], object] = lambda _outcomes: None,
    ) -> None:
        self.name = name
        self.quota = quota
        self._limiter = limiter
        self._listener = listener
        self._observe = observe
        self._verdicts = TickBatch[Decision | StorageUnavailableError](self._tell)
        self._fails_open = False

    async def decide(self, client: str, hit: AskLimiter | None = None) -> Decision | None:
        """Count one request of `client` against the quota; a refused one does not count.

        Args:
            client: Who asks.
            hit: Asks the limiter along with something else; without it, the limiter is asked by itself.

        Returns:
            The verdict, or None when there was none and the request is to be let through.
        """
        try:
            decision = await (hit or self._limiter.hit)(self._key(client))
        except StorageUnavailableError as error:
            self._note(fails_open=True)
            self._verdicts.add(error)
            return None
        if decision.allowed:  # a refusal the limiter may have repeated, without its store
            self._note(fails_open=False)
        self._verdicts.add(decision)
        return decision

    def refusal(self, client: str) -> Decision | None:
        """Refuse a request of `client`, where that needs no asking; None where `decide` has to be asked."""
        decision = self._limiter.refusal(self._key(client))
        if decision is not None:
            self._verdicts.add(decision)
        return decision

    def _key(self, client: str) -> str:
        return f"rl:{self.name}:{client}"

    def _note(self, *, fails_open: bool) -> None:
        if fails_open == self._fails_open:
            return
        self._fails_open = fails_open
        _log.warning("limiter_fails_open" if fails_open else "limiter_is_back", extra={"quota": self.name})

    def _tell(self, verdicts: Sequence[Decision | StorageUnavailableError]) -> None:
        errors = [verdict for verdict in verdicts if isinstance(verdict, StorageUnavailableError)]
        refusals = [verdict for verdict in verdicts if isinstance(verdict, Decision) and not verdict.allowed]
        allowed = len(verdicts) - len(refusals) - len(errors)
        self._observe({"allowed": allowed, "refused": len(refusals), "bypassed": len(errors)})
        if refusals:
            retry_after = refusals[0].retry_after
            notify(self._listener, Rejected(policy=self.name, times=len(refusals), retry_after=retry_after))
        if errors:
            notify(self._listener, Bypassed(policy=self.name, times=len(errors), error=errors[0]))
