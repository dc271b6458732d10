"""Sums of many groups of values, with their rounding errors."""

import math

import numpy as np

from src.analytics.rollup import Floats, Integers


def sum_groups(values: Floats, starts: Integers) -> tuple[Floats, Floats]:
    """Return the sum of each group of `values`, and the rounding error of each sum.

    Each value is split into an upper and a lower part. The sums of the upper parts are exact, and the lower
    parts are so small that the rounding of their sums is negligible. (Rump, Ogita and Oishi, "Accurate
    floating-point summation part I: faithful rounding", SIAM J. Sci. Comput. 31, 2008: `ExtractVector`.)

    Args:
        values: The values of all groups, one group after the other.
        starts: The index of the first value of each group.
    """
    greatest = float(np.abs(values).max(initial=0.0))
    if not greatest or not math.isfinite(greatest):
        with np.errstate(invalid="ignore"):
            return np.add.reduceat(values, starts), np.zeros(len(starts))
    exponent = math.frexp(greatest)[1] + len(values).bit_length() + 1
    if exponent > 1020:
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.add.reduceat(values, starts)
        sums[~np.isfinite(sums)] = math.nan
        return sums, np.zeros(len(starts))
    unit = math.ldexp(1.0, exponent)
    upper = (values + unit) - unit
    high, low = np.add.reduceat(upper, starts), np.add.reduceat(values - upper, starts)
    sums = high + low
    return sums, low - (sums - high)
