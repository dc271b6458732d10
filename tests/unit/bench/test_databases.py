"""The databases that the benchmark compares with."""

import pytest

from bench.peers.databases import DATABASES, INFLUXDB, VICTORIA_METRICS


def test_the_points_that_a_summary_of_influxdb_covers_are_counted():
    row = '["2026-11-30T18:29:35Z",5000,47.7,0,96,0,238834,48,92,96]'
    assert INFLUXDB.count_in(f'{{"results":[{{"series":[{{"values":[{row}]}}]}}]}}'.encode()) == 5000
    assert INFLUXDB.count_in(b'{"results":[{"statement_id":0}]}') == 0


def test_the_points_that_a_summary_of_victoria_metrics_covers_are_counted():
    rows = (
        '{"metric":{"rollup":"avg_over_time"},"value":[1,"47.7"]},'
        '{"metric":{"rollup":"count_over_time"},"value":[1,"5000"]},{"metric":{"q":"0.5"},"value":[1,"48"]}'
    )
    assert VICTORIA_METRICS.count_in(f'{{"data":{{"result":[{rows}]}}}}'.encode()) == 5000
    assert VICTORIA_METRICS.count_in(b'{"data":{"result":[]}}') == 0


@pytest.mark.parametrize("database", DATABASES, ids=lambda database: database.name)
def test_a_database_is_left_out_with_a_line_where_there_is_no_apt(database, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("bench.peers.databases.CACHE", tmp_path)
    monkeypatch.setattr("bench.peers.databases.shutil.which", lambda _program: None)
    assert database.find() is None
    assert capsys.readouterr().err == f"{database.name} is left out: this machine has no apt-get\n"
