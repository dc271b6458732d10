"""Logs: one JSON object per line on stdout, with `timestamp`, `level` and `event`.

The lines of a request also have its `request_id`, and its `trace_id` if the request belongs to a trace.
structlog renders all lines of the standard library's loggers, including those of uvicorn.
"""

import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from src.analytics.points import format_seconds
from src.observation.log_context import log_fields
from src.observation.request_record import RequestRecord
from src.resilience.clock import Clock

_requests = structlog.stdlib.get_logger("src.requests")

_FIRST = ("timestamp", "level", "event", "request_id", "trace_id")
"""The members at the start of a line, in this order."""

_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
"""Tracebacks without local variables, which can contain keys and other data of clients."""


def configure_logging(level: str, log_format: Literal["json", "console"]) -> None:
    """Configure all loggers of the process.

    Args:
        level: The least severe level that is logged.
        log_format: "json" for programs, "console" for people.
    """
    _set_stdout_encoding(log_format)
    shared: list[Processor] = [
        _add_log_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_color_message,
    ]
    renderer: list[Processor]
    if log_format == "json":
        tracebacks = structlog.processors.ExceptionRenderer(_TRACEBACKS)
        renderer = [tracebacks, structlog.processors.JSONRenderer(_to_json)]
    else:
        plain = structlog.dev.plain_traceback  # a rich one shows local variables
        renderer = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"  # the service writes its own line for each request
    logging.getLogger("httpx").setLevel(logging.WARNING)  # httpx logs each call at level INFO


def request_log(
    level: str, log_format: Literal["json", "console"], clock: Clock
) -> Callable[[Sequence[RequestRecord]], None]:
    """Return a function that logs answered requests, one line each, at level INFO.

    Every request has this line. In JSON it bypasses the standard library's loggers, which takes a tenth of
    the time, and all lines of one call are written at once.

    Args:
        level: The least severe level that is logged.
        log_format: "json" for programs, "console" for people.
        clock: Dates the lines.
    """

    def log_json(requests: Sequence[RequestRecord]) -> None:
        timestamp = format_seconds(clock.now())
        lines = [
            orjson.dumps(
                {
                    "timestamp": timestamp,
                    "level": "info",
                    "event": "request",
                    **request.log_fields,
                    "method": request.method,
                    "path": request.path,
                    "status": request.status,
                    "duration_ms": round(request.seconds * 1000, 2),
                },
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for request in requests
        ]
        with suppress(OSError, ValueError):  # a closed stdout must not make the service fail
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()

    def log_text(requests: Sequence[RequestRecord]) -> None:
        for request in requests:
            _requests.info(
                "request",
                **request.log_fields,
                method=request.method,
                path=request.path,
                status=request.status,
                duration_ms=round(request.seconds * 1000, 2),
            )

    return log_text if log_format == "console" or logging.getLevelName(level) > logging.INFO else log_json


def _set_stdout_encoding(log_format: Literal["json", "console"]) -> None:
    """Change the encoding of stdout, because a line with a character that it cannot encode would be lost.

    JSON is in UTF-8 (RFC 8259, section 8.1). In text, the characters that stdout lacks are escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # and not what a test or an embedding program put there
        encoding = "utf-8" if log_format == "json" else None
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def _add_log_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {**log_fields.get(), **event}


def _drop_color_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second, coloured copy of the message."""
    event.pop("color_message", None)
    return event


def _to_json(event: EventDict, **_options: object) -> str:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    line = {**first, **event}
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # half a surrogate pair, an integer of more than 64 bits, or a key that is not text
        return json.dumps(line, default=str, skipkeys=True)
