"""The data that all workers share, apart from metrics: counters, events, faults, leases and proxy totals."""
