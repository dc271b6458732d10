"""Names of variables that look like settings but are unknown."""

import io
import re
from pathlib import Path

import pytest

from src.config.settings import Settings
from src.config.unknown_settings import (
    OTHER_PROGRAMS_PREFIXES,
    SETTING_PREFIXES,
    UnknownSetting,
    main,
    unknown_settings,
)

CHECKOUT = Path.cwd()
SETTINGS = {name.upper() for name in Settings.model_fields}
NAMES_OF_OTHER_PROJECTS = [
    ("EXTERNAL_API_TIMEOUT", "EXTERNAL_SERVICE_TIMEOUT"),
    ("REQUEST_TIMEOUT_SECONDS", "PROXY_REQUEST_TIMEOUT_SECONDS"),
    ("RATE_LIMIT_SECONDS", "PROXY_RATE_LIMIT_SECONDS"),
    ("CIRCUIT_BREAKER_FAIL_MAX", "PROXY_CIRCUIT_BREAKER_FAIL_MAX"),
]


@pytest.fixture(autouse=True)
def env_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        *NAMES_OF_OTHER_PROJECTS,
        ("RATE_LIMIT_REQEUSTS", "RATE_LIMIT_REQUESTS"),
        ("CACHE_TTL_SECS", "CACHE_TTL_SECONDS"),
        ("cache_ttl_secs", "CACHE_TTL_SECONDS"),
    ],
)
def test_an_unknown_name_is_found_in_both_places_with_the_nearest_setting(env_file, name, nearest):
    assert unknown_settings({name: "1"}) == [UnknownSetting(name, "environment", nearest)]
    env_file.write_text(f"{name}=1\n", encoding="utf-8")
    assert unknown_settings({}) == [UnknownSetting(name, ".env", nearest)]


def test_the_program_reads_the_env_file_from_its_input_and_shows_no_value(monkeypatch, capsys):
    text = b"\xef\xbb\xbfCACHE_TTL_SECS=secret\nCERTIFICATE='secret\nsecret=='\nDATABASE_URL\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    monkeypatch.setenv("RATE_LIMIT_SECS", "secret")

    main()

    assert capsys.readouterr().out.splitlines() == [
        "CACHE_TTL_SECS in .env is not a setting and has no effect. Nearest: CACHE_TTL_SECONDS.",
        "CERTIFICATE in .env is not a setting and has no effect.",
        "DATABASE_URL in .env is not a setting and has no effect.",
        "RATE_LIMIT_SECS is not a setting and has no effect. Nearest: PROXY_RATE_LIMIT_SECONDS.",
    ]


@pytest.mark.parametrize(
    ("name", "nearest"), [("LOG_LEVL", "LOG_LEVEL"), ("REDIS_PASS", "REDIS_PASSWORD"), ("DATABASE_URL", None)]
)
def test_every_unknown_name_in_the_env_file_is_reported(env_file, name, nearest):
    env_file.write_text(f"\ufeff{name}=x\nexport OTHER_{name} = 'y'\n", encoding="utf-8")
    found = unknown_settings({})
    assert [(unknown.name, unknown.source) for unknown in found] == [
        (name, ".env"),
        (f"OTHER_{name}", ".env"),
    ]
    assert found[0].nearest == nearest


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "APP_ENV", "LOG_DIR", "WEB_ROOT", "REDIS_HOSTS", "REDIS_SERVICE_HOST", "REDIS_PORT_6379_TCP",
        "CACHE_DIR", "PROXY_URL", "HTTP_PROXY", "QUEUE_URL", "METRICS_PORT", "MAX_MEMORY",
        "OTEL_SDK_DISABLED",
        "EXTERNAL_SERVICE_SERVICE_HOST", "EXTERNAL_SERVICE_SERVICE_PORT_HTTP", "EXTERNAL_SERVICE_PORT",
        "EXTERNAL_SERVICE_PORT_9000_TCP_ADDR",
    ],
)  # fmt: skip
def test_variables_of_other_programs_in_the_environment_are_not_reported(name):
    assert unknown_settings({name: "1"}) == []


def test_known_names_and_the_example_are_not_reported(env_file):
    env_file.write_bytes((CHECKOUT / ".env.example").read_bytes())
    assert unknown_settings(dict.fromkeys((*SETTINGS, "app_host"), "1")) == []


def test_variables_of_compose_and_the_start_script_are_not_reported(env_file):
    script = "".join((CHECKOUT / name).read_text(encoding="utf-8") for name in ("start.sh", "demo.sh"))
    compose = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    names = set(re.findall(r"\$\(setting ([A-Z_]+)", script)) | set(re.findall(r"\$\{([A-Z_]+)", compose))
    assert "PROVIDER_PORT" in names
    env_file.write_text("".join(f"{name}=1\n" for name in sorted(names)), encoding="utf-8")
    assert unknown_settings({}) == []


def test_the_prefixes_are_those_of_the_settings_except_common_ones():
    other_prefixes = {
        prefix for prefix in SETTING_PREFIXES if not any(name.startswith(prefix) for name in SETTINGS)
    }
    assert other_prefixes == {"EXTERNAL_API_", "REQUEST_TIMEOUT_"}
    shared = ("APP_", "LOG_", "REDIS_", "WEB_")
    missing = [name for name in SETTINGS if not name.startswith((*SETTING_PREFIXES, *shared))]
    assert missing == [], "add a prefix to SETTING_PREFIXES, so that a misspelling of this setting is found"
    assert not any(name.startswith(OTHER_PROGRAMS_PREFIXES) for name in SETTINGS)
