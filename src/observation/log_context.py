"""The fields that every log line of a request has, such as `request_id`."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

log_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=MappingProxyType({}))
"""All fields in one variable. Each request replaces the mapping, so no field of an earlier one remains."""
