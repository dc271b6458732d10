"""The output of the service at its start."""

import json

from src.wiring import create_app
from tests.support.logging_state import restore_logging


def test_unknown_settings_are_warned_of_with_the_nearest_name(monkeypatch, tmp_path, capsys):
    """In the past, unknown settings were ignored without a warning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("EXTERNAL_API_TIMEOUT=3\nFROM_ELSEWHERE=1\n", encoding="utf-8")
    monkeypatch.setenv("RATE_LIMIT_SECONDS", "2")
    with restore_logging():
        create_app()
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert [
        (line["level"], line["setting"], line["source"], line["nearest"])
        for line in lines
        if line["event"] == "unknown_setting"
    ] == [
        ("warning", "EXTERNAL_API_TIMEOUT", ".env", "EXTERNAL_SERVICE_TIMEOUT"),
        ("warning", "FROM_ELSEWHERE", ".env", None),
        ("warning", "RATE_LIMIT_SECONDS", "environment", "PROXY_RATE_LIMIT_SECONDS"),
    ]
