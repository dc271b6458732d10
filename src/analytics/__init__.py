"""The mathematics of measurements: points, rollups, windows and quantiles. Pure, without I/O or a clock."""
