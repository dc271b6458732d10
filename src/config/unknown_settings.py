"""Find variables that look like settings but are not, for example misspelled settings.

In `.env`, every unknown name is reported, except names that Docker Compose, OpenTelemetry, Python or the
start script use. The environment also has the variables of other programs, so a name there is reported only
if it has a prefix of this service's settings. The prefixes `APP_`, `LOG_`, `REDIS_` and `WEB_` are not used,
because other programs use them too (`APP_ENV`, `LOG_DIR`, `REDIS_SERVICE_HOST`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values

from src.config.settings import ENV_FILE, ENV_FILE_ENCODING, Settings

SETTING_PREFIXES = (
    "ADMIN_API_", "BATCH_MAX_", "CACHE_INVALIDATE_", "CACHE_STALE_", "CACHE_TTL_", "CIRCUIT_BREAKER_",
    "EXTERNAL_API_", "EXTERNAL_SERVICE_", "HEAD_TIMEOUT_", "KEEP_ALIVE_", "MAX_BODY_", "MAX_CONNECTIONS",
    "MAX_HEAD_", "MAX_SERIES_", "MAX_TYPES", "METRIC_", "PROXY_CACHE_", "PROXY_CIRCUIT_BREAKER_",
    "PROXY_MAX_", "PROXY_RATE_LIMIT_", "PROXY_REQUEST_", "PROXY_UPSTREAM_", "QUEUE_MAX_", "RATE_LIMIT_",
    "REQUEST_TIMEOUT_", "SHUTDOWN_", "TRUSTED_PROXIES",
)  # fmt: skip
"""The prefixes of environment variables for this service."""

OTHER_PROGRAMS_PREFIXES = ("COMPOSE_", "DOCKER_", "OTEL_", "PIP_", "PROVIDER_PORT", "PYTHON", "VENV")
"""The prefixes of names in `.env` that other programs read."""

_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT(_|$)")
"""The part that Kubernetes and Docker add to the name of another service, such as `external-service`."""

_LEAST_SIMILARITY = 0.7


class UnknownSetting(NamedTuple):
    """A name that is not a setting.

    Attributes:
        name: The name.
        source: The source of the name: "environment" or ".env".
        nearest: The most similar setting; None if no setting is similar.
    """

    name: str
    source: str
    nearest: str | None


def unknown_settings(environment: Mapping[str, str]) -> list[UnknownSetting]:
    """Return the unknown names in `.env` and in `environment`, in that order."""
    known = [name.upper() for name in Settings.model_fields]
    return [
        UnknownSetting(name, source, _nearest(name.upper(), known))
        for name, source in (*_env_file_names(), *_environment_names(environment))
        if name.upper() not in known
    ]


def _nearest(name: str, known: Sequence[str]) -> str | None:
    matches = get_close_matches(name, known, 1, _LEAST_SIMILARITY)
    return matches[0] if matches else None


def _env_file_names() -> Iterator[tuple[str, str]]:
    if Path(ENV_FILE).is_file():
        for name in dotenv_values(ENV_FILE, encoding=ENV_FILE_ENCODING, interpolate=False):
            if not name.upper().startswith(OTHER_PROGRAMS_PREFIXES):
                yield name, ENV_FILE


def _environment_names(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(environment):
        if name.upper().startswith(SETTING_PREFIXES) and not _SERVICE_LINK.search(name.upper()):
            yield name, "environment"
