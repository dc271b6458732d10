"""The HTTP edge: parse, call a service, render."""
