"""What the workers share besides metrics."""
