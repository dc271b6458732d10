"""Commands that show the patterns at a terminal: a demonstration and an experiment."""
