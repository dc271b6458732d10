"""A request that was answered, as it is told to those who count and log."""

from collections.abc import Mapping
from typing import NamedTuple


class RequestRecord(NamedTuple):
    """An answered request.

    Attributes:
        method: As the client sent it.
        route: The template of `path`, "unmatched" where there is none.
        path: As the client sent it.
        status: Of the answer; 0 where there was none.
        seconds: From its arrival to the end of its answer.
        log_fields: What every line that it logged says of it.
    """

    method: str
    route: str
    path: str
    status: int
    seconds: float
    log_fields: Mapping[str, str]
