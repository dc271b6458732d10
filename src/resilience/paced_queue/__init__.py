"""The paced queue."""
