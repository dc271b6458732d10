"""The log lines and their format."""

import io
import json
import logging
import sys
from types import SimpleNamespace

import pytest
import structlog

from src.observation.log_context import log_fields
from src.observation.request_record import RequestRecord
from src.resilience.events import Bypassed, CacheAnswered, FellBack, StateChanged
from src.telemetry.event_log import log_event
from src.telemetry.logs import configure_logging, request_log
from tests.support.logging_state import restore_logging

A_REQUEST = RequestRecord("GET", "/x", "/x", 200, 0.5, {"request_id": "abc"})


@pytest.fixture(autouse=True)
def restored_logging():
    with restore_logging():
        yield
    log_fields.set({})


@pytest.fixture
def logged(capsys):
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_line_is_one_json_object(logged):
    configure_logging("INFO", "json")
    log_fields.set({"request_id": "abc"})
    structlog.stdlib.get_logger("ours").info("first", answer=42)
    logging.getLogger("uvicorn.error").warning("second %d", 2, extra={"color_message": "coloured"})
    first, second = logged()
    assert first.items() >= {"event": "first", "level": "info", "request_id": "abc", "answer": 42}.items()
    assert second.items() >= {"event": "second 2", "level": "warning", "request_id": "abc"}.items()
    assert "color_message" not in second
    assert first["timestamp"].endswith("Z")


def test_an_exception_stays_on_its_line(logged):
    configure_logging("INFO", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("unexpected_error")
    (line,) = logged()
    assert "broken" in json.dumps(line["exception"])


def fail(x_api_key, depth=0):
    if depth == 200:
        raise ValueError("broken")
    fail(x_api_key, depth + 1)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_logged_exception_has_no_local_variables(capsys, log_format):
    """In the past, the local variables of each frame were logged, including the request's headers."""
    configure_logging("INFO", log_format)
    try:
        fail(x_api_key=f"hunter{1 + 1}")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("unexpected_error")
    text = capsys.readouterr().out
    assert "broken" in text
    assert "in fail" in text or '"fail"' in text
    assert "hunter2" not in text
    if log_format == "json":
        assert len(text) < 10_000


def test_less_severe_lines_are_not_logged(logged):
    configure_logging("INFO", "json")
    structlog.stdlib.get_logger("ours").debug("detail")
    assert logged() == []


def test_the_console_format_is_readable(capsys):
    configure_logging("INFO", "console")
    structlog.stdlib.get_logger("ours").info("hello", answer=42)
    line = capsys.readouterr().out
    assert "hello" in line
    assert "answer" in line


def ascii_stdout(monkeypatch):
    """Set a stdout that encodes in ASCII, as without a locale, and return its content."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    return stdout.buffer.getvalue


@pytest.mark.parametrize("text", ["Zürich", "価格", "\U0001f600", "half a pair: \ud800"])
def test_in_text_a_character_that_stdout_cannot_encode_is_escaped(monkeypatch, clock, text):
    """In the past such a line was lost."""
    written = ascii_stdout(monkeypatch)
    configure_logging("INFO", "console")
    structlog.stdlib.get_logger("ours").info(text)
    request_log("INFO", "console", clock)([A_REQUEST._replace(path=f"/{text}")])
    event, request = written().decode("ascii").splitlines()
    escaped = text.encode("ascii", "backslashreplace").decode()
    assert escaped in event
    assert f"/{escaped}" in request


@pytest.mark.parametrize("text", ["Zürich", "価格", "\U0001f600"])
def test_json_is_in_utf_8_for_any_encoding_of_stdout(monkeypatch, text):
    """In the past all lines except those of requests were lost."""
    written = ascii_stdout(monkeypatch)
    configure_logging("INFO", "json")
    structlog.stdlib.get_logger("ours").info(text)
    logging.getLogger("another").warning(text)
    lines = [json.loads(line) for line in written().decode("utf-8").splitlines()]
    assert [line["event"] for line in lines] == [text, text]


@pytest.mark.parametrize("value", ["half a pair: \ud800", 2**64, {1: 2}], ids=repr)
def test_a_value_that_orjson_cannot_encode_does_not_lose_the_line(logged, value):
    configure_logging("INFO", "json")
    structlog.stdlib.get_logger("ours").info("hello", value=value)
    (line,) = logged()
    assert line["value"] == (value if not isinstance(value, dict) else {"1": 2})
    assert list(line)[:3] == ["timestamp", "level", "event"]


def test_events_are_logged_at_their_level(logged):
    configure_logging("INFO", "json")
    log_event(StateChanged(policy="p", before="CLOSED", after="OPEN", reason="5 consecutive failures"))
    log_event(FellBack(policy="p", error=ValueError("gone")))
    log_event(CacheAnswered(policy="c", outcome="hit"))
    log_event(Bypassed(policy="l", error=ValueError("away")))
    opened, fell_back = logged()
    assert (opened["event"], opened["level"], opened["after"]) == ("StateChanged", "warning", "OPEN")
    assert "times" not in opened, "only repeated events have this field"
    assert (fell_back["event"], fell_back["level"], fell_back["error"]) == (
        "FellBack",
        "info",
        "ValueError: gone",
    )


class TestRequests:
    def test_a_request_is_a_line_like_the_others(self, logged, clock):
        configure_logging("INFO", "json")
        log = request_log("INFO", "json", clock)
        log([
            RequestRecord("GET", "/things/{id}", "/things/1", 200, 0.0123456, {"request_id": "abc"}),
            RequestRecord("GET", "unmatched", "/nothing\x1b[2J\nhere", 404, 1.0, {}),
        ])  # fmt: skip
        logging.getLogger("another").info("another")
        first, second, another = logged()
        assert first.items() >= {"level": "info", "event": "request", "request_id": "abc"}.items()
        assert (first["method"], first["path"], first["status"]) == ("GET", "/things/1", 200)
        assert first["duration_ms"] == 12.35
        assert second["path"] == "/nothing\x1b[2J\nhere", "the request is on one line"
        assert list(first)[:4] == ["timestamp", "level", "event", "request_id"]
        assert len(first["timestamp"]) in {len("2026-01-31T12:00:00Z"), len(another["timestamp"])}

    def test_in_text_a_request_line_uses_the_standard_loggers(self, capsys, clock):
        configure_logging("INFO", "console")
        request_log("INFO", "console", clock)([A_REQUEST])
        line = capsys.readouterr().out
        assert "path=/x" in line
        assert "request_id=abc" in line

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_below_the_log_level_no_request_is_logged(self, capsys, clock, log_format):
        configure_logging("WARNING", log_format)
        request_log("WARNING", log_format, clock)([A_REQUEST])
        assert capsys.readouterr().out == ""

    def test_a_reader_that_disconnects_does_not_affect_other_readers(self, clock, monkeypatch):
        log = request_log("INFO", "json", clock)

        class DisconnectedReader:
            def write(self, _):
                raise BrokenPipeError

        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", SimpleNamespace(buffer=DisconnectedReader()))
            log([A_REQUEST])
