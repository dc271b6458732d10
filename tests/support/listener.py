"""The library's own recording listener."""

from src.resilience.testing import RecordingListener

__all__ = ["RecordingListener"]
