"""The reads of the metrics: lists, summaries of windows and by labels, and export."""
