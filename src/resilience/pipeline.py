"""Several policies as one: each policy runs the next one, and the last policy runs the call."""

from typing import TypeVar

from .policy import AsyncPartial, Call, Policy, SyncPolicy, require_async

T = TypeVar("T")


class Pipeline(SyncPolicy):
    """A policy made of policies, outermost first.

    A sound order, which this service uses around its external service, is::

        Pipeline(fallback, rate_limiter, bulkhead, circuit_breaker, retry, timeout)

    The fallback handles every failure. A call holds its permit of the bulkhead during all its attempts. The
    breaker counts a call that failed in all its attempts as one failure. Each attempt has its own time limit.
    A pipeline is a policy itself, so pipelines can be nested; an empty one only runs the call.

    Args:
        policies: The policies, outermost first.

    Raises:
        TypeError: One of them is no policy, for example a list of policies, or the class of a policy.
    """

    def __init__(self, *policies: Policy) -> None:
        for policy in policies:
            if isinstance(policy, type) or not callable(getattr(policy, "run", None)):
                raise TypeError(f"policies must have an async run(call), unlike {policy!r}")
        self.policies = policies

    async def run(self, call: Call[T]) -> T:
        """Run `call` inside every policy. Returns and raises what the outermost policy does.

        Raises:
            TypeError: `call` is a plain function; it is not run.
        """
        require_async(call)
        for policy in reversed(self.policies):
            call = AsyncPartial(policy.run, call)
        return await call()
