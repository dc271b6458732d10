"""The series of a type: the numbers of their labels, and their points in blocks."""
