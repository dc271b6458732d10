"""The patterns at a terminal, for people: a demonstration and an experiment, each with one command."""
