"""The package as its users import it."""

import importlib
import subprocess
import sys

import pytest

import src.resilience as package
from tests.support.library import MODULES, cpu_seconds, public_names

FACE = {
    "AdaptiveConcurrency": "adaptive_concurrency",
    "AdaptiveConcurrencyOptions": "adaptive_concurrency",
    "Bulkhead": "bulkhead",
    "BulkheadFullError": "errors",
    "BulkheadOptions": "bulkhead",
    "CacheOptions": "cache.options",
    "CallTimeoutError": "errors",
    "Chaos": "chaos",
    "ChaosOptions": "chaos",
    "CircuitBreaker": "circuit_breaker.policy",
    "CircuitBreakerOptions": "circuit_breaker.options",
    "CircuitOpenError": "errors",
    "Exponential": "retry.backoffs",
    "Fallback": "fallback",
    "Fixed": "retry.backoffs",
    "FullJitter": "retry.backoffs",
    "Hedging": "hedging",
    "HedgingOptions": "hedging",
    "MemoryBreakerStore": "circuit_breaker.memory",
    "MemoryCacheStore": "cache.memory",
    "MemoryPaceStore": "paced_queue.memory",
    "PacedQueue": "paced_queue.policy",
    "PacedQueueOptions": "paced_queue.options",
    "Pipeline": "pipeline",
    "QueueFullError": "errors",
    "Quota": "rate_limiter.options",
    "RateLimit": "rate_limiter.policy",
    "RateLimitOptions": "rate_limiter.options",
    "RateLimitedError": "errors",
    "ReadThroughCache": "cache.policy",
    "RejectedError": "errors",
    "ResilienceError": "errors",
    "Retry": "retry.policy",
    "RetryOptions": "retry.options",
    "StoreUnavailableError": "errors",
    "SystemClock": "clock",
    "Timeout": "timeout",
    "always": "fallback",
    "memory_rate_limiter": "rate_limiter.memory",
    "parse_quotas": "rate_limiter.quota_text",
}
"""Every name that can be imported from the package itself, and where it is defined."""


def test_the_package_exports_exactly_these_names():
    assert {name: getattr(package, name).__module__ for name in package.__all__} == {
        name: f"src.resilience.{module}" for name, module in FACE.items()
    }
    assert set(package.__all__) <= set(dir(package))
    package.Retry  # noqa: B018 -- loaded, it is a global name too
    assert dir(package).count("Retry") == 1


def test_the_stores_in_redis_are_listed_before_they_are_loaded():
    names = "import src.resilience.redis as r; print(set(r.__all__) <= set(dir(r)))"
    assert subprocess.check_output([sys.executable, "-c", names], text=True).strip() == "True"


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Linear'"):
        package.Linear  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_every_folder_exports_the_public_names_of_its_modules(module):
    """The only exception is the folder of the building blocks of the patterns, which is not public."""
    public = public_names(module)
    assert public, "a module without public names"
    folder = module.rpartition(".")[0]
    if folder not in {"src.resilience", "src.resilience.building_blocks"}:
        exported = importlib.import_module(folder)
        assert {name: getattr(exported, name, None) for name in public} == public
        assert public.keys() <= set(exported.__all__)
        assert sorted(exported.__all__) == sorted(set(exported.__all__))


def test_all_modules_import_only_the_standard_library():
    program = f"import sys, {', '.join(MODULES)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True
    )  # -S: modules that the installed packages load at the start must not count
    foreign = {name for name in ran.stdout.split() if name not in sys.stdlib_module_names}
    assert foreign <= {"src", "__main__"}


@pytest.mark.slow
def test_importing_the_package_costs_less_than_asyncio():
    """Compare processor times, which a busy machine hardly changes. `import asyncio` takes about 30 ms."""
    asyncio_alone = cpu_seconds(sys.executable, "import asyncio")
    assert cpu_seconds(sys.executable, "import src.resilience") < asyncio_alone
    assert (
        cpu_seconds(sys.executable, "from src.resilience import CircuitBreaker, Retry, Timeout")
        < 2 * asyncio_alone
    )
