"""Several policies as one: each runs the next inside itself, the last one runs the call."""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from .policy import AsyncPartial, Call, Policy, require_async

T = TypeVar("T")
P = ParamSpec("P")


class Pipeline:
    """A policy made of policies, named outermost first.

    A sound order, and the one this service uses around its external service, is::

        Pipeline(fallback, rate_limiter, bulkhead, circuit_breaker, retry, timeout)

    The fallback sees every failure, a place in the bulkhead is held while a call is retried, the breaker
    counts a call that failed all its attempts as one failure, and each attempt has its own time limit. A
    pipeline is a policy itself, so pipelines nest; an empty one just runs the call.

    Args:
        policies: The policies, outermost first.
    """

    def __init__(self, *policies: Policy) -> None:
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

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Decorate an async function, so that every call of it runs inside the pipeline.

        Raises:
            TypeError: `function` is a plain function.
        """
        require_async(function)

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return await self.run(functools.partial(function, *args, **kwargs))

        return guarded
