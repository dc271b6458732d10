"""The parts of a request, read and validated: bodies, batches, query strings and cursors."""
