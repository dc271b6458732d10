"""Measures the time that Redis spends on a single measurement, including the rate limit.

One client posts measurements one after another, so that each is a separate run of the script. Redis reports
the time of its scripts (`INFO commandstats`). The result is the median of several periods.
"""

from statistics import median

from bench.contestants import OURS
from bench.load import Client
from bench.rounds import Bench
from bench.works import LIMITS, works

SPELLS, REQUESTS_A_SPELL = 20, 500


def measure(bench: Bench, share: float = 1.0) -> float:
    """Return the µs that Redis takes for a measurement.

    Args:
        bench: Starts the API.
        share: How much of the requests is sent, for a quick look.
    """
    ingest = next(work for work in works() if work.key == "ingest")
    found = []
    with bench.redis.client() as redis, bench.served(OURS, LIMITS) as ours, Client(ours.port) as client:
        redis.flushall()
        client.send(ingest.request)  # which has the script loaded
        for _ in range(SPELLS):
            redis.config_resetstat()
            for _ in range(max(1, round(REQUESTS_A_SPELL * share))):
                client.send(ingest.request)
            found.append(float(redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]))
    return median(found)
