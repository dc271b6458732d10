"""Blocks of series as bytes."""

import numpy as np
import pytest

from src.analytics.series_block import SeriesBlock


@pytest.mark.parametrize("count", [8_191, 8_192, 100_000])
def test_a_block_is_decoded_with_its_bins_in_order_however_large_their_counts(count: int) -> None:
    """A count above 8,191 is divided among several entries, which are not beside one another."""
    values = np.array([2.0] * count + [40.0] * (count // 10) + [2.0, 7.0])
    series = np.array([1] * (len(values) - 2) + [2] * 2)
    block = SeriesBlock.from_points(series, np.arange(len(values)), values)

    decoded = SeriesBlock.decode(block.encode())

    assert decoded.cell_series.tolist() == block.cell_series.tolist()
    assert decoded.cell_bins.tolist() == block.cell_bins.tolist()
    assert decoded.cell_counts.tolist() == block.cell_counts.tolist()
    (_, _, sketch), (_, _, other) = decoded.aggregates()
    assert sketch.quantile(0.5) == pytest.approx(2.0, rel=0.01)
    assert sketch.quantile(0.99) == pytest.approx(40.0, rel=0.01)
    assert other.quantile(1) == pytest.approx(7.0, rel=0.01)
