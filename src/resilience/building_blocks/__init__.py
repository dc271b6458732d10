"""The parts that several patterns are made of."""
