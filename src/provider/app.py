"""The provider's app."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI

from src.provider.catalogue import SEED
from src.provider.control import control_router
from src.provider.echo import echo_router
from src.provider.faults import Faults, FaultSchedule
from src.provider.injection import FaultInjection, Stats
from src.provider.key_value import key_value_router
from src.provider.problems import render_problems
from src.provider.score import score_router
from src.provider.store import KeyValueStore
from src.web.head import HeadMiddleware
from src.web.offline_docs import add_offline_docs


def create_provider_app(
    faults: Faults,
    *,
    chance: Callable[[], float],
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> FastAPI:
    """Return a provider with its own keys, faults and counts.

    The app has no lifespan, so a transport without lifespans can call it in process. In process, an intended
    cut of the connection reaches the caller as `ConnectionCutError`, a `ConnectionResetError`.

    Args:
        faults: The faults at first; `PUT /faults` changes them.
        chance: Returns a random number from [0, 1). A seeded source makes a failure rate repeatable.
        now: Returns a monotonic reading in seconds.
        sleep: Waits for a number of seconds.
    """
    schedule, stats = FaultSchedule(faults, chance), Stats()
    app = FastAPI(
        title="Provider",
        version="1.0.0",
        description="A simulated external service that fails on command.",
        docs_url=None,
        redoc_url=None,
    )
    add_offline_docs(app)
    app.add_middleware(FaultInjection, schedule=schedule, stats=stats, sleep=sleep)
    app.add_middleware(HeadMiddleware, router=app.router)
    app.include_router(key_value_router(KeyValueStore(SEED)))
    app.include_router(echo_router(sleep))
    app.include_router(score_router(now))
    app.include_router(control_router(schedule, stats))
    render_problems(app)
    return app
