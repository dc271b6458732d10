"""The settings, and the example that documents them."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from src.config.settings import InvalidSettingsError, Settings, load_settings

EXAMPLE = Path(".env.example").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Use neither the environment nor the `.env` of the machine."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_lists_every_setting_with_its_default(tmp_path):
    named = re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)
    (tmp_path / ".env").write_text(EXAMPLE, encoding="utf-8")
    assert load_settings() == Settings(_env_file=None)


def test_the_example_describes_each_setting():
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n{name.upper()}=" in EXAMPLE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_PORT", "eighty"),
        ("APP_PORT", "70000"),
        ("RATE_LIMIT_REQUESTS", "0"),
        ("EXTERNAL_SERVICE_FAILURE_RATE", "1.5"),
        ("EXTERNAL_SERVICE_FAILURE_RATE", "nan"),
        ("EXTERNAL_SERVICE_TIMEOUT", "inf"),
        ("CIRCUIT_BREAKER_RESET_TIMEOUT", "0"),
        ("RATE_LIMIT_ALGORITHM", "guessing"),
        ("LOG_LEVEL", "LOUD"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://localhost:notaport"),
        ("REDIS_URL", "redis://localhost:1/x"),
        ("REDIS_HOST", "localhost:6380"),
        ("REDIS_PASSWORD", "\udcff"),
        ("REDIS_DB", "-1"),
        ("REDIS_DB", "2147483648"),
        ("ADMIN_API_KEY", " "),
        ("ADMIN_API_KEY", "schl\u00fcssel"),
        ("RATE_LIMIT_REQUESTS", "100000000"),
        ("EXTERNAL_SERVICE_RATE_PER_SECOND", "2000000"),
        ("CIRCUIT_BREAKER_RESET_TIMEOUT", "1e-9"),
        ("CACHE_TTL_SECONDS", "99999999999999999999"),
        ("EXTERNAL_SERVICE_URL", "not a url"),
    ],
)
def test_an_invalid_value_causes_one_line_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_env_file_with_a_byte_order_mark_is_read_from_its_first_name(tmp_path):
    """In the past the mark was read as a part of the first name, so that the setting was ignored."""
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfAPP_PORT=8123\nCACHE_TTL_SECONDS=7\n")
    assert (load_settings().app_port, load_settings().cache_ttl_seconds) == (8123, 7)


def test_an_env_file_that_is_not_utf_8_is_reported(tmp_path):
    (tmp_path / ".env").write_bytes(b"APP_HOST=\xff")
    with pytest.raises(InvalidSettingsError, match="not UTF-8"):
        load_settings()


def test_the_error_does_not_contain_an_invalid_secret(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "http://:hunter2@localhost")
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_means_the_default(monkeypatch):
    monkeypatch.setenv("ADMIN_API_KEY", "")
    assert load_settings().admin_api_key is None


@pytest.mark.parametrize(
    ("value", "networks"), [("none", []), ("10.0.0.1, 192.168.0.0/16", ["10.0.0.1/32", "192.168.0.0/16"])]
)
def test_a_trusted_proxy_that_is_no_network_is_rejected(monkeypatch, value, networks):
    monkeypatch.setenv("TRUSTED_PROXIES", value)
    assert list(load_settings().trusted_proxies) == [ip_network(network) for network in networks]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "redis://[::1]:6379/0"),
        ("[::1]", "redis://[::1]:6379/0"),
        (" 10.0.0.1\n", "redis://10.0.0.1:6379/0"),
        ("fe80::1%eth0", "redis://[fe80::1%25eth0]:6379/0"),
        ("redis_1.example.", "redis://redis_1.example.:6379/0"),
    ],
)
def test_the_redis_host_can_be_any_name_or_address(monkeypatch, host, url):
    monkeypatch.setenv("REDIS_HOST", host)
    assert load_settings().redis_address == url


def test_blanks_around_the_redis_url_are_ignored(monkeypatch):
    monkeypatch.setenv("REDIS_URL", " redis://cache:6380/2\n")
    assert load_settings().redis_address == "redis://cache:6380/2"


def test_the_redis_url_overrides_host_and_port(monkeypatch):
    monkeypatch.setenv("REDIS_HOST", "cache")
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/word")
    assert load_settings().redis_address == "redis://:p%40ss%2Fword@cache:6379/0"
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1/2")
    assert load_settings().redis_address == "redis://elsewhere:1/2"


def test_secrets_are_not_shown():
    assert "hunter2" not in repr(Settings(_env_file=None, admin_api_key="hunter2", redis_password="hunter2"))
