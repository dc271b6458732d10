"""The provider's initial reference data of a few metric types."""

import orjson

_METRIC_TYPES = (
    ("cpu_usage", "percent", "Share of time the processors were busy", "platform"),
    ("memory_usage", "percent", "Share of main memory in use", "platform"),
    ("disk_usage", "percent", "Share of the file system in use", "platform"),
    ("temperature", "celsius", "Air temperature at the sensor", "facilities"),
    ("humidity", "percent", "Relative humidity at the sensor", "facilities"),
    ("response_time", "milliseconds", "Time from a request to the end of its answer", "web"),
    ("page_views", "count", "Pages shown to visitors", "web"),
    ("error_rate", "percent", "Share of requests answered with an error", "web"),
    ("queue_length", "count", "Jobs waiting in the queue", "operations"),
)

SEED = {
    f"metric-types/{name}": orjson.dumps(
        {"type": name, "unit": unit, "description": description, "owner": owner}
    )
    for name, unit, description, owner in _METRIC_TYPES
}
"""The documents of the store by key."""
