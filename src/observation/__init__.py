"""What was observed, on its way to logs, metrics and counters."""
