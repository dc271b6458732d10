"""Deletion of metrics, and how long they are kept."""
