"""Measures the time that Redis spends on writes, including the rate limit.

One client posts measurements one after another, so that each is a separate run of the script. Redis reports
the time of its scripts (`INFO commandstats`). The result is the median of several periods.

A batch with a point of each of many types is one run too, the longest of any batch. Redis serves nobody else
meanwhile.
"""

from statistics import median

from bench.contestants import OURS
from bench.load import Client
from bench.points import BenchPoint, ndjson_request
from bench.processes import running_redis
from bench.rounds import Bench, WrongAnswerError
from bench.works import LARGE_BATCH_POINTS, LIMITS, works
from src.resilience.clock import SystemClock

PERIODS, REQUESTS_PER_PERIOD = 20, 500
BATCHES_OF_TYPES = 5


def measure(bench: Bench, share: float = 1.0) -> float:
    """Return the µs that Redis needs for a measurement.

    Args:
        bench: Starts the API.
        share: The share of the requests to send; below 1 for a quick run.
    """
    ingest = next(work for work in works() if work.key == "ingest")
    found = []
    with bench.redis.client() as redis, bench.served(OURS, LIMITS) as ours, Client(ours.port) as client:
        redis.flushall()
        client.send(ingest.request)  # loads the script
        for _ in range(PERIODS):
            redis.config_resetstat()
            for _ in range(max(1, round(REQUESTS_PER_PERIOD * share))):
                client.send(ingest.request)
            found.append(float(redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]))
    return median(found)


def measure_many_types(bench: Bench, share: float = 1.0) -> float:
    """Return the longest time in ms that Redis is busy with a batch of one point of each of 10,000 types.

    Args:
        bench: Starts the API.
        share: How many of the types are stored, for a quick look.
    """
    now_us = int(SystemClock().now() * 1e6)
    names = [f"type-{number}" for number in range(round(LARGE_BATCH_POINTS * share))]
    request = ndjson_request(BenchPoint(name, now_us, 1.5) for name in names)
    with running_redis("--slowlog-log-slower-than", "0", "--slowlog-max-len", "10000") as redis:
        with bench.served(OURS, {**LIMITS, "REDIS_URL": redis.url}) as ours, Client(ours.port) as client:
            for _ in range(BATCHES_OF_TYPES):
                answer = client.send(request)
                if answer.status != 201:
                    raise WrongAnswerError(f"{OURS.name} answers a batch of many types with {answer}")
        with redis.client() as observer:
            commands = observer.slowlog_get(observer.slowlog_len())
    return float(max(command["duration"] for command in commands)) / 1000
