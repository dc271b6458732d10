"""Measurements as mathematics: points, rollups, windows and quantiles. Pure: no I/O and no clock."""
