"""At a terminal, each with one command: a demonstration, an experiment, an export and an import."""
