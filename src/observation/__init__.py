"""Records of observed requests and events, on their way to logs, metrics and counters."""
