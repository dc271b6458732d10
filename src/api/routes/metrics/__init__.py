"""The routes of the metrics: ingest, reads, export, deletion and retention."""
