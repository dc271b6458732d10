"""The record of an answered request, for counters and logs."""

from collections.abc import Mapping
from typing import NamedTuple


class RequestRecord(NamedTuple):
    """An answered request.

    Attributes:
        method: The HTTP method.
        route: The template of the path; "unmatched" if no route matched.
        path: The path that the client sent.
        status: The status of the answer; 0 if no answer was sent.
        seconds: The time from the arrival of the request to the end of the answer.
        log_fields: The fields of the request's log lines.
    """

    method: str
    route: str
    path: str
    status: int
    seconds: float
    log_fields: Mapping[str, str]
