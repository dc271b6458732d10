"""The patterns' Redis forms, and the port through which they use Redis."""
