"""Commands at a terminal: a demonstration, an experiment, an export and an import."""
