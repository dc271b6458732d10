"""What every line that is logged in a request says of it, such as its `request_id`."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

log_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=MappingProxyType({}))
"""One variable for all fields, set anew by each request: nothing of an earlier one can stay behind."""
