"""The old name of `src.storage.fault_store`, until the wiring knows the new one."""

from src.storage.fault_store import RedisFaultStore as RedisFailureRateStore

__all__ = ["RedisFailureRateStore"]
