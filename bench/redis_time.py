"""Measures the time that Redis spends on a single measurement, including the rate limit.

One client posts measurements one after another, so that each is a separate run of the script. Redis reports
the time of its scripts (`INFO commandstats`). The result is the median of several periods.
"""

from statistics import median

from bench.contestants import OURS
from bench.load import Client
from bench.rounds import Bench
from bench.works import LIMITS, works

PERIODS, REQUESTS_PER_PERIOD = 20, 500


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
