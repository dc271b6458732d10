"""The service's additions to prometheus-client."""

import subprocess
import sys

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.telemetry.metrics_folder import MULTIPROC_DIR
from src.telemetry.prometheus import Histogram, exposition
from tests.support.server import environment

BOUNDS = (0.001, 0.5, 1, 10)


@given(st.lists(st.sampled_from([0, 0.001, 0.0011, 0.5, 1, 7, 10, 11]) | st.floats(0, 100)))
def test_observe_all_counts_each_value(amounts):
    samples = []
    for kind in (Histogram, prometheus_client.Histogram):
        registry = CollectorRegistry()
        series = kind("seconds", "Seconds", ["of"], buckets=BOUNDS, registry=registry).labels("it")
        if kind is Histogram:
            series.observe_all(amounts)
        else:
            for amount in amounts:
                series.observe(amount)
        (metric,) = registry.collect()
        samples.append({(each.name, each.labels.get("le")): each.value for each in metric.samples})
    total = ("seconds_sum", None)
    assert abs(samples[0].pop(total) - samples[1].pop(total)) < 1e-9 * (1 + sum(amounts))
    assert samples[0] == samples[1]


TORN = {
    "empty": b"",
    "short": b"\x10\x00",
    "beyond its end": (1 << 20).to_bytes(4, "little") + b"\0" * 60,
    "no text": (48).to_bytes(4, "little") + b"\0" * 4 + (24).to_bytes(4, "little") + b"\xff" * 60,
    "no JSON": (48).to_bytes(4, "little") + b"\0" * 4 + (20).to_bytes(4, "little") + b"x" * 20 + b"\0" * 16,
}


@pytest.mark.parametrize("content", TORN.values(), ids=TORN)
@pytest.mark.parametrize("name", ["counter_1.db", "histogram_1.db", "gauge_mostrecent_1.db"])
async def test_a_truncated_file_does_not_affect_the_figures_of_other_files(
    monkeypatch, tmp_path, caplog, name, content
):
    program = "from src.telemetry.prometheus import Counter; Counter('whole', 'Whole').inc(7)"
    folder = {MULTIPROC_DIR: str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment(**folder), check=True, timeout=60)
    (tmp_path / name).write_bytes(content)
    monkeypatch.setenv(MULTIPROC_DIR, str(tmp_path))
    text, _ = await exposition()
    assert b"whole_total 7.0" in text
    assert str(tmp_path / name) in {record.file for record in caplog.records}
